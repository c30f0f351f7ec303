"""Pixels that a noise map calls useless by a huge number, as Euclid's does with 1e16, are no data."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import Observation
from galbatch.cutouts import load_survey, open_survey
from galbatch.cutouts.noise.variance import variance
from galbatch.forward import smoothed_peak_scale
from galbatch.types import informed


@pytest.mark.parametrize("huge", [1e16, 1e8, 99999.0])
@pytest.mark.parametrize("kind, power", [("err", 1), ("var", 2), ("wht", -2)])
def test_a_huge_sigma_stands_for_none(huge, kind, power):
    sigma = np.full((1, 12, 12), 2.0)
    sigma[0, 5, 5] = 400.0  # a star's photons
    sigma[0, :, :8] = huge  # two thirds of the pixels
    found = variance(kind, sigma**power)
    assert np.isinf(found[0, :, :8]).all()
    assert np.allclose(found[0, :, 8:], sigma[0, :, 8:] ** 2)


def test_a_few_wrong_small_values_do_not_empty_a_stamp():
    sigma = np.ones((16, 16))
    sigma[3, 3:8] = 1e-9
    assert informed(sigma).all()


def test_the_flux_scale_is_that_of_masked_pixels():
    """Their variance of 1e32 drowned all others in the rounding of a Fourier transform: fluxes of 1e26."""
    y, x = np.mgrid[:32, :32] - 15.5
    data = np.random.default_rng(1).normal(size=(1, 1, 32, 32)) + 30 * np.exp(-(x**2 + y**2) / 18)
    sigma, mask = np.ones(data.shape), np.zeros(data.shape, bool)
    mask[..., :6, :10] = True
    psf = np.exp(-(np.hypot(*(np.mgrid[:15, :15] - 7)) ** 2) / 8)[None]
    masked = Observation(data, sigma, psf, mask)
    huge = Observation(np.where(mask, 0, data), np.where(mask, 1e16, sigma), psf)
    assert np.array_equal(masked.valid, huge.valid)
    assert np.array_equal(smoothed_peak_scale(masked), smoothed_peak_scale(huge))


def test_a_place_that_was_never_observed_is_no_dark_sky(tmp_path):
    """Zero everywhere, with any noise map."""
    image = np.random.default_rng(0).normal(size=(60, 60)).astype("f4")
    image[:, 30:] = 0
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [10, 1], [30, 30]
    wcs.wcs.cdelt = np.array([-1, 1]) * 0.1 / 3600
    for name, plane in (("sci", image), ("err", np.ones_like(image))):
        fits.writeto(tmp_path / f"{name}.fits", plane, wcs.to_header())
    psf = np.exp(-(np.hypot(*(np.mgrid[:15, :15] - 7)) ** 2) / 8)
    fits.writeto(tmp_path / "psf.fits", psf / psf.sum())
    (tmp_path / "s.toml").write_text(
        'name = "s"\nlayout = "generic"\nstamp_arcsec = 1.6\n[bands.h]\nsci = "sci.fits"\nerr = "err.fits"\n'
        'psf = "psf.fits"\npsf_scale_arcsec = 0.1\nunit = "nJy"\nerr_scale = 1.0\nnoise_acf = "none"\n'
    )
    tile = open_survey(load_survey(tmp_path / "s.toml")).tile("h", "0")
    raw = tile.read([20, 20], [5, 40], 16, 16)
    assert raw.bad.mean((1, 2)).tolist() == [0, 1]
