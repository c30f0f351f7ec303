"""The sharpest PSF that a telescope can have: a narrower one is the PSF of something else (another band, or
another pixel scale)."""

from __future__ import annotations

import math
import re
from typing import Any

from galbatch.types import Finding

ARCSEC_PER_RAD = math.degrees(1) * 3600
AIRY_FWHM = 1.03  # full width at half maximum of the Airy pattern in wavelengths per diameter
SLACK = 0.85  # of that width: finite bandwidth, obstruction and the measurement's own error stay above it
DIAMETER_M = {"JWST": 6.5, "HST": 2.4, "EUCLID": 1.2, "ROMAN": 2.4}
LAYOUTS = {"jwst-i2d": "JWST", "ceers": "JWST", "hst": "HST", "euclid-mer": "EUCLID"}
EUCLID_UM = {"vis": 0.715, "y": 1.08, "j": 1.37, "h": 1.77}


def limit_arcsec(layout: str, band: str, header: Any) -> float | None:
    """Full width at half maximum of the diffraction pattern, 1.03 wavelengths per diameter (Airy); None where
    telescope or wavelength are not known.

    ``header``: of the science image; its TELESCOP and PHOTPLAM (Angstrom) are used, else ``layout`` and the
    number in the name of ``band``.
    """
    telescope = str(header.get("TELESCOP", "")).strip().upper() or LAYOUTS.get(layout, "")
    diameter, wavelength = DIAMETER_M.get(telescope), _wavelength_um(telescope, band, header)
    if diameter is None or wavelength is None:
        return None
    return AIRY_FWHM * wavelength * 1e-6 / diameter * ARCSEC_PER_RAD


def _wavelength_um(telescope: str, band: str, header: Any) -> float | None:
    pivot = header.get("PHOTPLAM")
    if isinstance(pivot, int | float) and 1000 < pivot < 50000:
        return pivot / 1e4
    if telescope == "EUCLID":
        return EUCLID_UM.get(re.split(r"[^a-z]+", band.lower())[-1])
    number = re.search(r"f(\d{3,4})[a-z]", band.lower())
    if number is None:
        return None
    value = int(number[1])
    if telescope == "HST" and value > 200:
        return value / 1e3  # f606w: nm; f160w: tens of nm
    return value / 1e2


def check_sharpness(tile: Any, layout: str, band: str) -> list[Finding]:
    """An error where the PSF of an open tile is narrower than its telescope can make one."""
    limit = limit_arcsec(layout, band, tile.images["sci"].header)
    width = tile.psf.fwhm_arcsec()
    if limit is None or not width < SLACK * limit:
        return []
    return [
        Finding(
            "error",
            "psf_sharp",
            tile.subject,
            f"the PSF has a FWHM of {width:.3f} arcsec; diffraction allows none below {limit:.3f} here",
            "Give the PSF of this band, and its pixel scale with psf_scale_arcsec.",
        )
    ]
