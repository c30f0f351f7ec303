"""Distances of the sources of a catalogue from a position on the sky."""

from __future__ import annotations

from typing import Any

import numpy as np

from galbatch.errors import InputError


def separation_arcsec(table: Any, coord: Any) -> np.ndarray:
    """(n,) great-circle distances of the rows of a catalogue from ``coord``, NaN for rows without a position.
    Raises ``InputError`` when ``coord`` is no single ``SkyCoord``."""
    from astropy.coordinates import SkyCoord

    if not isinstance(coord, SkyCoord) or not coord.isscalar:
        raise InputError(
            f"{coord!r} is not one position: give a SkyCoord, e.g. SkyCoord(150.1, 2.2, unit='deg')."
        )
    ra, dec = (np.asarray(getattr(table[k], "value", table[k]), float) for k in ("ra", "dec"))
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    known = SkyCoord(np.where(good, ra, 0.0), np.where(good, dec, 0.0), unit="deg")
    return np.where(good, known.separation(coord).arcsec, np.nan)
