"""Why a morphology is not plainly good: named bits, each a cause, with what it says about the measurement.

Severity follows statmorph's scale: 1 suspect, 2 bad, 4 nothing could be measured; 0 is a note. Bits that
concern the Sersic fit alone have their own severity, as there.
"""

from __future__ import annotations

from enum import IntFlag

import numpy as np


class MorphFlag(IntFlag):
    """Causes; bits never change their meaning."""

    FLUX_NOT_POSITIVE = 1 << 0
    NO_PIXELS = 1 << 1
    NO_SEGMENT = 1 << 2
    CENTROID_MASKED = 1 << 3
    CENTROID_OUTSIDE = 1 << 4
    SECOND_MOMENT = 1 << 5
    PETRO_ZERO = 1 << 6
    PETRO_SMALL = 1 << 7
    PETRO_LARGE = 1 << 8
    GINI_SEGMENT_EMPTY = 1 << 9
    GINI_SEGMENT_FULL = 1 << 10
    GINI_SEGMENT_DISJOINT = 1 << 11
    GINI_FAILED = 1 << 12
    M20_FAILED = 1 << 13
    SN_FAILED = 1 << 14
    NO_SKY_BOX = 1 << 15
    SKY_NOT_SUBTRACTED = 1 << 16
    CENTRE_DRIFT = 1 << 17
    CENTRE_IS_CENTROID = 1 << 18
    CENTRE_MASKED = 1 << 19
    CENTRE_SEARCH_EDGE = 1 << 20
    RADIUS_FAILED = 1 << 21
    SMOOTHNESS_FAILED = 1 << 22
    MID_SEGMENT = 1 << 23
    DEVIATION_FAILED = 1 << 24
    SHAPE_SEGMENT = 1 << 25
    RMAX_ZERO = 1 << 26
    ASYMMETRY_FAILED = 1 << 27
    SEGMENTS_DIFFER = 1 << 28
    SEGMENTS_EMPTY = 1 << 29
    APERTURE_CUT = 1 << 30
    OUTLIERS_MASKED = 1 << 31
    SERSIC_START = 1 << 32
    SERSIC_FEW_PIXELS = 1 << 33
    SERSIC_NOT_CONVERGED = 1 << 34
    SERSIC_BOUND = 1 << 35
    MID_IS_GINI = 1 << 36


