"""Smoothing on a stamp: Gaussian, boxcar, and the outlier test of Lotz et al. (2004).

Conventions at the border follow scipy.ndimage: 'constant' counts what is outside as zero, 'reflect' repeats the
border pixel (d c b a | a b c d).
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology._jit import kernel


@kernel
def _reflect(i, n):
    period = 2 * n
    i %= period
    return i if i < n else period - 1 - i


@kernel
def gaussian(image, sigma, reflect):
    """Gaussian filter cut at 4 sigma, ``reflect`` False for zeros outside."""
    ny, nx = image.shape
    if sigma <= 0.0:
        return image.copy()
    radius = int(4.0 * sigma + 0.5)
    weight = np.empty(radius + 1)
    for k in range(radius + 1):
        weight[k] = math.exp(-0.5 * (k / sigma) ** 2)
    norm = weight[0]
    for k in range(1, radius + 1):
        norm += 2.0 * weight[k]
    middle = np.zeros((ny, nx))
    for y in range(ny):
        for k in range(-radius, radius + 1):
            w = weight[abs(k)] / norm
            s = y + k
            if reflect:
                s = _reflect(s, ny)
            elif s < 0 or s >= ny:
                continue
            for x in range(nx):
                middle[y, x] += w * image[s, x]
    out = np.zeros((ny, nx))
    for y in range(ny):
        for k in range(-radius, radius + 1):
            w = weight[abs(k)] / norm
            if reflect:
                for x in range(nx):
                    s = x + k
                    if s < 0 or s >= nx:
                        s = _reflect(s, nx)
                    out[y, x] += w * middle[y, s]
            else:
                for x in range(max(0, -k), min(nx, nx - k)):
                    out[y, x] += w * middle[y, x + k]
    return out


@kernel
def boxcar(image, size):
    """Mean over size x size pixels, border reflected; an even box reaches one pixel further to the left."""
    ny, nx = image.shape
    if size <= 1:
        return image.copy()
    left = size // 2
    middle = np.empty((ny, nx))
    for y in range(ny):
        total = 0.0
        for k in range(size):
            total += image[y, _reflect(k - left, nx)]
        middle[y, 0] = total / size
        for x in range(1, nx):
            total += image[y, _reflect(x - left + size - 1, nx)] - image[y, _reflect(x - left - 1, nx)]
            middle[y, x] = total / size
    out = np.empty((ny, nx))
    total_row = np.zeros(nx)
    for k in range(size):
        s = _reflect(k - left, ny)
        for x in range(nx):
            total_row[x] += middle[s, x]
    for x in range(nx):
        out[0, x] = total_row[x] / size
    for y in range(1, ny):
        add, drop = _reflect(y - left + size - 1, ny), _reflect(y - left - 1, ny)
        for x in range(nx):
            total_row[x] += middle[add, x] - middle[drop, x]
            out[y, x] = total_row[x] / size
    return out


@kernel
def mask_outliers(image, good, n_sigma):
    """Clear ``good`` where a pixel differs from its 8 neighbours' mean by more than ``n_sigma`` of their scatter.

    ``image`` as given, with non-finite values already replaced by zero. Returns how many were cleared.
    """
    ny, nx = image.shape
    count = 0
    for y in range(ny):
        for x in range(nx):
            total = square = 0.0
            for j in range(-1, 2):
                for i in range(-1, 2):
                    if i != 0 or j != 0:
                        v = image[min(max(y + j, 0), ny - 1), min(max(x + i, 0), nx - 1)]
                        total += v
                        square += v * v
            mean = total / 8.0
            variance = square / 8.0 - mean * mean
            if variance >= 0.0 and abs(image[y, x] - mean) > n_sigma * math.sqrt(variance):
                good[y, x] = 0.0
                count += 1
    return count
