"""A prior adapted to a run: its stamps, the pixels that judge it, and that nothing is written unless it is
better."""

import numpy as np
import pytest
import torch
from toys import GaussianPrior, write_survey

import galbatch
from galbatch.errors import InputError, ModelError
from galbatch.forward import forward_model
from galbatch.prior import load_prior
from galbatch.training.draws import DrawSource, split
from galbatch.training.stamps import StampConfig, smoothed_peak
from galbatch.types import Observation
from galbatch.validate import adapt
from galbatch.validate.adapt import BLOCK_PIX, compare, hidden_score, hide
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


def test_hidden_pixels_are_blocks_on_the_source():
    inside = np.zeros((20, 2, 48, 48), bool)
    inside[:, :, 6:42, 6:42] = True
    hidden = hide(inside, 5)
    assert not (hidden & ~inside).any() and hidden.sum() / inside.sum() == pytest.approx(0.2, abs=0.03)
    block = hidden[:, :, 6 : 6 + BLOCK_PIX, 6 : 6 + BLOCK_PIX]
    assert (block.all((2, 3)) == block.any((2, 3))).all()


class Louder(GaussianPrior):
    """The same field with nine times the power on every scale, and so with the wrong denoiser."""

    sha256 = "toy-louder"

    def denoise(self, x, sigma):
        return 3 * super().denoise(x / 3, sigma / 3)


def test_the_prior_that_made_the_galaxies_predicts_hidden_pixels_best():
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
    obs = Observation(data.numpy(), blank + 1, psf)
    hidden = hide(np.ones(data.shape, bool), 1)
    right, wrong = (hidden_score(p, obs, hidden, 8) for p in (GaussianPrior(), Louder()))
    gain, error, number = compare(right, wrong)
    assert number == hidden.any((1, 2, 3)).sum() > n - 3 and gain > 3 * error > 0
    assert np.isnan(hidden_score(GaussianPrior(), obs, hidden & False, 2)).all()


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
    with pytest.raises(ModelError, match=r"is not better on .* held-out images"):
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
