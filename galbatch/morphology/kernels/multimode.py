"""The MID segment and the multimode statistic (Freeman et al. 2013; Peth et al. 2016).

``image`` is the source alone: zero outside its segment and where it is negative.
Multimode is the ratio A2/A1 of the two largest regions above the threshold that maximises (A2/A1) A2. The
areas at all thresholds come from one sweep from the brightest pixel down that joins regions as it goes.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.columns import F_MID, F_MID_IS_GINI
from galbatch.morphology.kernels.filters import as_double, boxcar
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.ordering import key_of, sort_keys, value_of
from galbatch.morphology.kernels.profile import ETA
from galbatch.morphology.kernels.segments import (
    at_least,
    brightest,
    count_set,
    find_root,
    grow,
    join_pixel,
    no_regions,
)

_GRID, _FINEST_GRID, _AROUND = 0.02, 1e-3, 0.05


@kernel
def _main_clump(
    order: np.ndarray, value: np.ndarray, ny: int, nx: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(level, flux, size), each (n,): the sorted pixels of the segment, and the region with the brightest of
    them down to each."""
    n = order.size
    level, flux, size = np.empty(n), np.empty(n), np.empty(n, np.int64)
    regions = no_regions(ny, nx)
    waiting = 0
    for k in range(n):
        level[n - 1 - k] = value[k]
        join_pixel(regions, order[k], value[k], nx + 2)
        if k == n - 1 or value[k + 1] < value[k]:
            root = find_root(regions[0], order[0])
            for i in range(n - 1 - k, n - waiting):  # equal pixels share a level
                flux[i], size[i] = regions[1][root], -regions[0][root]
            waiting = k + 1
    return level, flux, size


@leaf
def _level(clumps: tuple[np.ndarray, np.ndarray, np.ndarray], q: float) -> tuple[float, bool]:
    """(level at quantile q) / (mean of the main clump above it) - eta, and whether that mean is zero."""
    level, flux, size = clumps
    i = int(q * (level.size - 1))
    if flux[i] == 0.0:
        return 1.0 - ETA, True
    return level[i] * size[i] / flux[i] - ETA, False


@leaf
def _trial_step(
    x_previous: float, f_previous: float, x: float, f: float, x_block: float, f_block: float
) -> float:
    """To the root of the line, or of the hyperbola, through the points."""
    if x_previous == x_block:
        return -f * (x - x_previous) / (f - f_previous)
    d1, d2 = (f_previous - f) / (x_previous - x), (f_block - f) / (x_block - x)
    return -f * (f_block * d2 - f_previous * d1) / (d2 * d1 * (f_block - f_previous))


@leaf
def _level_root(clumps: tuple[np.ndarray, np.ndarray, np.ndarray], f_first: float) -> float:
    """Quantile where ``_level`` changes sign, by Brent's method with a tolerance of one pixel."""
    f_previous, x_previous = f_first, 0.0
    x, (f, _zero) = 1.0, _level(clumps, 1.0)
    if f_previous == 0.0:
        return x_previous
    if f == 0.0:
        return x
    x_block, f_block, s_previous, s = 0.0, 0.0, 0.0, 0.0
    delta = 0.5 / clumps[0].size
    for _ in range(100):
        if (f_previous < 0.0) != (f < 0.0):
            x_block, f_block = x_previous, f_previous
            s_previous = s = x - x_previous
        if abs(f_block) < abs(f):
            x_previous, x, x_block = x, x_block, x
            f_previous, f, f_block = f, f_block, f
        bisect = 0.5 * (x_block - x)
        if f == 0.0 or abs(bisect) < delta:
            return x
        step = bisect
        if abs(s_previous) > delta and abs(f) < abs(f_previous):
            trial = _trial_step(x_previous, f_previous, x, f, x_block, f_block)
            if 2.0 * abs(trial) < min(abs(s_previous), 3.0 * abs(bisect) - delta):
                s_previous, s = s, trial
                step = trial
            else:
                s_previous = s = bisect
        else:
            s_previous = s = bisect
        x_previous, f_previous = x, f
        if abs(step) > delta:
            x += step
        else:
            x += delta if bisect > 0.0 else -delta
        f, _zero = _level(clumps, x)
    return x


