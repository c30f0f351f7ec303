"""Intensity and deviation: the two brightest peaks of a source (Freeman et al. 2013; Peth et al. 2016)."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.filters import gaussian
from galbatch.morphology.kernels.jit import kernel
from galbatch.morphology.kernels.moments import centroid
from galbatch.morphology.kernels.segments import box_of, count_set

NO_PEAK = 1
_BORDER = 5  # beyond the reach of the Gaussian filter of one pixel


@kernel
def _uphill(smooth: np.ndarray) -> np.ndarray:
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
def intensity_deviation(image: np.ndarray, region: np.ndarray) -> tuple[float, float, int]:
    """(intensity, deviation, status bits) of the pixels of ``image`` in ``region``.

    Each pixel of the image, smoothed by a Gaussian of one pixel, belongs to the local maximum that it climbs
    to; intensity is the ratio of the second largest sum to the largest, deviation the distance of the peak
    of the largest from the centroid in units of the radius of a circle with the area of the region.
    """
    y0, x0, ny, nx = box_of(region, _BORDER)
    if ny == 0:
        return 0.0, np.nan, NO_PEAK
    cut = np.zeros((ny, nx))
    for y in range(ny):
        for x in range(nx):
            if region[y0 + y, x0 + x]:
                cut[y, x] = image[y0 + y, x0 + x]
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
    flux, xc, yc = centroid(image, region)
    if peak < 0 or not flux > 0.0:
        return 0.0, np.nan, NO_PEAK
    distance = math.sqrt((x0 + peak % nx - xc) ** 2 + (y0 + peak // nx - yc) ** 2)
    return second / first, math.sqrt(math.pi / count_set(region)) * distance, 0
