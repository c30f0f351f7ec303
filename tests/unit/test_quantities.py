"""Quantities: what has a unit is taken for what it is, or refused; never for a plain number."""

import numpy as np
import pytest
from astropy import units as u

from galbatch import Observation, measure
from galbatch.errors import InputError


def observation(scale=1.0, unit=None, **other):
    rng = np.random.default_rng(0)
    data, psf = rng.normal(0, 1, (1, 1, 16, 16)), np.ones((1, 3, 3)) / 9
    wear = (lambda a: a * scale) if unit is None else (lambda a: a * scale * unit)
    made = {"data": wear(data), "sigma": wear(np.ones_like(data)), "psf": psf} | other
    return Observation(**made)


@pytest.mark.parametrize(
    ("scale", "unit"),
    [(1e-3, u.uJy), (1e-3, u.uJy / u.pix), (0.03**-2, u.nJy / u.arcsec**2), (1e-9, u.Jy)],
)
def test_fluxes_become_njy_per_pixel(scale, unit):
    plain, given = observation(), observation(scale, unit)
    np.testing.assert_allclose(given.data, plain.data, rtol=1e-6)
    np.testing.assert_allclose(given.sigma, plain.sigma, rtol=1e-6)
    assert not hasattr(given.data, "unit")


def test_scales_become_arcsec():
    found = observation(pixel_scale_arcsec=0.0005 * u.arcmin, psf_scale_arcsec=1e-5 * u.deg / u.pix)
    assert found.pixel_scale_arcsec == pytest.approx(0.03) and found.psf_scale_arcsec == pytest.approx(0.036)


@pytest.mark.parametrize(("other", "message"), [
    ({"data": np.zeros((1, 1, 16, 16)) * u.uJy}, "data has a unit .uJy. and sigma has none"),
    ({"pixel_scale_arcsec": 0.03 * u.m}, "pixel_scale_arcsec is in m, which cannot be"),
    ({"psf": np.ones((1, 3, 3)) * u.nJy}, "psf is in nJy, which cannot be converted to a plain number"),
])  # fmt: skip
def test_what_cannot_be_converted_is_refused(other, message):
    with pytest.raises(InputError, match=message):
        observation(**other)


def test_seconds_are_no_flux():
    with pytest.raises(InputError, match="data is in s, which cannot be converted to nJy"):
        observation(1.0, u.s)


def test_measure_takes_quantities():
    y, x = np.indices((48, 48)) - 23.5
    image = 1000 * np.exp(-np.hypot(y, x) / 4)[None]
    plain = measure(image, 0.03, sky_sigma=0.0)
    given = measure(image / 1e3 * u.uJy, 0.0005 * u.arcmin, sky_sigma=0.0)
    for name in ("flux_njy", "r_half", "gini", "mag_ab"):
        np.testing.assert_allclose(given[name], plain[name], rtol=1e-5)
    with pytest.raises(InputError, match=r"images has a unit .uJy. and sigma has none"):
        measure(image * u.uJy, 0.03, sigma=np.ones_like(image))
    with pytest.raises(InputError, match="images is in Jy / s"):
        measure(image * u.Jy / u.s, 0.03)
