"""The statistics group by group: each function fills its columns of ``out`` and returns flag bits."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels import gini_m20 as gm
from galbatch.morphology.kernels import mid
from galbatch.morphology.kernels.apertures import Curve, Room
from galbatch.morphology.kernels.asymmetry import (
    AsymmetryProblem,
    Pair,
    asymmetry_sums,
    reversed_padded,
    smoothness,
)
from galbatch.morphology.kernels.centre import intensity_deviation, minimise_asymmetry
from galbatch.morphology.kernels.columns import (
    CAS,
    F_ASYMMETRY,
    F_CENTRE_MASKED,
    F_DEVIATION,
    F_DIFFER,
    F_DRIFT,
    F_EMPTY,
    F_GINI,
    F_GINI_DISJOINT,
    F_GINI_EMPTY,
    F_GINI_FULL,
    F_IS_CENTROID,
    F_M20,
    F_MID,
    F_MID_IS_GINI,
    F_SEARCH_EDGE,
    F_SMOOTHNESS,
    F_SN,
    I_A,
    I_BULGE,
    I_D,
    I_GINI,
    I_I,
    I_M,
    I_M20,
    I_MERGER,
    I_OUTER,
    I_RMS,
    I_S,
    I_SHAPE,
    I_SN,
    SHAPE,
)
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.ordering import sorted_part
from galbatch.morphology.kernels.prepare import as_double
from galbatch.morphology.kernels.segments import count_set
from galbatch.morphology.kernels.sersic import noise_is_known
from galbatch.morphology.kernels.sky import box_smoothness, copy_box, white_noise_smoothness

_OVERLAP = 0.25


@leaf
def _brightest_in(image: np.ndarray, source: np.ndarray) -> tuple[int, int]:
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
def asymmetry_centre(
    problem: AsymmetryProblem, source: np.ndarray, xc: float, yc: float, limit: float
) -> tuple[float, float, int]:
    """(x, y, flag bits): the centre of minimal asymmetry within ``limit`` of the centroid, else of the
    brightest pixel, else the centroid. ``problem``: of ``minimise_asymmetry``."""
    image = problem[0][0]
    x, y, status = minimise_asymmetry(problem, xc, yc)
    flags = 0
    if math.hypot(x - xc, y - yc) > limit:
        flags = F_DRIFT
        by, bx = _brightest_in(image, source)
        x, y, more = minimise_asymmetry(problem, float(bx), float(by))
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
def gini_group(
    image: np.ndarray,
    good: np.ndarray,
    sigma: np.ndarray,
    outline: tuple[float, ...],
    a: float,
    room: Room,
    out: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Gini segment with its statistics. Returns (segment, flag bits)."""
    region, status = gm.gini_segment(image, outline, a, room)
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
    out[I_GINI], out[I_M20] = g, m
    out[I_BULGE], out[I_MERGER] = -0.693 * m + 4.95 * g - 3.96, 0.139 * m + 0.990 * g - 0.327
    if math.isnan(g):
        flags |= F_GINI
    if math.isnan(m):
        flags |= F_M20
    out[I_SN] = gm.sn_per_pixel(image, region, good, sigma)
    if math.isnan(out[I_SN]) and noise_is_known(sigma):
        flags |= F_SN
    return region, flags


@kernel
def mid_group(image: np.ndarray, source: np.ndarray, gini_region: np.ndarray, out: np.ndarray) -> int:
    """Multimode, intensity, deviation. Returns flag bits."""
    light, pixels, y0, x0 = mid.source_light(image, source)
    region, status = mid.mid_segment(light, pixels, y0, x0, gini_region)
    flags = 0
    if status & (mid.ZERO_FLUX | mid.ADDED_BRIGHTEST):
        flags |= F_MID
    if status & mid.UNDEFINED:
        flags |= F_MID_IS_GINI
    out[I_M] = mid.multimode(region, pixels)
    out[I_I], out[I_D], status = intensity_deviation(light, region)
    if status:
        flags |= F_DEVIATION
    larger, share = mid.segment_overlap(gini_region, region)
    if larger == 0:
        flags |= F_EMPTY
    elif share < _OVERLAP:
        flags |= F_DIFFER
    return flags


@kernel
def clumpiness(circle: Curve, r: float, box: tuple[int, ...], sky_sigma: float, out: np.ndarray) -> int:
    """Smoothness. Returns flag bits."""
    size = int(0.25 * r)
    if box[2] > 0:
        y0, x0, n = box
        level = box_smoothness(copy_box(circle[0][0], y0, x0, n, n), size)
    else:
        level = white_noise_smoothness(sky_sigma, size)
    out[I_S] = smoothness(circle, r, level)
    return 0 if math.isfinite(out[I_S]) else F_SMOOTHNESS


@leaf
def _ratio(out: np.ndarray, i: int, numerator: float, denominator: float) -> int:
    """Store a ratio, or nothing where it is not defined; the flag bit for that."""
    if denominator != 0.0:
        out[i] = numerator / denominator
        return 0
    return F_ASYMMETRY


@kernel
def asymmetries(
    pair: Pair,
    circle: Curve,
    ellipse: Curve,
    sky_terms: tuple[float, float],
    groups: int,
    radii: tuple[float, ...],
    region: np.ndarray,
    out: np.ndarray,
) -> int:
    """CAS, RMS, outer and shape asymmetry. ``sky_terms``: asymmetry per pixel and sigma; ``radii``: of the
    CAS aperture, half-light and largest of the ellipse, largest of the detection mask ``region``. Returns
    flag bits."""
    (sky_asymmetry, sky_sigma), (r, a_half, a_max, r_max) = sky_terms, radii
    flags = 0
    if groups & CAS:
        s = asymmetry_sums(pair, circle[1], r, circle[2])
        flags |= _ratio(out, I_A, s[2] - s[0] * sky_asymmetry, s[1])
        noise = s[0] * sky_sigma * sky_sigma
        flags |= _ratio(out, I_RMS, s[4] - 2.0 * noise, s[3] - noise)
    if groups & SHAPE:
        if a_half > 0.0 and a_max > a_half:
            s = asymmetry_sums(pair, ellipse[1], a_max, ellipse[2])
            inner = asymmetry_sums(pair, ellipse[1], a_half, ellipse[2])
            sky = (s[0] - inner[0]) * sky_asymmetry
            flags |= _ratio(out, I_OUTER, s[2] - inner[2] - sky, s[1] - inner[1])
        else:
            flags |= F_ASYMMETRY
        if r_max > 0.0:
            binary = as_double(region)
            pair = (binary, pair[1], reversed_padded(binary, 0.0), pair[3], pair[4], pair[5])
            s = asymmetry_sums(pair, circle[1], r_max, circle[2])
            flags |= _ratio(out, I_SHAPE, s[2], s[1])
    return flags
