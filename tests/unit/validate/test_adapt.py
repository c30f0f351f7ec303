"""A prior adapted to a run: its stamps, what judges it, and that nothing is written unless it is better."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import GaussianPrior, write_survey

import galbatch
from galbatch.errors import InputError, ModelError
from galbatch.forward import forward_model
from galbatch.prior import load_prior
from galbatch.sampler.random import Normals
from galbatch.training.draws import DrawSource, split
from galbatch.training.stamps import StampConfig, smoothed_peak
from galbatch.types import Observation
from galbatch.validate import adapt
from galbatch.validate.adapt import compare, half_score, halves
from galbatch.validate.mock import mock_psf


def galaxies(n=5, k=3, side=40):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    rng = np.random.default_rng(3)
    width = rng.uniform(2, 5, (n, k, 1, 1))
    return list(np.exp(-0.5 * ((x - 2) ** 2 + 2 * y**2) / width**2).astype(np.float32) * 1000)


def test_stamps_are_draws_turned_and_mirrored_in_units_of_their_flux_scale():
    source = DrawSource(galaxies(), StampConfig(scatter=0.0))
    stamps = source.draw(200, 32, (1, 2))
    assert stamps.shape == (200, 1, 32, 32) and torch.equal(stamps, source.draw(200, 32, (1, 2)))
    assert not torch.equal(stamps, source.draw(200, 32, (1, 3)))
    fwhm = torch.full((200,), 6.25)
    peak = smoothed_peak(stamps, fwhm, source.config).flatten()
    assert torch.allclose(peak, torch.ones(200), atol=0.05)  # the width that it is judged at is drawn too
    y, x = (stamps.sum(d)[:, 0] @ (torch.arange(32.0) - 15.5) / stamps.sum((1, 2, 3)) for d in (3, 2))
    sides = {(round(float(a)), round(float(b))) for a, b in zip(x, y, strict=True)}
    assert sides == {(2, 0), (-2, 0), (0, 2), (0, -2)}  # a lopsided galaxy is seen from all sides


def test_a_galaxy_is_on_one_side_of_the_split_whatever_its_band_and_too_few_are_refused():
    names = [str(i // 2) for i in range(400)]
    held = split(names)
    assert (held[::2] == held[1::2]).all() and 0.15 < held.mean() < 0.35
    with pytest.raises(InputError, match="at least 8 of each"):
        split(names[:20])


@pytest.mark.parametrize("acf", [None, np.array([[0.1, 0.3, 0.1], [0.3, 1.0, 0.3], [0.1, 0.3, 0.1]])])
def test_halves_of_an_exposure_have_independent_noise_of_twice_the_variance(acf):
    rng, n, side = np.random.default_rng(8), 40, 24
    sigma = np.exp(rng.normal(0, 0.3, (n, 1, side, side))).astype(np.float32)
    mask = rng.random(sigma.shape) < 0.1
    psf = np.repeat(mock_psf(2.5, 15)[None, None], n, 0)
    nature = {} if acf is None else {"noise_acf": acf[None], "sigma_white": 0.5 * sigma}
    empty = Observation(np.zeros_like(sigma), sigma, psf, mask, **nature)
    noise = forward_model(empty)[1].noise.sample(Normals(1, range(n), [0], [0]).draw)[:, 0].numpy()
    obs = replace(empty, data=noise)
    first, second = halves(obs, list(range(n)))
    assert np.allclose((first.data + second)[obs.valid], 2 * noise[obs.valid], atol=1e-5)
    one, two = (np.where(obs.valid, half / first.sigma, 0) for half in (first.data, second))
    number = obs.valid.sum()
    error = 3 * (1 if acf is None else 1.5) / np.sqrt(number)  # correlated pixels are fewer
    assert (one**2).sum() / number == pytest.approx(1, abs=1.5 * error)
    assert (two**2).sum() / number == pytest.approx(1, abs=1.5 * error)
    assert (one * two).sum() / number == pytest.approx(0, abs=error)
    beside = (one * np.roll(one, 1, -1)).sum() / (obs.valid & np.roll(obs.valid, 1, -1)).sum()
    assert beside == pytest.approx(0 if acf is None else 0.3 * 0.75, abs=0.04)
    weight = forward_model(first)[1].noise.precisions[1]  # the half says of its noise what is true of it
    assert torch.allclose(2 * weight, forward_model(obs)[1].noise.precisions[1])
    again = halves(obs, list(range(n)))[0]
    assert np.array_equal(first.data, again.data) and not np.array_equal(first.mask, obs.valid)


class Louder(GaussianPrior):
    """The same field with nine times the power on every scale, and so with the wrong denoiser."""

    sha256 = "toy-louder"

    def denoise(self, x, sigma):
        return 3 * super().denoise(x / 3, sigma / 3)


class Noisy(GaussianPrior):
    """It believes in whatever is there: little is denoised."""

    sha256 = "toy-noisy"

    def denoise(self, x, sigma):
        return super().denoise(x, 0.3 * sigma)


def test_the_prior_that_made_the_galaxies_predicts_the_other_half_best():
    generator = torch.Generator().manual_seed(4)
    n, side = 12, 24
    k = torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.rfftfreq(side)[None] ** 2
    power = 400.0 / (1.0 + (k / 0.01) ** 1.5)
    truth = torch.fft.irfft2(
        torch.fft.rfft2(torch.randn(n, 1, 1, side, side, generator=generator)) * power.sqrt(), s=(side, side)
    )
    blank = np.zeros((n, 1, side, side), np.float32)
    psf = np.repeat(mock_psf(2.5, 15)[None, None], n, 0)
    clean = forward_model(Observation(blank, blank + 1, psf), target_fwhm_pix=2.0)[1].apply(truth)[:, 0]
    data = clean + torch.randn(clean.shape, generator=generator)
    obs, everywhere = Observation(data.numpy(), blank + 1, psf), np.ones(data.shape, bool)
    right = half_score(GaussianPrior(), obs, everywhere, 8)
    for wrong in (Louder(), Noisy()):
        gain, error, number = compare(right, half_score(wrong, obs, everywhere, 8))
        assert number == n and gain > 3 * error > 0
    assert np.isnan(half_score(GaussianPrior(), obs, everywhere & False, 2)).all()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapt")
    catalog = write_survey(folder, n=12)
    options = {"draws": 2, "mode": "fast", "cluster": "none", "report": False, "stamp_pix": 24}
    return galbatch.process(catalog, out=folder / "toy.run", model="small", **options)


def test_a_prior_is_written_only_if_it_is_better_and_then_a_run_takes_it(finished, tmp_path, monkeypatch):
    for name, small in (("LEAST", 1), ("MEASURED", 16)):
        monkeypatch.setattr(f"galbatch.training.draws.{name}", small)
    monkeypatch.setattr(adapt, "JUDGED", 3)
    run, out = finished.paths.root, tmp_path / "out"
    assert adapt.adapt_to_run(run, out, steps=2, quality=2, stop_after=1) is None  # resumable
    monkeypatch.setattr(adapt, "CERTAIN", 1e9)
    with pytest.raises(ModelError, match=r"is not better on .* held-out galaxies"):
        adapt.adapt_to_run(run, out, steps=2, quality=2)
    assert {p.name for p in out.iterdir()} == {"checkpoint.safetensors", "curve.png", "log.jsonl"}
    monkeypatch.setattr(adapt, "CERTAIN", -1e9)
    monkeypatch.setattr(adapt, "LOSS", np.inf)
    found = adapt.adapt_to_run(run, out, steps=2, quality=2)
    assert found["sources"] > 0 and np.isfinite([found["gain"], found["error"], found["loss"]]).all()
    prior, small = load_prior(out / "model"), load_prior("small")
    assert prior.card.name == "small-adapted" and prior.card.sha256 != small.card.sha256
    assert prior.card.training["started_from"]["sha256"] == small.card.sha256
    assert prior.spec.max_sd >= small.spec.max_sd and not prior.calibration
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    near = (prior.denoise(x, torch.full((2,), 0.3)) - small.denoise(x, torch.full((2,), 0.3))).abs().max()
    assert 0 < near < 0.5  # two steps away, of images of unit amplitude
