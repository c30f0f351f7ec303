"""The computed NIRCam-like PSF: energy, centre, and encircled energy against WebbPSF."""

import numpy as np
import pytest

from galbatch.errors import InputError
from galbatch.simulate.telescope import nircam_like_psf, wavefront_error


def encircled_radius(psf: np.ndarray, pixel_scale_arcsec: float, fraction: float) -> float:
    """Radius (arcsec) about the array's centre that holds ``fraction`` of the array's energy."""
    y, x = np.indices(psf.shape)
    radius = np.hypot(x - 0.5 * (psf.shape[1] - 1), y - 0.5 * (psf.shape[0] - 1)).ravel()
    order = np.argsort(radius, kind="stable")
    growth = np.cumsum(psf.ravel()[order])
    return float(np.interp(fraction * growth[-1], growth, radius[order]) * pixel_scale_arcsec)


def test_energy_is_below_one_grows_with_the_array_and_centre_is_the_middle():
    small, large = (nircam_like_psf(1.99, 0.03, n, 3, seed=4) for n in (31, 91))
    assert 0.85 < small.sum() < large.sum() < 1.0
    np.testing.assert_allclose(small, large[30:61, 30:61], rtol=0.02, atol=1e-6)
    axis = np.arange(11) - 5
    core = large[40:51, 40:51] * np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / 1.1**2)
    assert abs((core.sum(0) @ axis) / core.sum()) < 0.02
    assert abs((core.sum(1) @ axis) / core.sum()) < 0.02


def test_no_wavefront_error_gives_the_diffraction_limit():
    psf = nircam_like_psf(4.4, 0.03, 41, 3, wavefront_rms_nm=0.0, jitter_arcsec=0.0, bandwidth=0.01)
    profile = psf[20] / psf[20, 20]
    half = np.interp(0.5, profile[20:27][::-1], np.arange(7)[::-1]) * 2 * 0.03
    assert half == pytest.approx(1.03 * 4.4e-6 / 6.5 * 206265, rel=0.08)  # FWHM of lambda / D


def test_wavefront_has_the_rms_and_no_tilt_and_differs_by_seed():
    error = wavefront_error(3, 100.0)
    on = error != 0
    assert np.sqrt(np.mean(error[on] ** 2)) == pytest.approx(100.0, rel=1e-3)
    y, _ = np.indices(error.shape)
    assert abs(np.corrcoef(y[on], error[on])[0, 1]) < 1e-6
    assert not np.allclose(error, wavefront_error(4, 100.0))
    assert np.array_equal(error, wavefront_error(3, 100.0))


def test_even_sizes_are_refused():
    with pytest.raises(InputError, match="odd"):
        nircam_like_psf(1.99, 0.03, 64)


@pytest.mark.parametrize(("band", "wavelength"), [("f200w", 1.99), ("f444w", 4.40)])
def test_encircled_energy_agrees_with_webbpsf(shared_data, band, wavelength):
    from astropy.io import fits

    path = shared_data / "psf" / "webbpsf_4x" / f"{band}.fits"
    if not path.exists():
        pytest.skip(f"no WebbPSF file {path}")
    webb, scale = fits.getdata(path).astype(float), fits.getheader(path)["PIXELSCL"]
    side = int(2.0 / scale) // 2 * 2
    cut = (webb.shape[0] - side) // 2
    webb = webb[cut : cut + side, cut : cut + side]
    ours = [nircam_like_psf(wavelength, scale, side + 1, 1, seed=s) for s in (0, 1)]
    for fraction in (0.5, 0.8):
        mean = np.mean([encircled_radius(p, scale, fraction) for p in ours])
        assert mean == pytest.approx(encircled_radius(webb, scale, fraction), rel=0.10)
