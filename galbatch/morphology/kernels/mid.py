"""Multimode, intensity and deviation statistics (Freeman et al. 2013; Peth et al. 2016).

``image`` is the source alone: zero outside its segment and where it is negative.
Multimode is the ratio A2/A1 of the two largest regions above the threshold that maximises (A2/A1) A2. The
areas at all thresholds come from one sweep from the brightest pixel down that joins regions as it goes.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.filters import boxcar, gaussian
from galbatch.morphology.kernels.jit import kernel
from galbatch.morphology.kernels.moments import centroid
from galbatch.morphology.kernels.ordering import sort_with, sorted_part
from galbatch.morphology.kernels.profile import ETA
from galbatch.morphology.kernels.segments import brightest, count_set, grow

ZERO_FLUX, ADDED_BRIGHTEST, UNDEFINED, NO_PEAK = 1, 2, 4, 8
_GRID, _FINEST_GRID, _AROUND = 0.02, 1e-3, 0.05


@kernel
def _above(image, threshold):
    out = np.empty(image.shape, np.bool_)
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            out[y, x] = image[y, x] >= threshold
    return out


@kernel
def _level(image, values, q, y0, x0):
    """(level at quantile q) / (mean of the main clump above it) - eta, and whether that mean is zero."""
    level = values[int(q * (values.size - 1))]
    clump = grow(_above(image, level), y0, x0)
    flux, _x, _y = centroid(image, clump)
    if flux == 0.0:
        return 1.0 - ETA, True
    return level * count_set(clump) / flux - ETA, False


@kernel
def _level_root(image, values, y0, x0, f_first):
    """Quantile where ``_level`` changes sign, by Brent's method with a tolerance of one pixel."""
    f_previous, x_previous = f_first, 0.0
    x, (f, _zero) = 1.0, _level(image, values, 1.0, y0, x0)
    if f_previous == 0.0:
        return x_previous
    if f == 0.0:
        return x
    x_block, f_block, s_previous, s = 0.0, 0.0, 0.0, 0.0
    delta = 0.5 / values.size
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
            if x_previous == x_block:
                trial = -f * (x - x_previous) / (f - f_previous)
            else:
                d1, d2 = (f_previous - f) / (x_previous - x), (f_block - f) / (x_block - x)
                trial = -f * (f_block * d2 - f_previous * d1) / (d2 * d1 * (f_block - f_previous))
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
        f, _zero = _level(image, values, x, y0, x0)
    return x


