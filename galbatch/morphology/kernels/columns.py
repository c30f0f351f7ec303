"""Columns of a result, bits of its flags and of the groups, by the names that the kernels use."""

from __future__ import annotations

from galbatch.morphology.flags import MorphFlag
from galbatch.morphology.quantities import GROUPS, QUANTITIES

_INDEX = {name: i for i, name in enumerate(QUANTITIES)}
_BIT = {flag.name: int(flag) for flag in MorphFlag}

N_QUANTITIES = len(QUANTITIES)
GINI, CAS, MID, SHAPE, SERSIC = (GROUPS[k] for k in ("gini", "cas", "mid", "shape", "sersic"))

I_FLUX, I_FLUX_ELLIP, I_FLUX_SEG = _INDEX["flux_njy"], _INDEX["flux_ellip_njy"], _INDEX["flux_seg_njy"]
I_XC, I_XA = _INDEX["xc_centroid"], _INDEX["xc_asymmetry"]
I_R_PETRO, I_R_MAX, I_R_HALF, I_R20 = (_INDEX[k] for k in ("r_petro", "r_max", "r_half", "r20"))
I_GINI, I_C, I_A, I_S = (_INDEX[k] for k in ("gini", "concentration", "asymmetry", "smoothness"))
I_M, I_RMS, I_SN = (_INDEX[k] for k in ("multimode", "rms_asymmetry2", "sn_per_pixel"))
I_SERSIC, I_SKY = _INDEX["sersic_n"], _INDEX["sky_mean"]

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