MORPH_FLAG_DESCRIPTIONS: dict[MorphFlag, str] = {
    MorphFlag.FLUX_NOT_POSITIVE: "the flux of the segment is zero or negative: nothing measured",
    MorphFlag.NO_PIXELS: "no finite, unmasked pixel: nothing measured",
    MorphFlag.NO_SEGMENT: "the source has no pixel in the segmentation map: nothing measured",
    MorphFlag.CENTROID_MASKED: "the pixel at the centroid is masked or zero",
    MorphFlag.CENTROID_OUTSIDE: "the centroid fell outside the stamp and was put at its middle",
    MorphFlag.SECOND_MOMENT: "a second moment is zero or negative",
    MorphFlag.PETRO_ZERO: "a mean flux inside an aperture is exactly zero",
    MorphFlag.PETRO_SMALL: "the Petrosian radius is below one pixel and was set to it",
    MorphFlag.PETRO_LARGE: "the Petrosian radius is beyond the stamp and was set to its diagonal",
    MorphFlag.GINI_SEGMENT_EMPTY: "the Gini segmentation map is empty",
    MorphFlag.GINI_SEGMENT_FULL: "the Gini segmentation map fills the stamp",
    MorphFlag.GINI_SEGMENT_DISJOINT: "the Gini segmentation map has several parts, the brightest was kept",
    MorphFlag.GINI_FAILED: "too few pixels for Gini, or all zero",
    MorphFlag.M20_FAILED: "non-positive flux or second moment for M20",
    MorphFlag.SN_FAILED: "no pixel with a known noise for S/N per pixel",
    MorphFlag.NO_SKY_BOX: "no empty patch of sky in the stamp: no sky terms",
    MorphFlag.SKY_NOT_SUBTRACTED: "the sky level exceeds the sky scatter",
    MorphFlag.CENTRE_DRIFT: "the asymmetry centre drifted: sought again from the brightest pixel",
    MorphFlag.CENTRE_IS_CENTROID: "no asymmetry centre nearby: the centroid was used",
    MorphFlag.CENTRE_MASKED: "the pixel at the asymmetry centre is masked or zero",
    MorphFlag.CENTRE_SEARCH_EDGE: "the search for the asymmetry centre touched the edge or a masked area",
    MorphFlag.RADIUS_FAILED: "a flux fraction radius has no positive total to refer to",
    MorphFlag.SMOOTHNESS_FAILED: "non-positive flux in the annulus of the smoothness",
    MorphFlag.MID_SEGMENT: "the MID segmentation map has no flux or lost its brightest pixel",
    MorphFlag.DEVIATION_FAILED: "no peak or no flux in the MID segmentation map",
    MorphFlag.SHAPE_SEGMENT: "the shape asymmetry mask is undefined or lost its brightest pixel",
    MorphFlag.RMAX_ZERO: "the shape asymmetry mask is a single pixel at the centre",
    MorphFlag.ASYMMETRY_FAILED: "no flux in the aperture of an asymmetry",
    MorphFlag.SEGMENTS_DIFFER: "the Gini and MID segmentation maps share less than a quarter",
    MorphFlag.SEGMENTS_EMPTY: "the Gini and MID segmentation maps are empty",
    MorphFlag.APERTURE_CUT: "1.5 Petrosian radii reach beyond the stamp",
    MorphFlag.OUTLIERS_MASKED: "single-pixel outliers were masked",
    MorphFlag.SERSIC_START: "no sensible starting point for the Sersic fit",
    MorphFlag.SERSIC_FEW_PIXELS: "fewer pixels than parameters: no Sersic fit",
    MorphFlag.SERSIC_NOT_CONVERGED: "the Sersic fit did not converge",
    MorphFlag.SERSIC_BOUND: "a Sersic parameter is at its bound",
    MorphFlag.MID_IS_GINI: "the MID segmentation map is undefined: the Gini one was used",
}

_F = MorphFlag
_NOTES = _F.APERTURE_CUT | _F.OUTLIERS_MASKED | _F.MID_IS_GINI
_SUSPECT = _F.GINI_SEGMENT_DISJOINT | _F.CENTRE_DRIFT | _F.CENTRE_SEARCH_EDGE | _F.SEGMENTS_DIFFER
_NOTHING = _F.FLUX_NOT_POSITIVE | _F.NO_PIXELS | _F.NO_SEGMENT
_SERSIC_SUSPECT = _F.SERSIC_BOUND
_SERSIC_BAD = _F.SERSIC_START | _F.SERSIC_FEW_PIXELS | _F.SERSIC_NOT_CONVERGED
_ALL = _F(sum(MorphFlag))
_BAD = _ALL & ~(_NOTES | _SUSPECT | _NOTHING | _SERSIC_SUSPECT | _SERSIC_BAD)


def severity(flags: np.ndarray) -> np.ndarray:
    """0 good, 1 suspect, 2 bad, 4 nothing measured, of all but the Sersic fit; ``flags`` any integer
    array."""
    flags = np.asarray(flags, dtype=np.int64)
    out = np.where(flags & int(_SUSPECT), 1, 0)
    out = np.where(flags & int(_BAD), 2, out)
    return np.where(flags & int(_NOTHING), 4, out)


def sersic_severity(flags: np.ndarray) -> np.ndarray:
    """The same of the Sersic fit: 0 good, 1 at a bound, 2 bad, 4 nothing measured."""
    flags = np.asarray(flags, dtype=np.int64)
    out = np.where(flags & int(_SERSIC_SUSPECT), 1, 0)
    out = np.where(flags & int(_SERSIC_BAD), 2, out)
    return np.where(flags & int(_NOTHING), 4, out)


def flag_names(flags: int) -> list[str]:
    """Names of the bits set, lowest first."""
    return [flag.name for flag in MorphFlag if flags & int(flag) and flag.name]