@kernel
def mid_segment(
    image: np.ndarray, pixels: tuple[np.ndarray, np.ndarray], y0: int, x0: int, fallback: np.ndarray
) -> tuple[np.ndarray, int]:
    """(region, flag bits): the main clump down to where new pixels have 0.2 of its mean, slightly smoothed.

    ``pixels``: of ``source_light``; (y0, x0) the brightest; ``fallback`` where undefined.
    """
    order, value = pixels
    clumps = _main_clump(order, value, image.shape[0], image.shape[1])
    f_first, zero = _level(clumps, 0.0)
    flags = F_MID if zero else 0
    if f_first > 0.0:
        return fallback, flags | F_MID_IS_GINI
    q = _level_root(clumps, f_first)
    clump = grow(at_least(image, clumps[0][int(q * (order.size - 1))]), y0, x0)
    region = at_least(boxcar(as_double(clump), 3), 0.5)  # of nine pixels, five
    if not region[y0, x0]:
        region[y0, x0] = True
        flags |= F_MID
    return grow(region, y0, x0), flags


@kernel
def _two_largest(region: np.ndarray, pixels: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(gain, ratio), each (n_levels,): A2^2/A1 and A2/A1 at the i-th of the sorted pixels of the segment as
    the threshold; those of ``region`` are the brightest of them, the others are below every threshold."""
    ny, nx = region.shape
    order, level = pixels
    n_levels, n = order.size, 0
    inner, value = np.empty(n_levels, np.int64), np.empty(n_levels)
    for k in range(n_levels):
        if level[k] > 0.0 and region[order[k] // (nx + 2) - 1, order[k] % (nx + 2) - 1]:
            inner[n], value[n] = order[k], level[k]
            n += 1
    regions = no_regions(ny, nx)
    count = regions[2]
    gain, ratio = np.zeros(n_levels), np.zeros(n_levels)
    first = second = waiting = 0
    for k in range(n):
        new = join_pixel(regions, inner[k], value[k], nx + 2)
        start = second
        if new > first:
            if count[first] > 0:
                start = first
            first = new
        elif new > start:
            start = new
        while start > 0 and (count[start] == 0 or (start == first and count[start] < 2)):
            start -= 1
        second = start
        if k == n - 1 or value[k + 1] < value[k]:
            for i in range(n_levels - 1 - k, n_levels - waiting):  # equal pixels share a threshold
                gain[i], ratio[i] = second * second / first, second / first
            waiting = k + 1
    return gain, ratio


@kernel
def multimode(region: np.ndarray, pixels: tuple[np.ndarray, np.ndarray]) -> float:
    """A2/A1 at the threshold that maximises A2^2/A1; zero if there is never more than one region.

    ``pixels``: of ``source_light``. Thresholds are tried at quantiles 0.02 apart (finer where that finds
    no second region), then every one within 0.05 of the best: the highest of all would often be two bright
    pixels.
    """
    gain, ratio = _two_largest(region, pixels)
    last = gain.size - 1
    step = _GRID
    while True:
        best, q = 0.0, 0.0
        for k in range(math.ceil(1.0 / step - 1e-9)):
            value = gain[int(k * step * last)]
            if value > best:
                best, q = value, k * step
        if best > 0.0:
            break
        if step < _FINEST_GRID:
            return 0.0
        step *= 0.5
    where = int(q * last)
    for level in range(max(0, int((q - _AROUND) * last)), min(last, int((q + _AROUND) * last)) + 1):
        if gain[level] > gain[where]:
            where = level
    return ratio[where]


@leaf
def segment_overlap(one: np.ndarray, two: np.ndarray) -> tuple[int, float]:
    """(pixels of the larger region, share of it that both have)."""
    both = 0
    ny, nx = one.shape
    for y in range(ny):
        for x in range(nx):
            if one[y, x] and two[y, x]:
                both += 1
    larger = max(count_set(one), count_set(two))
    return larger, (both / larger if larger > 0 else 0.0)


@kernel
def source_light(
    image: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], int, int]:
    """(non-negative source image, (flat indices, values) of its pixels from the brightest on, row and column
    of the brightest)."""
    ny, nx = image.shape
    out = np.zeros((ny, nx))
    keys = np.empty(count_set(where), np.int64)
    k = 0
    for y in range(ny):
        for x in range(nx):
            if where[y, x]:
                out[y, x] = max(image[y, x], 0.0)
                keys[k] = key_of(-out[y, x], (y + 1) * (nx + 2) + x + 1)
                k += 1
    y0, x0 = brightest(out)
    keys = sort_keys(keys)
    value = np.empty(k)
    for i in range(k):
        value[i] = -value_of(keys[i])
        keys[i] &= 0xFFFFFFFF
    return out, (keys, value), y0, x0
