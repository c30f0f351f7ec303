"""Wavelengths of bands by their names."""

from __future__ import annotations

import re

from galbatch.errors import InputError

# Filters of HST's optical cameras, in nanometres; all other numbers (its infrared ones, JWST's) are in tens.
_OPTICAL = "218 225 275 336 390 435 438 475 502 547 555 606 621 625 658 689 763 775 814 845 850".split()
_UM = {
    **{"u": 0.365, "g": 0.48, "r": 0.62, "i": 0.76, "z": 0.89, "y": 0.98, "vis": 0.715},
    **{"j": 1.25, "h": 1.64, "k": 2.19, "ks": 2.15},
}
_EUCLID_UM = {"y": 1.08, "j": 1.37, "h": 1.77}


def wavelength_um(band: str) -> float | None:
    """The wavelength of a band in micrometres, to a few per cent, by its name; None where that does not say.

    Known are the filters of HST and JWST (F200W), those of Euclid, and letters (u g r i z y j h k) as the
    last word.
    """
    name = band.lower()
    found = re.search(r"f(\d{3,4})(?:w2?|m|n|lp|x)(?![a-z0-9])", name)
    if found:
        return int(found[1]) / (1000 if found[1] in _OPTICAL else 100)
    own = _EUCLID_UM if "euclid" in name or "nisp" in name else {}
    last = re.split(r"[^a-z]+", name)[-1]
    return own.get(last, _UM.get(last))


def wavelengths_um(bands: list) -> list[float]:
    """Of all bands. Raises ``InputError`` naming the ones whose names do not say."""
    found = {str(band): wavelength_um(str(band)) for band in bands}
    unknown = [name for name, value in found.items() if value is None]
    if unknown:
        raise InputError(
            f"the wavelengths of bands {', '.join(unknown)} are not known by their names: give that "
            "of each band in micrometres."
        )
    return [float(found[str(band)] or 0) for band in bands]
