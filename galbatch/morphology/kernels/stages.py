"""The statistics group by group: each function fills its columns of ``out`` and returns flag bits."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels import columns as at
from galbatch.morphology.kernels import moments, multimode
from galbatch.morphology.kernels.apertures import Curve, Room
from galbatch.morphology.kernels.asymmetry import (
    AsymmetryProblem,
    Pair,
    asymmetry_sums,
    reversed_padded,
    smoothness,
)
from galbatch.morphology.kernels.centre import intensity_deviation, minimise_asymmetry
from galbatch.morphology.kernels.filters import as_double
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.ordering import sorted_part
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
    x, y, flags = minimise_asymmetry(problem, xc, yc)
    if math.hypot(x - xc, y - yc) > limit:
        flags |= at.F_DRIFT
        by, bx = _brightest_in(image, source)
        x, y, more = minimise_asymmetry(problem, float(bx), float(by))
        flags |= more
        if math.hypot(x - bx, y - by) > limit:
            flags |= at.F_IS_CENTROID
            x, y = xc, yc
    if image[int(y), int(x)] == 0.0:
        flags |= at.F_CENTRE_MASKED
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
    region, flags = moments.gini_segment(image, outline, a, room)
    if flags & at.F_GINI_EMPTY:
        return region, flags | at.F_GINI
    values = np.empty(count_set(region))
    k = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if region[y, x]:
                values[k] = image[y, x]
                k += 1
    values = sorted_part(values, k)
    g, m = moments.gini(values), moments.m20(image, region, values)
    out[at.I_GINI], out[at.I_M20] = g, m
    out[at.I_BULGE], out[at.I_MERGER] = -0.693 * m + 4.95 * g - 3.96, 0.139 * m + 0.990 * g - 0.327
    if math.isnan(g):
        flags |= at.F_GINI
    if math.isnan(m):
        flags |= at.F_M20
    out[at.I_SN] = moments.sn_per_pixel(image, region, good, sigma)
    if math.isnan(out[at.I_SN]) and noise_is_known(sigma):
        flags |= at.F_SN
    return region, flags


@kernel
def mid_group(image: np.ndarray, source: np.ndarray, gini_region: np.ndarray, out: np.ndarray) -> int:
    """Multimode, intensity, deviation. Returns flag bits."""
    light, pixels, y0, x0 = multimode.source_light(image, source)
    region, flags = multimode.mid_segment(light, pixels, y0, x0, gini_region)
    out[at.I_M] = multimode.multimode(region, pixels)
    out[at.I_I], out[at.I_D], more = intensity_deviation(light, region)
    flags |= more
    larger, share = multimode.segment_overlap(gini_region, region)
    if larger == 0:
        flags |= at.F_EMPTY
    elif share < _OVERLAP:
        flags |= at.F_DIFFER
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
    out[at.I_S] = smoothness(circle, r, level)
    return 0 if math.isfinite(out[at.I_S]) else at.F_SMOOTHNESS


@leaf
def _ratio(out: np.ndarray, i: int, numerator: float, denominator: float) -> int:
    """Store a ratio, or nothing where it is not defined; the flag bit for that."""
    if denominator != 0.0:
        out[i] = numerator / denominator
        return 0
    return at.F_ASYMMETRY


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
    """at.CAS, RMS, outer and shape asymmetry. ``sky_terms``: asymmetry per pixel and sigma; ``radii``: of the
    at.CAS aperture, half-light and largest of the ellipse, largest of the detection mask ``region``. Returns
    flag bits."""
    (sky_asymmetry, sky_sigma), (r, a_half, a_max, r_max) = sky_terms, radii
    flags = 0
    if groups & at.CAS:
        s = asymmetry_sums(pair, circle[1], r, circle[2])
        flags |= _ratio(out, at.I_A, s[2] - s[0] * sky_asymmetry, s[1])
        noise = s[0] * sky_sigma * sky_sigma
        flags |= _ratio(out, at.I_RMS, s[4] - 2.0 * noise, s[3] - noise)
    if groups & at.SHAPE:
        if a_half > 0.0 and a_max > a_half:
            s = asymmetry_sums(pair, ellipse[1], a_max, ellipse[2])
            inner = asymmetry_sums(pair, ellipse[1], a_half, ellipse[2])
            sky = (s[0] - inner[0]) * sky_asymmetry
            flags |= _ratio(out, at.I_OUTER, s[2] - inner[2] - sky, s[1] - inner[1])
        else:
            flags |= at.F_ASYMMETRY
        if r_max > 0.0:
            binary = as_double(region)
            pair = (binary, pair[1], reversed_padded(binary, 0.0), pair[3], pair[4], pair[5])
            s = asymmetry_sums(pair, circle[1], r_max, circle[2])
            flags |= _ratio(out, at.I_SHAPE, s[2], s[1])
    return flags