@kernel
def mid_segment(image, values, y0, x0, fallback):
    """(region, status bits): the main clump down to where new pixels have 0.2 of its mean, slightly smoothed.

    ``values``: the sorted pixels of the segment; (y0, x0) the brightest pixel; ``fallback`` where undefined.
    """
    f_first, zero = _level(image, values, 0.0, y0, x0)
    status = ZERO_FLUX if zero else 0
    if f_first > 0.0:
        return fallback, status | UNDEFINED
    q = _level_root(image, values, y0, x0, f_first)
    clump = grow(_above(image, values[int(q * (values.size - 1))]), y0, x0)
    ny, nx = image.shape
    light = np.zeros((ny, nx))
    for y in range(ny):
        for x in range(nx):
            if clump[y, x]:
                light[y, x] = 1.0
    smooth = boxcar(light, 3)
    region = np.empty((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            region[y, x] = smooth[y, x] > 0.5
    if not region[y0, x0]:
        region[y0, x0] = True
        status |= ADDED_BRIGHTEST
    return grow(region, y0, x0), status


@kernel
def _find(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def _join_pixel(parent, size, count, p, nx, ny):
    """Add pixel p as a region of one and join it to its neighbours; the size of the region it ends in."""
    parent[p], size[p] = p, 1
    count[1] += 1
    root = p
    y, x = p // nx, p % nx
    for j in range(max(y - 1, 0), min(y + 2, ny)):
        for i in range(max(x - 1, 0), min(x + 2, nx)):
            other = j * nx + i
            if parent[other] < 0:
                continue
            other = _find(parent, other)
            if other != root:
                if size[other] > size[root]:
                    root, other = other, root
                parent[other] = root
                count[size[other]] -= 1
                count[size[root]] -= 1
                size[root] += size[other]
                count[size[root]] += 1
    return size[root]


@kernel
def _two_largest(image, region, n_levels):
    """(gain, ratio), each (n_levels,): A2^2/A1 and A2/A1 at the i-th of the sorted pixels of the segment as
    the threshold; those of ``region`` are the brightest of them, the others are below every threshold."""
    ny, nx = image.shape
    pixels, minus = np.empty(ny * nx, np.int64), np.empty(ny * nx)
    n = 0
    for y in range(ny):
        for x in range(nx):
            if region[y, x] and image[y, x] > 0.0:
                pixels[n], minus[n] = y * nx + x, -image[y, x]
                n += 1
    sort_with(minus[:n], pixels[:n], 1)
    parent = np.empty(ny * nx, np.int64)
    for p in range(ny * nx):
        parent[p] = -1
    size = np.zeros(ny * nx, np.int64)
    count = np.zeros(n + 2, np.int64)  # regions by size
    gain, ratio = np.zeros(n_levels), np.zeros(n_levels)
    first = second = waiting = 0
    for k in range(n):
        new = _join_pixel(parent, size, count, pixels[k], nx, ny)
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
        if k == n - 1 or minus[k + 1] > minus[k]:
            for level in range(n_levels - 1 - k, n_levels - waiting):  # equal pixels share a threshold
                gain[level], ratio[level] = second * second / first, second / first
            waiting = k + 1
    return gain, ratio


@kernel
def multimode(image, region, n_levels):
    """A2/A1 at the threshold that maximises A2^2/A1; zero if there is never more than one region.

    ``n_levels``: pixels of the segment. Thresholds are tried at quantiles 0.02 apart (finer where that finds
    no second region), then every one within 0.05 of the best: the highest of all would often be two bright
    pixels.
    """
    gain, ratio = _two_largest(image, region, n_levels)
    last = n_levels - 1
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


@kernel
def _uphill(smooth):
    """For each pixel the flat index of its highest neighbour, itself at a local maximum, -1 where smooth is
    0."""
    ny, nx = smooth.shape
    link = np.empty(ny * nx, np.int64)
    for y in range(ny):
        for x in range(nx):
            if smooth[y, x] <= 0.0:
                link[y * nx + x] = -1
                continue
            best, where = smooth[y, x], y * nx + x
            for j in range(max(y - 1, 0), min(y + 2, ny)):
                for i in range(max(x - 1, 0), min(x + 2, nx)):
                    if smooth[j, i] > best:
                        best, where = smooth[j, i], j * nx + i
            link[y * nx + x] = where
    return link


@kernel
def intensity_deviation(image, region):
    """(intensity, deviation, status bits) of the pixels of ``image`` in ``region``.

    Each pixel of the image, smoothed by a Gaussian of one pixel, belongs to the local maximum that it climbs
    to; intensity is the ratio of the second largest sum to the largest, deviation the distance of the peak
    of the largest from the centroid in units of the radius of a circle with the area of the region.
    """
    ny, nx = image.shape
    cut = np.zeros((ny, nx))
    for y in range(ny):
        for x in range(nx):
            if region[y, x]:
                cut[y, x] = image[y, x]
    smooth = gaussian(cut, 1.0, True)
    link = _uphill(smooth)
    sums = np.zeros(ny * nx)
    for p in range(ny * nx):
        if link[p] >= 0:
            root = p
            while link[root] != root:
                root = link[root]
            q = p
            while link[q] != root:  # shorten the path for those that follow
                link[q], q = root, link[q]
            sums[root] += smooth[p // nx, p % nx]
    first = second = 0.0
    peak = -1
    for p in range(ny * nx):
        if sums[p] > first:
            first, second, peak = sums[p], first, p
        elif sums[p] > second:
            second = sums[p]
    flux, xc, yc = centroid(cut, region)
    if peak < 0 or not flux > 0.0:
        return 0.0, np.nan, NO_PEAK
    distance = math.sqrt((peak % nx - xc) ** 2 + (peak // nx - yc) ** 2)
    return second / first, math.sqrt(math.pi / count_set(region)) * distance, 0


@kernel
def segment_overlap(one, two):
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
def source_values(image, where):
    """(non-negative source image, its sorted pixels, row and column of the brightest)."""
    ny, nx = image.shape
    out = np.zeros((ny, nx))
    values = np.empty(count_set(where))
    k = 0
    for y in range(ny):
        for x in range(nx):
            if where[y, x]:
                out[y, x] = max(image[y, x], 0.0)
                values[k] = out[y, x]
                k += 1
    y0, x0 = brightest(out)
    return out, sorted_part(values, k), y0, x0
