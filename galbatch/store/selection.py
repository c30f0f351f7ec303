"""Sources of a catalogue by their quality (who is good, who is worst, how many there are of each) and by
their distance from a position on the sky.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from galbatch.errors import InputError
from galbatch.flags import Level, names_of, quality_of

GRADES = ("good", "caution", "do not use")


def quality_column(table: Any, band: str | None = None) -> np.ndarray:
    """(n,) int8 quality of the rows of a catalogue in a band, or of the sources (None); of a run made before
    there was a quality, from its flags."""
    name = "quality" if band is None else f"quality_{band}"
    if name in _names(table):
        return np.asarray(table[name]).astype(np.int8)
    found = quality_of(np.asarray(table["flags"]).astype(np.int64))
    return np.where(np.asarray(table["status"]).astype(str) == "failed", np.int8(Level.BAD), found)


def flux_snr(table: Any, band: str) -> np.ndarray:
    """(n,) flux over half of its 68% interval; NaN where not measured."""
    low, middle, high = (
        np.asarray(getattr(table[f"flux_njy_{p}_{band}"], "value", table[f"flux_njy_{p}_{band}"]), float)
        for p in ("p16", "p50", "p84")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(high > low, 2 * middle / (high - low), np.nan)


def chosen(
    table: Any, bands: tuple[str, ...], quality: int = 0, band: str | None = None, snr: float | None = None
) -> np.ndarray:
    """(n,) bool: quality at most ``quality`` in ``band`` (None: of the source), and, with ``snr``, a flux at
    least so many times its error there (None: in one band at least). Raises ``InputError`` for a quality that
    there is not."""
    if quality not in tuple(Level):
        raise InputError(f"quality = {quality!r}: it must be 0 (good), 1 (caution too) or 2 (all).")
    status = np.asarray(table["status"]).astype(str)
    keep = (quality_column(table, band) <= quality) & (status != "failed")
    if snr is not None:
        seen = [flux_snr(table, b) for b in (bands if band is None else (band,))]
        keep &= np.any([np.nan_to_num(s) >= snr for s in seen], axis=0)
    return keep


def worst_first(table: Any, bands: tuple[str, ...]) -> np.ndarray:
    """Rows of the sources that did not fail, the worst first: by quality, flags of its level, and how far
    their chi2 is from one."""
    flags = np.asarray(table["flags"]).astype(np.int64)
    serious = [len(names_of(int(f), Level.BAD)) * 100 + len(names_of(int(f), Level.CAUTION)) for f in flags]
    off = np.zeros(len(flags))
    for band in bands:
        with np.errstate(invalid="ignore", divide="ignore"):
            distance = np.abs(np.log(np.asarray(table[f"chi2_{band}"], float)))
        off = np.fmax(off, np.where(np.isfinite(distance), distance, 0))
    order = np.lexsort((-off, -np.array(serious, int), -quality_column(table).astype(int)))
    return order[np.asarray(table["status"]).astype(str)[order] != "failed"]


def grade_counts(table: Any, bands: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Sources good, caution and not to be used, failed ones among these, of all bands together ('') and of
    each band."""
    found = {band: quality_column(table, band or None) for band in ("", *bands)}
    return {band: tuple(int(np.sum(q == level)) for level in Level) for band, q in found.items()}


def _names(table: Any) -> list[str]:
    return list(getattr(table, "colnames", None) or table)


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
