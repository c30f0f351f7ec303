"""The Gini segmentation map, the Gini coefficient and M20 (Lotz et al. 2004), and signal-to-noise per
pixel."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.apertures import Room, inside, running_sums
from galbatch.morphology.kernels.filters import gaussian
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.moments import centroid, second_moments
from galbatch.morphology.kernels.profile import ANNULUS
from galbatch.morphology.kernels.segments import brightest, count_set, grow

EMPTY, FULL, DISJOINT = 1, 2, 4
_SMOOTHING = 0.2  # Petrosian radii


@kernel
def gini_segment(
    image: np.ndarray, outline: tuple[float, ...], r_petro_ellip: float, room: Room
) -> tuple[np.ndarray, int]:
    """(region (H, W) bool, status bits): pixels of the smoothed image above its mean at the Petrosian ellipse
    about the centroid, connected to the brightest one."""
    smooth = gaussian(image, _SMOOTHING * r_petro_ellip, False)
    sums = running_sums(smooth)
    tables = (smooth, sums, smooth, sums)
    a_in, a_out = r_petro_ellip - 0.5 * ANNULUS, r_petro_ellip + 0.5 * ANNULUS
    ring = inside(tables, outline, a_out, room)[0] - inside(tables, outline, a_in, room)[0]
    elongation = math.sqrt(outline[2] + outline[4] - 1.0)
    threshold = ring / (math.pi * (a_out * a_out - a_in * a_in) / elongation)
    above = np.empty(image.shape, np.bool_)
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            above[y, x] = smooth[y, x] >= threshold
    total = count_set(above)
    if total == 0:
        return above, EMPTY
    if total == image.size:
        return above, FULL
    y0, x0 = brightest(smooth)
    region = grow(above, y0, x0)
    return region, (DISJOINT if count_set(region) < total else 0)


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
