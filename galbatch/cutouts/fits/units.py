"""From the unit of an image to nJy per pixel. A unit is read or given, never assumed.

AB magnitudes: m = 31.4 - 2.5 log10(flux / nJy) (Oke & Gunn 1983). HST states f_lambda of one electron per
second (PHOTFLAM, erg/s/cm2/Angstrom) and the pivot wavelength (PHOTPLAM, Angstrom): f_nu = PHOTFLAM
PHOTPLAM^2 / c. A surface brightness is multiplied by the
solid angle of a pixel, taken from the pixel scale in use (a header's PIXAR_SR may be the detector's, not
the mosaic's).
"""

from __future__ import annotations

import math
import re
import warnings
from typing import TYPE_CHECKING

from astropy import units as u

from galbatch.errors import InputError

if TYPE_CHECKING:
    from galbatch.cutouts.fits.header import Header

_NJY = {
    "njy": 1.0,
    "10njy": 10.0,
    "ujy": 1e3,
    "mjy": 1e6,
    "jy": 1e9,
    "nanomaggy": 3630.780547701,
    "nmgy": 3630.780547701,
    "nanomaggies": 3630.780547701,
}
_COUNTS = ("", "adu", "count", "counts", "ct", "dn", "e", "electron", "electrons")
_ELECTRONS = ("electrons/s", "electron/s", "e/s", "e-/s")
_RATES = ("dn/s", "adu/s", "counts/s", "count/s", "ct/s", "cps", *_ELECTRONS)
ZERO_POINT_NJY = 31.4
ZERO_POINT_CARDS = ("MAGZERO", "ZP_AB", "ABMAGZP", "MAGZP", "MAGZPT", "MAG_ZP", "ZEROPNT", "FLUXMAG0")
_PER_COUNT = ("PHOTMJSR", "PHOTFNU")
ACCEPTED = (  # what ``unit`` may be, said in errors and in the guide
    "nJy, uJy, mJy, Jy, 10nJy, nanomaggy (each per pixel)",
    "MJy/sr, nJy/arcsec2 and other surface brightness",
    "electrons/s (electron/s, e-/s), DN/s, counts/s (with PHOTFLAM and PHOTPLAM, PHOTMJSR or PHOTFNU in the "
    "header)",
    "adu, counts, electron (with zero_point_ab)",
)
REMEDY = (
    'Give unit = "nJy" or zero_point_ab = 28.9 in the survey file. Units that are known: '
    f"{'; '.join(ACCEPTED)}."
)
_LIGHT = 2.99792458e18  # Angstrom/s


def pixel_area_sr(scale_arcsec: float) -> float:
    """Solid angle of a square pixel."""
    return (scale_arcsec * math.pi / 648000.0) ** 2


def njy_per_unit(
    header: Header,
    scale_arcsec: float,
    unit: str | None = None,
    zero_point_ab: float | None = None,
    where: str = "image",
) -> float:
    """The factor from the image's values to nJy per pixel.

    ``unit`` wins; then ``zero_point_ab``; then the header's BUNIT, PHOTMJSR, PHOTFNU, PHOTFLAM (with
    PHOTPLAM), and ``ZERO_POINT_CARDS``.
    Raises ``InputError`` when none of them says.
    """
    if unit is not None:
        if _clean(unit) not in _COUNTS + _RATES:
            return _factor(unit, scale_arcsec, where)
        if zero_point_ab is None:
            return _of_counts(header, scale_arcsec, where, unit)
    if zero_point_ab is not None:
        return _of_zero_point(zero_point_ab)
    bunit = str(header.get("BUNIT", "")).strip()
    if _clean(bunit) in _COUNTS + _RATES:
        return _of_counts(header, scale_arcsec, where, bunit)
    return _factor(bunit, scale_arcsec, f"{where}: BUNIT")


def states_flux_unit(header: Header) -> bool:
    """Whether the header's BUNIT is a unit of flux or surface brightness (counts are not)."""
    return _clean(str(header.get("BUNIT", ""))) not in _COUNTS + _RATES


def in_electrons(header: Header) -> bool:
    """Whether an image is in electrons per second, so that times its exposure it counts photons."""
    return _clean(str(header.get("BUNIT", ""))) in _ELECTRONS


def _of_counts(header: Header, scale_arcsec: float, where: str, unit: str) -> float:
    per_second = _clean(unit) in _RATES
    for key in ("PHOTMJSR", "PHOTFNU") if per_second else ("PHOTFNU", "PHOTMJSR"):
        if (value := _number(header, key)) > 0:
            return value * (1e9 if key == "PHOTFNU" else 1e15 * pixel_area_sr(scale_arcsec))
    flam, pivot = _number(header, "PHOTFLAM"), _number(header, "PHOTPLAM")
    if per_second and flam > 0 and pivot > 0:
        return 1e32 * flam * pivot**2 / _LIGHT
    zero_point = zero_point_of(header)
    if zero_point is not None:
        return _of_zero_point(zero_point)
    raise InputError(
        f"{where}: the unit is not known: {f'{unit!r} is counts' if unit else 'no BUNIT'}, and the header "
        f"has no {', '.join((*_PER_COUNT, *ZERO_POINT_CARDS))}"
        + (", or PHOTFLAM with PHOTPLAM" if per_second else "")
        + (". PHOTFLAM is of counts per second" if flam > 0 and not per_second else "")
        + f". {REMEDY}"
    )


def zero_point_of(header: Header) -> float | None:
    """The AB zero point that a header states (``ZERO_POINT_CARDS``), None without one."""
    for key in ZERO_POINT_CARDS:
        value = _number(header, key)
        if key == "FLUXMAG0":
            value = 2.5 * math.log10(value) if value > 0 else math.nan
        if math.isfinite(value):
            return value
    return None


def _number(header: Header, key: str) -> float:
    """The value of a card, NaN where it is missing or no number."""
    value = header.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def _of_zero_point(zero_point_ab: float) -> float:
    return 10.0 ** (-0.4 * (zero_point_ab - ZERO_POINT_NJY))


def _clean(text: str) -> str:
    return text.strip().lower().replace(" ", "")


def _factor(text: str, scale_arcsec: float, where: str) -> float:
    area = pixel_area_sr(scale_arcsec)
    word = text.strip().replace("µ", "u").replace("μ", "u")
    if word in ("MJy/sr", "MJy sr-1", "MJy / sr", "MJy.sr-1", "MJy sr**-1"):
        return 1e15 * area
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)?\s*\*?\s*([A-Za-z].*)", word)
    number, name = (
        (float(match[1] or 1.0), match[2]) if match and (match[1] or "1").count(".") < 2 else (1.0, word)
    )
    simple = name.removesuffix("/pixel").removesuffix("/pix").strip()
    if simple in ("MJy", "mJy"):
        return number * (1e15 if simple == "MJy" else 1e6)
    if _clean(simple) in _NJY:
        return number * _NJY[_clean(simple)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = u.Unit(name.replace("nanoJansky", "nJy").replace("Jansky", "Jy")) * u.pix**0
            if parsed.is_equivalent(u.nJy / u.pix):
                return number * parsed.to(u.nJy / u.pix)
            if parsed.is_equivalent(u.nJy):
                return number * parsed.to(u.nJy)
            if parsed.is_equivalent(u.nJy / u.sr):
                return number * parsed.to(u.nJy / u.sr) * area
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, OverflowError):
        pass
    raise InputError(
        f"{where} = {text!r} is not a unit of flux or surface brightness that can be used. {REMEDY}"
    )
