"""Draws whose PSF allows no galaxy get another PSF: a compact source and a PSF that may be half a pixel
narrower than it is."""

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve

from galbatch.forward import forward_model
from galbatch.prior import load_prior
from galbatch.sampler import agreement, sample_posterior
from galbatch.sampler.agreement import broken_draws, unlike_draws
from galbatch.sampler.draw import Problem
from galbatch.types import Observation
from galbatch.validate.mock import mock_psf

ERROR = np.array([[0.5, 0.1, 0.03, 0.02, 0.01]])
N, DRAWS = 64, 8


@pytest.fixture(scope="module")
def prior():
    return load_prior("small", device="cpu", precision="float32")


def compact(fwhm: float, sn: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (h, w) of a Gaussian source of the given FWHM in noise of one, and the PSF."""
    y, x = np.mgrid[:N, :N] - N / 2
    psf = mock_psf(3.0)
    image = fftconvolve(np.exp(-4 * np.log(2) * (x**2 + (1.5 * y) ** 2) / fwhm**2), psf, "same")
    return image * (sn / image.max()) + np.random.default_rng(seed).standard_normal(image.shape), psf


def sample(prior, sources, ids, **more):
    pixels, psfs = (np.stack(part)[:, None] for part in zip(*sources, strict=True))
    obs = Observation(pixels, np.ones_like(pixels), psfs, psf_error=ERROR)
    return sample_posterior(prior, obs, DRAWS, "fast", source_ids=ids, **more)


def broken(posterior_) -> np.ndarray:
    return broken_draws(torch.from_numpy(posterior_.samples), 2.0)[..., 0].numpy()


def test_draws_that_no_galaxy_makes_are_drawn_again_with_another_psf(prior, monkeypatch):
    source = compact(2.5, 500, 1)
    again = sample(prior, [source], [3])
    monkeypatch.setattr(agreement, "TRIES", 0)
    once = sample(prior, [source], [3])
    assert broken(once).sum() >= 2 and not broken(again).any()
    kept = ~broken(once)[0]
    np.testing.assert_array_equal(again.samples[0, kept], once.samples[0, kept])
    assert DRAWS > kept.sum() > 0 and again.n_evaluations[0] > once.n_evaluations[0]


def test_what_is_drawn_again_does_not_depend_on_the_batch(prior):
    sources, ids = [compact(6.0, 30, 2), compact(2.5, 500, 1)], [4, 3]
    together = sample(prior, sources, ids, batch=2)
    for i, (source, source_id) in enumerate(zip(sources, ids, strict=True)):
        alone = sample(prior, [source], [source_id])
        peak = alone.samples.max()
        np.testing.assert_allclose(together.samples[i], alone.samples[0], atol=2e-3 * peak)
        assert together.n_evaluations[i] == alone.n_evaluations[0]


@pytest.mark.parametrize("given", [1.0, 0.8])
def test_draws_that_do_not_fit_are_those_that_fit_much_worse_than_others(given):
    """Whatever the noise map says: where it is too small no draw fits."""
    pixels, psf = compact(6.0, 300, 1)
    light = torch.from_numpy(compact(6.0, 300, 2)[0])[None, None, None]
    clean = (light - torch.from_numpy(np.random.default_rng(2).standard_normal((N, N)))).float()
    obs = Observation(pixels[None, None], np.full((1, 1, N, N), given), psf[None, None])
    data, model = forward_model(obs)
    off = torch.tensor([0.0] * 12 + [0.002, -0.002, 0.03, -0.03])[None, :, None, None, None]
    found = unlike_draws(model, data, clean * (1 + off))[..., 0]
    assert found.tolist() == [[False] * 14 + [True] * 2]
    assert not unlike_draws(model, data, 0 * clean.expand(1, 16, 1, N, N)).any()  # no light, no footprint


def test_draws_that_do_not_fit_are_drawn_again_with_another_psf(prior, monkeypatch):
    source, asked = compact(6.0, 300, 1), []

    def unlike(model, data, seen):
        asked.append(seen.shape)
        return torch.arange(DRAWS)[None, :, None] == (2 if len(asked) == 1 else DRAWS)

    monkeypatch.setattr(agreement, "unlike_draws", unlike)
    again = sample(prior, [source], [3])
    monkeypatch.setattr(agreement, "TRIES", 0)
    once = sample(prior, [source], [3])
    changed = (again.samples != once.samples).any((0, 2, 3, 4))
    assert changed.tolist() == [i == 2 for i in range(DRAWS)] and asked == [(1, DRAWS, 1, N, N)] * 2
    seen = again.info["model"][0, 0]
    assert abs(source[0] - seen).std() < 1.1 and again.info["psf_in_error"].all()


def test_of_bands_together_only_the_one_that_does_not_fit_gets_another_psf(prior, monkeypatch):
    """Of many bands one nearly always has a PSF that does not fit: the others keep theirs."""
    run, runs = Problem.run, []

    def record(self, mode, draws, stage, call, psf=None):
        drawn, spent = run(self, mode, draws, stage, call, psf)
        runs.append((draws, psf, drawn.psf))
        return drawn, spent

    def unlike(model, data, seen):
        found = torch.zeros(seen.shape[:3], dtype=torch.bool)
        found[0, 1, -1] = len(asked) == 0
        asked.append(0)
        return found

    asked = []
    monkeypatch.setattr(Problem, "run", record)
    monkeypatch.setattr(agreement, "unlike_draws", unlike)
    pixels, psf = compact(6.0, 100, 1)
    both = np.stack([pixels, pixels])[None]
    obs = Observation(both, np.ones_like(both), np.stack([psf, psf])[None], psf_error=np.repeat(ERROR, 2, 0))
    found = sample_posterior(prior, obs, 3, "fast", joint=True, wavelengths=[1.5, 2.0])
    assert found.info["psf_in_error"].all() and np.isfinite(found.samples).all()
    first, again = (of for of in runs if of[2] is not None)  # a first look has none
    assert list(first[0]) == [0, 1, 2] and again[0] == [1] and first[1] is None
    torch.testing.assert_close(again[2][0, 0, 0], first[2][0, 1, 0])
    assert ((again[2][0, 0, 1] - first[2][0, 1, 1]).abs() > 1e-3).all()
