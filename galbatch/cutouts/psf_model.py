"""PSFs for mosaics of JWST from stpsf (Perrin et al. 2014, SPIE 9143, 91433X), where it is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from scipy import ndimage

from galbatch.errors import InputError, RunError

PIXELS_PER_NATIVE = 4


def model_psf(
    band: str, angle_deg: float = 0.0, instrument: str = "NIRCam", fov_arcsec: float = 5.0
) -> tuple[np.ndarray, float]:
    """The PSF of a telescope's filter, over the pixels of its detector, turned as the mosaic is.

    Parameters
    ----------
    band : str
        Name of the filter, such as f200w.
    angle_deg : float
        Angle from the mosaic's y axis to the detector's, counter-clockwise: PA_APER of the exposures where
        north is up.
    instrument : str
        Class of stpsf: NIRCam, NIRISS, MIRI.
    fov_arcsec : float
        Side of the image.

    Returns
    -------
    tuple of ndarray, float
        (n, n) float64, n odd, of sum 1 and centred on its middle pixel, a quarter of the detector's wide; and
        the side of these pixels in arcsec. The smoothing by a drizzle is not in it.

    Raises
    ------
    RunError
        stpsf is not installed, or lacks its data.
    InputError
        It does not know the instrument or filter.
    """
    stpsf = _stpsf()
    if not hasattr(stpsf, instrument):
        raise InputError(f"stpsf has no instrument {instrument!r}. Give NIRCam, NIRISS or MIRI.")
    try:
        camera = getattr(stpsf, instrument)()
        camera.filter = band.upper()
    except ValueError as error:
        raise InputError(f"{instrument} has no filter {band.upper()}: {error}") from error
    hdus = camera.calc_psf(oversample=PIXELS_PER_NATIVE, fov_arcsec=fov_arcsec)
    hdu = hdus["OVERDIST"] if "OVERDIST" in hdus else hdus[0]
    native = np.r_[0.5, np.ones(PIXELS_PER_NATIVE - 1), 0.5] / PIXELS_PER_NATIVE
    image = np.asarray(hdu.data, float)
    for axis in (0, 1):
        image = ndimage.convolve1d(image, native, axis=axis, mode="constant")
    turned = _turned(image, np.radians(angle_deg))
    return turned / turned.sum(), float(hdu.header["PIXELSCL"])


def _stpsf() -> Any:
    for name in ("stpsf", "webbpsf"):  # its name until 2025
        try:
            return import_module(name)
        except ImportError:
            continue
        except OSError as error:
            raise RunError(f"{name} lacks its data ({error}): see its installation page.") from error
    raise RunError("stpsf is not installed. `pip install stpsf`, and its data as its installation page says.")


def _turned(image: np.ndarray, angle: float) -> np.ndarray:
    """``image`` turned counter-clockwise about its centre, on an odd number of pixels."""
    half = (min(image.shape) - 1) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    back = (np.cos(angle) * y - np.sin(angle) * x, np.cos(angle) * x + np.sin(angle) * y)
    centre = (np.array(image.shape) - 1) / 2
    return ndimage.map_coordinates(image, [back[0] + centre[0], back[1] + centre[1]], order=3)
