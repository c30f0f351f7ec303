"""Smoothing on a stamp: Gaussian, boxcar, and the outlier test of Lotz et al. (2004).

Conventions at the border follow scipy.ndimage: 'constant' counts what is outside as zero, 'reflect' repeats
the border pixel (d c b a | a b c d).
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.jit import kernel, leaf


@leaf
def _reflect(i: int, n: int) -> int:
    period = 2 * n
    i %= period
    return i if i < n else period - 1 - i


@kernel
def as_double(image: np.ndarray) -> np.ndarray:
    """A copy of any real image in double precision."""
    out = np.empty(image.shape)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            out[y, x] = image[y, x]
    return out


@leaf
def _add_scaled(out: np.ndarray, values: np.ndarray, factor: float) -> None:
    for i in range(out.size):
        out[i] += factor * values[i]


@kernel
def gaussian_weights(sigma: float) -> np.ndarray:
    """Normalised weights at distance 0, 1, ... up to 4 sigma; sigma is cut at 1000 pixels."""
    sigma = min(sigma, 1000.0)
    weight = np.empty(int(4.0 * sigma + 0.5) + 1)
    norm = 0.0
    for k in range(weight.size):
        weight[k] = math.exp(-0.5 * (k / sigma) ** 2)
        norm += weight[k] if k == 0 else 2.0 * weight[k]
    for k in range(weight.size):
        weight[k] /= norm
    return weight


@leaf
def _add_pair(out: np.ndarray, one: np.ndarray, two: np.ndarray, factor: float) -> None:
    for i in range(out.size):
        out[i] += factor * (one[i] + two[i])


@leaf
def blur_columns(image: np.ndarray, weight: np.ndarray, reflect: bool, out: np.ndarray) -> None:
    """Symmetric filter along the first axis of ``image`` (H, M), into ``out`` (H, M)."""
    ny = image.shape[0]
    reach = weight.size - 1 if reflect else min(weight.size, ny) - 1
    for y in range(ny):
        row = out[y]
        for x in range(row.size):
            row[x] = weight[0] * image[y, x]
        for k in range(1, reach + 1):
            low, high = y - k, y + k
            if reflect:
                low, high = _reflect(low, ny), _reflect(high, ny)
            if low >= 0 and high < ny:
                _add_pair(row, image[low], image[high], weight[k])
            elif low >= 0:
                _add_scaled(row, image[low], weight[k])
            elif high < ny:
                _add_scaled(row, image[high], weight[k])


@leaf
def blur_rows(
    image: np.ndarray, weight: np.ndarray, reflect: bool, padded: np.ndarray, out: np.ndarray
) -> None:
    """Symmetric filter along the second axis of ``image`` (M, W), into ``out`` (M, W); ``padded`` is room for
    W + 2 (number of weights - 1)."""
    ny, nx = image.shape
    r = weight.size - 1
    for x in range(padded.size):
        padded[x] = 0.0
    for y in range(ny):
        row = out[y]
        for x in range(nx):
            padded[r + x] = image[y, x]
            row[x] = weight[0] * image[y, x]
        if reflect:
            for k in range(1, r + 1):
                padded[r - k] = image[y, _reflect(-k, nx)]
                padded[r + nx - 1 + k] = image[y, _reflect(nx - 1 + k, nx)]
        for k in range(1, r + 1 if reflect else min(r + 1, nx)):
            _add_pair(row, padded[r - k : r - k + nx], padded[r + k : r + k + nx], weight[k])


@kernel
def gaussian(image: np.ndarray, sigma: float, reflect: bool) -> np.ndarray:
    """Gaussian filter cut at 4 sigma, ``reflect`` False for zeros outside."""
    if sigma <= 0.0:
        return as_double(image)
    weight = gaussian_weights(sigma)
    middle, out = np.empty(image.shape), np.empty(image.shape)
    blur_columns(image, weight, reflect, middle)
    blur_rows(middle, weight, reflect, np.empty(image.shape[1] + 2 * weight.size - 2), out)
    return out


@kernel
def boxcar(image: np.ndarray, size: int) -> np.ndarray:
    """Mean over size x size pixels, border reflected; an even box reaches one pixel further to the left."""
    ny, nx = image.shape
    if size <= 1:
        return as_double(image)
    left = size // 2
    middle, padded = np.empty((ny, nx)), np.empty(nx + size - 1)
    for y in range(ny):
        for x in range(nx):
            padded[left + x] = image[y, x]
        for k in range(size - 1):
            i = k if k < left else nx + k  # left of the image, then right of it
            padded[i] = image[y, _reflect(i - left, nx)]
        total = 0.0
        for k in range(size):
            total += padded[k]
        middle[y, 0] = total / size
        for x in range(1, nx):
            total += padded[x + size - 1] - padded[x - 1]
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
def mask_outliers(image: np.ndarray, good: np.ndarray, n_sigma: float) -> int:
    """Clear ``good`` where a pixel differs from its 8 neighbours' mean by more than ``n_sigma`` of their
    scatter.

    ``image`` as given, with non-finite values already replaced by zero. Returns how many were cleared.
    """
    ny, nx = image.shape
    count = 0
    column, square = np.empty(nx + 2), np.empty(nx + 2)  # sums over three rows, the border repeated
    for y in range(ny):
        above, here, below = image[max(y - 1, 0)], image[y], image[min(y + 1, ny - 1)]
        for x in range(nx):
            column[x + 1] = above[x] + here[x] + below[x]
            square[x + 1] = above[x] * above[x] + here[x] * here[x] + below[x] * below[x]
        column[0], column[nx + 1] = column[1], column[nx]
        square[0], square[nx + 1] = square[1], square[nx]
        for x in range(nx):
            v = here[x]
            mean = (column[x] + column[x + 1] + column[x + 2] - v) / 8.0
            variance = (square[x] + square[x + 1] + square[x + 2] - v * v) / 8.0 - mean * mean
            if variance >= 0.0 and abs(v - mean) > n_sigma * math.sqrt(variance):
                good[y, x] = 0.0
                count += 1
    return count
