"""Columns of a result, bits of its flags and of the groups, by the names that the kernels use."""

from __future__ import annotations

from galbatch.columns import QUANTITIES
from galbatch.morphology.flags import MorphFlag

GROUPS: dict[str, int] = {"gini": 1, "cas": 2, "mid": 4, "shape": 8, "sersic": 16}
GINI, CAS, MID, SHAPE, SERSIC = (GROUPS[k] for k in ("gini", "cas", "mid", "shape", "sersic"))

_BIT = {flag.name: int(flag) for flag in MorphFlag}


def places(*names: str) -> tuple[int, ...]:
    """Columns of a result that hold these quantities."""
    order = list(QUANTITIES)
    return tuple(order.index(name) for name in names)


I_FLUX, I_MAG, I_FLUX_ELLIP, I_FLUX_SEG = places("flux_njy", "mag_ab", "flux_ellip_njy", "flux_seg_njy")
I_XC, I_YC = places("xc_centroid", "yc_centroid")
I_ELLIPTICITY_C, I_ELONGATION_C, I_ORIENTATION_C = places(
    "ellipticity_centroid", "elongation_centroid", "orientation_centroid"
)
I_XA, I_YA = places("xc_asymmetry", "yc_asymmetry")
I_ELLIPTICITY, I_ELONGATION, I_ORIENTATION = places("ellipticity", "elongation", "orientation")
I_R_PETRO, I_R_PETRO_ELLIP = places("r_petro", "r_petro_ellip")
I_R_MAX, I_R_MAX_ELLIP = places("r_max", "r_max_ellip")
I_R_HALF, I_R_HALF_ELLIP = places("r_half", "r_half_ellip")
I_R20, I_R50, I_R80 = places("r20", "r50", "r80")
I_GINI, I_M20, I_BULGE, I_MERGER = places("gini", "m20", "gini_m20_bulge", "gini_m20_merger")
I_C, I_A, I_S, I_SN = places("concentration", "asymmetry", "smoothness", "sn_per_pixel")
I_M, I_I, I_D = places("multimode", "intensity", "deviation")
I_RMS, I_OUTER, I_SHAPE = places("rms_asymmetry2", "outer_asymmetry", "shape_asymmetry")
I_SKY_MEAN, I_SKY_MEDIAN, I_SKY_SIGMA = places("sky_mean", "sky_median", "sky_sigma")
# the Sersic fit is one block, in its own order
I_SERSIC, I_SERSIC_LAST = places("sersic_n", "sersic_bic")

F_FLUX, F_PIXELS, F_SEGMENT = _BIT["FLUX_NOT_POSITIVE"], _BIT["NO_PIXELS"], _BIT["NO_SEGMENT"]
F_CENTROID_MASKED, F_CENTROID_OUT = _BIT["CENTROID_MASKED"], _BIT["CENTROID_OUTSIDE"]
F_MOMENT, F_OUTLIERS, F_CUT = _BIT["SECOND_MOMENT"], _BIT["OUTLIERS_MASKED"], _BIT["APERTURE_CUT"]
F_PETRO_ZERO, F_PETRO_SMALL, F_PETRO_LARGE = _BIT["PETRO_ZERO"], _BIT["PETRO_SMALL"], _BIT["PETRO_LARGE"]
F_GINI_EMPTY, F_GINI_FULL = _BIT["GINI_SEGMENT_EMPTY"], _BIT["GINI_SEGMENT_FULL"]
F_GINI_DISJOINT, F_GINI, F_M20, F_SN = (
    _BIT[k] for k in ("GINI_SEGMENT_DISJOINT", "GINI_FAILED", "M20_FAILED", "SN_FAILED")
)
F_NO_BOX, F_SKY = _BIT["NO_SKY_BOX"], _BIT["SKY_NOT_SUBTRACTED"]
F_DRIFT, F_IS_CENTROID = _BIT["CENTRE_DRIFT"], _BIT["CENTRE_IS_CENTROID"]
F_CENTRE_MASKED, F_SEARCH_EDGE = _BIT["CENTRE_MASKED"], _BIT["CENTRE_SEARCH_EDGE"]
F_RADIUS, F_SMOOTHNESS = _BIT["RADIUS_FAILED"], _BIT["SMOOTHNESS_FAILED"]
F_MID, F_MID_IS_GINI, F_DEVIATION = _BIT["MID_SEGMENT"], _BIT["MID_IS_GINI"], _BIT["DEVIATION_FAILED"]
F_SHAPE, F_RMAX, F_ASYMMETRY = _BIT["SHAPE_SEGMENT"], _BIT["RMAX_ZERO"], _BIT["ASYMMETRY_FAILED"]
F_DIFFER, F_EMPTY = _BIT["SEGMENTS_DIFFER"], _BIT["SEGMENTS_EMPTY"]
