"""The steps of ``engine.measure_image``: each fills its columns of ``out`` and returns flag bits.

``image``: masked pixels are zero; ``good``: 1 or 0 a pixel; ``source``: unmasked pixels of the segment.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.flags import MorphFlag
from galbatch.morphology.kernels import asymmetry as asym
from galbatch.morphology.kernels import gini_m20 as gm
from galbatch.morphology.kernels import mid, profile, shape, sky
from galbatch.morphology.kernels.filters import mask_outliers
from galbatch.morphology.kernels.jit import kernel
from galbatch.morphology.kernels.ordering import sorted_part
from galbatch.morphology.kernels.segments import count_set
from galbatch.morphology.kernels.sersic import noise_is_known
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
    _BIT[k] for k in ("GINI_SEGMENT_DISJOINT", "GINI_FAILED", "M20_FAILED", "SN_FAILED"))
F_NO_BOX, F_SKY = _BIT["NO_SKY_BOX"], _BIT["SKY_NOT_SUBTRACTED"]
F_DRIFT, F_IS_CENTROID = _BIT["CENTRE_DRIFT"], _BIT["CENTRE_IS_CENTROID"]
F_CENTRE_MASKED, F_SEARCH_EDGE = _BIT["CENTRE_MASKED"], _BIT["CENTRE_SEARCH_EDGE"]
F_RADIUS, F_SMOOTHNESS = _BIT["RADIUS_FAILED"], _BIT["SMOOTHNESS_FAILED"]
F_MID, F_MID_IS_GINI, F_DEVIATION = _BIT["MID_SEGMENT"], _BIT["MID_IS_GINI"], _BIT["DEVIATION_FAILED"]
F_SHAPE, F_RMAX, F_ASYMMETRY = _BIT["SHAPE_SEGMENT"], _BIT["RMAX_ZERO"], _BIT["ASYMMETRY_FAILED"]
F_DIFFER, F_EMPTY = _BIT["SEGMENTS_DIFFER"], _BIT["SEGMENTS_EMPTY"]
_OVERLAP = 0.25


@kernel
def prepare(raw, seg, bad, n_outlier):
    """(image with masked pixels zero, good (1 or 0), source pixels, flag bits)."""
    ny, nx = raw.shape
    image, good = np.zeros((ny, nx)), np.zeros((ny, nx))
    n_good = 0
    for y in range(ny):
        for x in range(nx):
            if math.isfinite(raw[y, x]):
                image[y, x] = raw[y, x]
                good[y, x] = 1.0
                n_good += 1
    flags = 0 if n_good > 0 else F_PIXELS
    if n_outlier > 0.0 and mask_outliers(image, good, n_outlier) > 0:
        flags |= F_OUTLIERS
    source = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            if bad[y, x] or (seg[y, x] != 0 and seg[y, x] != 1):
                good[y, x] = 0.0
            if good[y, x] == 0.0:
                image[y, x] = 0.0
            source[y, x] = seg[y, x] == 1 and good[y, x] > 0.0
    return image, good, source, flags


@kernel
def sky_terms(image, seg, bad, fixed, out):
    """(asymmetry per pixel, sigma, box (y, x, size), sigma is known, flag bits)."""
    if math.isfinite(fixed[0]):
        return 2.0 * fixed[0] / math.sqrt(math.pi), fixed[0], (0, 0, 0), True, 0
    taken = np.empty(image.shape, np.bool_)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            taken[y, x] = seg[y, x] != 0 or bad[y, x]
    y0, x0, size = sky.find_box(taken)
    if size == 0:
        return 0.0, 0.0, (0, 0, 0), False, F_NO_BOX
    mean, median, sigma, asymmetry = sky.box_statistics(sky.copy_box(image, y0, x0, size, size))
    out[I_SKY], out[I_SKY + 1], out[I_SKY + 2] = mean, median, sigma
    return asymmetry, sigma, (y0, x0, size), True, (F_SKY if abs(mean) > sigma else 0)


@kernel
def petro_flags(status):
    flags = 0
    if status & profile.PETRO_ZERO:
        flags |= F_PETRO_ZERO
    if status & profile.PETRO_SMALL:
        flags |= F_PETRO_SMALL
    if status & profile.PETRO_LARGE:
        flags |= F_PETRO_LARGE
    return flags


@kernel
def _brightest_in(image, source):
    """(y, x) of the brightest source pixel, the sky counting as zero."""
    by = bx = 0
    best = -np.inf
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            value = image[y, x] if source[y, x] else 0.0
            if value > best:
                best, by, bx = value, y, x
    return by, bx


@kernel
def any_masked(good):
    for y in range(good.shape[0]):
        for x in range(good.shape[1]):
            if good[y, x] == 0.0:
                return True
    return False


@kernel
def as_double(image):
    """A copy of any real image in double precision."""
    ny, nx = image.shape
    out = np.empty((ny, nx))
    for y in range(ny):
        for x in range(nx):
            out[y, x] = image[y, x]
    return out


@kernel
def asymmetry_centre(image, turned, good, good_turned, masked, source, xc, yc, r_petro, sky_asymmetry):
    """(x, y, flag bits): the centre of minimal asymmetry near the centroid, else near the brightest pixel."""
    r, limit = 1.5 * r_petro, 0.25 * r_petro
    x, y, status = asym.minimise_asymmetry(image, turned, good, good_turned, masked, xc, yc, r, sky_asymmetry)
    flags = 0
    if math.hypot(x - xc, y - yc) > limit:
        flags = F_DRIFT
        by, bx = _brightest_in(image, source)
        x, y, more = asym.minimise_asymmetry(image, turned, good, good_turned, masked,
                                             float(bx), float(by), r, sky_asymmetry)
        status |= more
        if math.hypot(x - bx, y - by) > limit:
            flags |= F_IS_CENTROID
            x, y = xc, yc
    if status:
        flags |= F_SEARCH_EDGE
    if image[int(y), int(x)] == 0.0:
        flags |= F_CENTRE_MASKED
    return x, y, flags


@kernel
def radii(circle, circle_shape, ellipse, ellipse_shape, diagonal, out):
    """Petrosian radii and fluxes, r20 r50 r80. Returns (r_petro, r_petro_ellip, flag bits)."""
    r, status = profile.petrosian_radius(circle, circle_shape, diagonal)
    flags = petro_flags(status)
    out[I_R_PETRO] = r if status & (profile.PETRO_SMALL | profile.PETRO_LARGE) == 0 else np.nan
    out[I_FLUX] = abs(profile.inside(circle, circle_shape, 2.0 * r)[0])
    if out[I_FLUX] > 0.0:
        out[I_FLUX + 1] = 31.4 - 2.5 * math.log10(out[I_FLUX])
    a, status = profile.petrosian_radius(ellipse, ellipse_shape, diagonal)
    flags |= petro_flags(status)
    out[I_R_PETRO + 1] = a if status & (profile.PETRO_SMALL | profile.PETRO_LARGE) == 0 else np.nan
    out[I_FLUX_ELLIP] = abs(profile.inside(ellipse, ellipse_shape, 2.0 * a)[0])
    for k in range(3):
        value, valid = profile.fraction_radius(circle, circle_shape, 1.5 * r, (0.2, 0.5, 0.8)[k])
        if valid and value > 0.0:
            out[I_R20 + k] = value
        else:
            flags |= F_RADIUS
    if out[I_R20] > 0.0 and out[I_R20 + 2] > 0.0:
        out[I_C] = 5.0 * math.log10(out[I_R20 + 2] / out[I_R20])
    return r, a, flags


@kernel
def gini_group(image, good, sigma, xc, yc, a, elongation, theta, out):
    """Gini segment with its statistics. Returns (segment, flag bits)."""
    region, status = gm.gini_segment(image, xc, yc, a, elongation, theta)
    flags = 0
    if status & gm.EMPTY:
        return region, F_GINI_EMPTY | F_GINI
    if status & gm.FULL:
        flags |= F_GINI_FULL
    if status & gm.DISJOINT:
        flags |= F_GINI_DISJOINT
    values = np.empty(count_set(region))
    k = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if region[y, x]:
                values[k] = image[y, x]
                k += 1
    values = sorted_part(values, k)
    g, m = gm.gini(values), gm.m20(image, region, values)
    out[I_GINI], out[I_GINI + 1] = g, m
    out[I_GINI + 2], out[I_GINI + 3] = -0.693 * m + 4.95 * g - 3.96, 0.139 * m + 0.990 * g - 0.327
    if math.isnan(g):
        flags |= F_GINI
    if math.isnan(m):
        flags |= F_M20
    out[I_SN] = gm.sn_per_pixel(image, region, good, sigma)
    if math.isnan(out[I_SN]) and noise_is_known(sigma):
        flags |= F_SN
    return region, flags


@kernel
def mid_group(image, source, gini_region, out):
    """Multimode, intensity, deviation. Returns flag bits."""
    light, pixels, y0, x0 = mid.source_light(image, source)
    region, status = mid.mid_segment(light, pixels, y0, x0, gini_region)
    flags = 0
    if status & (mid.ZERO_FLUX | mid.ADDED_BRIGHTEST):
        flags |= F_MID
    if status & mid.UNDEFINED:
        flags |= F_MID_IS_GINI
    out[I_M] = mid.multimode(region, pixels)
    out[I_M + 1], out[I_M + 2], status = mid.intensity_deviation(light, region)
    if status:
        flags |= F_DEVIATION
    larger, share = mid.segment_overlap(gini_region, region)
    if larger == 0:
        flags |= F_EMPTY
    elif share < _OVERLAP:
        flags |= F_DIFFER
    return flags


@kernel
def detection(image, good, source, x, y, a, elongation, theta, box, threshold, out):
    """Detection mask with its largest radii. Returns (mask, r_max, r_max_ellip, flag bits)."""
    flags = 0
    if math.isnan(threshold):
        threshold = shape.background_threshold(image, good, x, y, a, box)
    if math.isnan(threshold):
        region, flags = source, F_SHAPE
    else:
        region, status = shape.shape_segment(image, threshold)
        if status:
            flags = F_SHAPE
    r_max = shape.largest_radius(region, x, y, 1.0, 0.0)
    a_max = shape.largest_radius(region, x, y, elongation, theta)
    out[I_R_MAX], out[I_R_MAX + 1] = r_max, a_max
    return region, r_max, a_max, flags | (F_RMAX if r_max == 0.0 or a_max == 0.0 else 0)


@kernel
def half_light(circle, circle_shape, ellipse, ellipse_shape, r_max, a_max, out):
    """Half-light radii. Returns (r_half, r_half_ellip, flag bits)."""
    r = a = 0.0
    flags = 0
    if r_max > 0.0:
        r, valid = profile.fraction_radius(circle, circle_shape, r_max, 0.5)
        out[I_R_HALF] = r if valid else np.nan
        flags |= 0 if valid else F_RADIUS
    if a_max > 0.0:
        a, valid = profile.fraction_radius(ellipse, ellipse_shape, a_max, 0.5)
        out[I_R_HALF + 1] = a if valid else np.nan
        flags |= 0 if valid else F_RADIUS
    return r, a, flags


@kernel
def _ratio(out, i, numerator, denominator):
    """Store a ratio, or nothing where it is not defined; the flag bit for that."""
    if denominator != 0.0:
        out[i] = numerator / denominator
        return 0
    return F_ASYMMETRY


@kernel
def asymmetries(image, turned, good, good_turned, x, y, r, a_half, a_max, r_max, elongation, theta,
                 region, sky_asymmetry, sky_sigma, groups, out):
    """CAS, RMS, outer and shape asymmetry about (x, y). Returns flag bits."""
    flags = 0
    if groups & CAS:
        s = asym.asymmetry_sums(image, turned, good, good_turned, x, y, 0.0, r, 1.0, 0.0)
        flags |= _ratio(out, I_A, s[2] - s[0] * sky_asymmetry, s[1])
        noise = s[0] * sky_sigma * sky_sigma
        flags |= _ratio(out, I_RMS, s[4] - 2.0 * noise, s[3] - noise)
    if groups & SHAPE:
        if a_half > 0.0 and a_max > a_half:
            s = asym.asymmetry_sums(image, turned, good, good_turned, x, y, a_half, a_max, elongation, theta)
            flags |= _ratio(out, I_RMS + 1, s[2] - s[0] * sky_asymmetry, s[1])
        else:
            flags |= F_ASYMMETRY
        if r_max > 0.0:
            binary = as_double(region)
            s = asym.asymmetry_sums(binary, asym.reversed_padded(binary, 0.0), good, good_turned,
                                    x, y, 0.0, r_max, 1.0, 0.0)
            flags |= _ratio(out, I_RMS + 2, s[2], s[1])
    return flags
