"""First and second moments of a source, after Bertin & Arnouts (1996); the Gini segmentation map, the Gini
coefficient and M20 (Lotz et al. 2004); and signal-to-noise per pixel."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels import columns as at
from galbatch.morphology.kernels.apertures import Room, inside, running_sums
from galbatch.morphology.kernels.filters import gaussian
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.profile import ANNULUS
from galbatch.morphology.kernels.segments import at_least, brightest, count_set, grow

_SMOOTHING = 0.2  # Petrosian radii
_RHO = 1.0 / 12.0  # variance of a pixel-wide top hat


@leaf
def centroid(image: np.ndarray, where: np.ndarray) -> tuple[float, ...]:
    """(flux, x, y) of ``image`` over the pixels of ``where``; x and y mean nothing unless flux > 0."""
    ny, nx = image.shape
    m = mx = my = 0.0
    for y in range(ny):
        for x in range(nx):
            if where[y, x]:
                v = image[y, x]
                m += v
                mx += v * x
                my += v * y
    if m == 0.0:
        return 0.0, 0.0, 0.0
    return m, mx / m, my / m


@leaf
def second_moments(image: np.ndarray, where: np.ndarray, xc: float, yc: float) -> tuple[float, ...]:
    """(flux, sum of I dx^2, I dx dy, I dy^2) about (xc, yc)."""
    ny, nx = image.shape
    m = xx = xy = yy = 0.0
    for y in range(ny):
        for x in range(nx):
            if where[y, x]:
                v, dx, dy = image[y, x], x - xc, y - yc
                m += v
                xx += v * dx * dx
                xy += v * dx * dy
                yy += v * dy * dy
    return m, xx, xy, yy


@leaf
def shape_of(image: np.ndarray, where: np.ndarray, xc: float, yc: float) -> tuple[float, float, float, bool]:
    """(ellipticity, elongation, orientation in rad from x, False if a variance is not positive).

    Infinitely thin sources are widened as in SExtractor (manual, eq. 43).
    """
    m, xx, xy, yy = second_moments(image, where, xc, yc)
    x2, y2, c = xx / m, yy / m, xy / m
    valid = x2 > 0.0 and y2 > 0.0
    if not (math.isfinite(x2) and math.isfinite(y2) and math.isfinite(c)):
        return 0.0, 1.0, 0.0, False
    for _ in range(100):
        if abs(x2 * y2 - c * c) >= _RHO * _RHO:
            break
        x2 += _RHO if x2 >= 0.0 else -_RHO
        y2 += _RHO if y2 >= 0.0 else -_RHO
    mid, spread = 0.5 * (x2 + y2), math.sqrt((0.5 * (x2 - y2)) ** 2 + c * c)
    p, q = abs(mid + spread), abs(mid - spread)
    a, b = math.sqrt(max(p, q)), math.sqrt(min(p, q))
    return 1.0 - b / a, a / b, 0.5 * math.atan2(2.0 * c, x2 - y2), valid


@kernel
def gini_segment(
    image: np.ndarray, outline: tuple[float, ...], r_petro_ellip: float, room: Room
) -> tuple[np.ndarray, int]:
    """(region (H, W) bool, flag bits): pixels of the smoothed image above its mean at the Petrosian ellipse
    about the centroid, connected to the brightest one."""
    smooth = gaussian(image, _SMOOTHING * r_petro_ellip, False)
    sums = running_sums(smooth)
    tables = (smooth, sums, smooth, sums)
    a_in, a_out = r_petro_ellip - 0.5 * ANNULUS, r_petro_ellip + 0.5 * ANNULUS
    ring = inside(tables, outline, a_out, room)[0] - inside(tables, outline, a_in, room)[0]
    elongation = math.sqrt(outline[2] + outline[4] - 1.0)
    threshold = ring / (math.pi * (a_out * a_out - a_in * a_in) / elongation)
    above = at_least(smooth, threshold)
    total = count_set(above)
    if total == 0:
        return above, at.F_GINI_EMPTY
    if total == image.size:
        return above, at.F_GINI_FULL
    y0, x0 = brightest(smooth)
    region = grow(above, y0, x0)
    return region, (at.F_GINI_DISJOINT if count_set(region) < total else 0)


@leaf
def gini(values: np.ndarray) -> float:
    """Gini coefficient of the absolutes of sorted values (Lotz et al. 2004 eq. 6); NaN for fewer than two or
    all zero."""
    n = values.size
    if n <= 1:
        return np.nan
    high = 0
    while high < n and values[high] < 0.0:
        high += 1
    low = high - 1
    total = weighted = 0.0
    for i in range(n):  # outwards from zero, the smaller of the next two
        if high == n or (low >= 0 and -values[low] < values[high]):
            v = -values[low]
            low -= 1
        else:
            v = values[high]
            high += 1
        total += v
        weighted += (2.0 * (i + 1) - n - 1.0) * v
    if total == 0.0:
        return np.nan
    return weighted / ((n - 1.0) * total)


@leaf
def m20(image: np.ndarray, region: np.ndarray, v: np.ndarray) -> float:
    """log10 of the second moment of the brightest pixels with 20% of the flux, over that of all (eq. 8).

    ``v``: the sorted pixels of ``image`` in ``region``. About the centroid of the region; NaN if undefined.
    """
    flux, xc, yc = centroid(image, region)
    if not flux > 0.0:
        return np.nan
    _m, xx, _xy, yy = second_moments(image, region, xc, yc)
    threshold, running, found = 0.0, 0.0, False
    for i in range(v.size):
        running += v[i]
        if running >= 0.8 * flux:
            threshold, found = v[i], True
            break
    if not found:
        return np.nan
    bright = 0.0
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            if region[y, x] and image[y, x] >= threshold:
                bright += image[y, x] * ((x - xc) ** 2 + (y - yc) ** 2)
    if bright <= 0.0 or xx + yy <= 0.0:
        return np.nan
    return math.log10(bright / (xx + yy))


@leaf
def sn_per_pixel(image: np.ndarray, region: np.ndarray, good: np.ndarray, sigma: np.ndarray) -> float:
    """Mean of image / sigma over the pixels of the region that are not negative; NaN if there are none."""
    total, n = 0.0, 0
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            if region[y, x] and good[y, x] > 0.0 and image[y, x] >= 0.0 and abs(sigma[y, x]) > 0.0:
                total += image[y, x] / abs(sigma[y, x])
                n += 1
    return total / n if n > 0 else np.nan
