"""Images resampled to pixels a third as large, as those of Euclid's NISP: smooth noise under a noise map with
steps, and with 1e16 where nothing was measured."""

import numpy as np
import pytest
import torch
from scipy import ndimage

import galbatch
from galbatch.cutouts.noise.measure import positive_definite, scatter_of
from galbatch.flags import Flag
from galbatch.forward import forward_model
from galbatch.sampler.guidance import CompactFilter
from galbatch.types import Observation

FLUX = 3000.0


@pytest.fixture(scope="module")
def field():
    """(noise, noise map) of 240 pixels a side from a detector of 80, on which every twentieth pixel was seen
    in a quarter of the exposures; their blank sky says by how much the map is off and how noise is
    correlated."""
    rng = np.random.default_rng(5)
    of_detector = np.where(rng.random((80, 80)) < 0.05, 2.0, 1.0)
    at = (np.mgrid[:240, :240] + 0.5) / 3 - 0.5
    noise = ndimage.map_coordinates(rng.normal(size=(80, 80)) * of_detector, at, order=1, mode="nearest")
    noise_map = of_detector.repeat(3, 0).repeat(3, 1)
    scale, acf = scatter_of([(noise / noise_map, np.ones(noise.shape, bool))])
    return noise, noise_map * scale, positive_definite(acf)


def observation(field, y0: int, x0: int, light: np.ndarray | float = 0.0, size: int = 64) -> Observation:
    noise, sigma, acf = field
    cut = np.s_[y0 : y0 + size, x0 : x0 + size]
    data, sigma = noise[cut] + light, sigma[cut].copy()
    sigma[:12, :9] = 1e16
    data[:12, :9] = 0.0
    width = np.arange(21) - 10
    psf = np.exp(-0.5 * (width[:, None] ** 2 + width**2) / (4.2 / 2.3548) ** 2)
    return Observation(data[None, None], sigma[None, None], psf[None] / psf.sum(), noise_acf=acf[None])


def test_steps_of_a_noise_map_are_no_features(field):
    assert field[2].shape == (15, 15)  # correlated far beyond the next pixel
    found = []
    for y0, x0 in ((0, 0), (0, 160), (160, 0), (88, 88)):
        data, model = forward_model(observation(field, y0, x0), margin=4, target_fwhm_pix=2.0)
        compact = CompactFilter(model, 2.0)
        significance, _ = compact(model.adjoint(model.noise.precision(data)))
        found.append(significance[compact.seen])
    found = torch.cat(found)
    assert 0.7 < found.std() < 1.6  # 3.2 with the map as it is, 7.4 with its 1e16
    assert found.abs().max() < 10  # 29 and 470


def test_a_galaxy_comes_out_with_its_flux(field):
    """Fluxes were 1e26, and images that were not were called misfits."""
    y, x = np.mgrid[:48, :48] - 23.5
    light = np.exp(-0.5 * (x**2 / 4.0**2 + y**2 / 3.0**2))
    obs = observation(field, 88, 88, light * FLUX / light.sum(), 48)
    prior = galbatch.load_prior(device="cpu", backend="eager", precision="float32")
    posterior = galbatch.sample_posterior(prior, obs, draws=4, mode="fast", seed=2)
    own = np.hypot(x, y) < 16
    flux = (posterior.samples[0, :, 0] * own).sum((-1, -2), dtype=float)
    assert flux.mean() == pytest.approx(FLUX, abs=3 * flux.std(ddof=1) + 0.02 * FLUX)
    assert flux.std() < 0.1 * FLUX
    assert 0.3 < posterior.chi2[0, 0] < 1.2  # most of its modes hold no noise
    assert not posterior.flags[0] & (Flag.SAMPLER_CHI2 | Flag.BROKEN | Flag.FLUX_NOT_CONSERVED)
