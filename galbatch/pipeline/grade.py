"""How good a source is: the columns ``quality_{band}`` and ``quality``, from the levels of its flags.

0: every number may be used. 1: look at the reason first (the flags). 2: do not use.
A band has the worst level of its own flags, and 2 where nothing was measured in it. A source has the worst
level of the bands that were measured and of what concerns the source as a whole: a band that is missing makes
it 1, all of them 2.
"""

from __future__ import annotations

import numpy as np

from galbatch.flags import Flag, Level, quality_of


def grade(
    columns: dict[str, np.ndarray], bands: tuple[str, ...], flags: np.ndarray, failed: np.ndarray
) -> np.ndarray:
    """Fill the columns of quality from ``flags_{band}``, ``flags`` (n,) of the source as a whole, and
    ``failed`` (n,); returns all flags of each source (n,)."""
    missing = int(Flag.BAND_MISSING)
    worst, measured = np.zeros(len(flags), np.int8), np.zeros(len(flags), bool)
    of_bands = np.zeros(len(flags), np.int64)
    for band in bands:
        own = columns[f"flags_{band}"]
        there = np.isfinite(columns[f"chi2_{band}"]) & ((own & missing) == 0) & ~failed
        quality = np.where(there, quality_of(own), np.int8(Level.BAD))
        columns[f"quality_{band}"] = quality
        worst = np.where(there, np.maximum(worst, quality), worst)
        measured |= there
        of_bands |= own
    # what a band lacks has been said of the band: the source keeps its other bands
    whole = quality_of((flags & ~of_bands) | (of_bands & missing))
    columns["quality"] = np.where(measured, np.maximum(worst, whole), np.int8(Level.BAD))
    return flags | (of_bands & ~int(Flag.OFF_IMAGE))  # off the image is a source that is off all of them
