"""Planted faults of a reconstruction, and images that have none."""

import numpy as np
import pytest
import torch

from galbatch.forward import forward_model
from galbatch.prior import load_prior
from galbatch.sampler.diagnostics import BROKEN_SHARE, flux_differs, sharper_than_resolution
from galbatch.types import Observation
from galbatch.validate import make_mocks

Y, X = np.mgrid[:64, :64]


def blurred(image, fwhm=2.0):
    s = fwhm / 2.3548200450309493
    gain = np.exp(-2 * np.pi**2 * s**2 * (np.fft.fftfreq(64)[:, None] ** 2 + np.fft.fftfreq(64) ** 2))
    return np.fft.ifft2(np.fft.fft2(image) * gain).real


def galaxy():
    """A cuspy core, a point source between pixels and clumps."""
    image = np.exp(-1.7 * (np.hypot(Y - 32, (X - 32) / 0.6) / 4) ** 0.5)
    image[20, 40] += 3.0
    return blurred(image + 5 * ((Y == 33) & (X == 30)))


def sharpness(mean, std=0.0):
    mean = torch.from_numpy(np.asarray(mean, np.float32))[None, None]
    return float(sharper_than_resolution(mean, torch.full_like(mean, std), 2.0)[0, 0])


def test_light_at_the_resolution_is_never_too_sharp():
    assert sharpness(galaxy()) < 1e-3


def test_no_truth_is_broken_though_thin_discs_are_sharper_than_the_law():
    prior = load_prior("small", device="cpu", backend="eager")
    truth = torch.from_numpy(make_mocks(prior, 72).image[:, None]).float()
    found = sharper_than_resolution(truth, torch.zeros_like(truth), prior.spec.target_fwhm_pix)
    assert 0.15 < found.max() < BROKEN_SHARE  # decision 0025


@pytest.mark.parametrize("fault", ["checkerboard", "rows", "columns", "hole"])
def test_broken_cores_are_seen(fault):
    image = galaxy()
    core = np.hypot(Y - 32, X - 32) < 6
    pattern = {
        "checkerboard": (-1.0) ** (Y + X),
        "rows": (-1.0) ** Y,
        "columns": (-1.0) ** X,
        "hole": np.where((Y == 33) & (X == 33), -2.0, 0),
    }[fault]
    broken = np.where(core, image * (1 + 0.8 * pattern), image)
    assert sharpness(broken) > BROKEN_SHARE
    assert sharpness(broken, image.max() / 2) <= BROKEN_SHARE  # as uncertain as that, it is no fault


def test_a_fault_on_a_neighbour_is_not_the_sources():
    image = galaxy()
    other = np.roll(image, (0, 20), (0, 1)) * 3
    near = np.hypot(Y - 32, X - 52)
    both = torch.from_numpy(image + np.where((Y + X) % 2 * (near < 6), 0.2 * other, other))[None, None]
    own = torch.from_numpy((near > 9).astype(np.float64))[None, None]
    nothing = torch.zeros_like(both)
    assert sharper_than_resolution(both, nothing, 2.0) > BROKEN_SHARE
    assert sharper_than_resolution(both, nothing, 2.0, own) < BROKEN_SHARE


def test_flux_that_differs_by_a_few_noises_or_a_few_per_cent_is_conserved():
    image = galaxy() / galaxy().max() * 50
    blank = np.ones((1, 1, 64, 64), np.float32)
    psf = np.exp(-((np.mgrid[:9, :9] - 4) ** 2).sum(0) / 4.0)
    _, model = forward_model(Observation(blank, blank, psf[None, None] / psf.sum()), target_fwhm_pix=2.0)
    truth = torch.from_numpy(image.astype(np.float32))[None, None]
    data = model.apply(truth[:, None])
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 1, 1, 64, 64)).astype(np.float32))
    found = {g: flux_differs(model, g * data + noise, data).item() for g in (0.9, 0.98, 1.0, 1.02, 1.1)}
    assert found == {0.9: True, 0.98: False, 1.0: False, 1.02: False, 1.1: True}
    assert not flux_differs(model, data / 50 + noise, data / 100).item()  # lost in the noise
