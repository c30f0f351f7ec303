"""The sky of a stamp: an empty box, its statistics, and clipped statistics of an annulus.

Definitions as in statmorph: the box is the first one of 32 x 32 pixels (halved until one is found) without
source or masked pixels, scanning from the lower left corner.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.filters import boxcar
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.ordering import sorted_part

BOX = 32


@kernel
def find_box(taken: np.ndarray) -> tuple[int, ...]:
    """(y, x, size) of the first empty box of ``taken`` (H, W bool); size 0 if there is none of 2 pixels."""
    ny, nx = taken.shape
    table = np.zeros((ny + 1, nx + 1), np.int64)
    for y in range(ny):
        row = 0
        for x in range(nx):
            if taken[y, x]:
                row += 1
            table[y + 1, x + 1] = table[y, x + 1] + row
    size = BOX
    while size >= 2:
        for y in range(ny - size):
            for x in range(nx - size):
                if table[y + size, x + size] - table[y, x + size] - table[y + size, x] + table[y, x] == 0:
                    return y, x, size
        size //= 2
    return 0, 0, 0


@kernel
def copy_box(image: np.ndarray, y0: int, x0: int, ny: int, nx: int) -> np.ndarray:
    """The pixels from (y0, x0) on, (ny, nx), as an image of their own."""
    out = np.empty((ny, nx))
    for y in range(ny):
        for x in range(nx):
            out[y, x] = image[y0 + y, x0 + x]
    return out


@kernel
def box_statistics(box: np.ndarray) -> tuple[float, ...]:
    """(mean, median, standard deviation, asymmetry per pixel) of the pixels of a sky box."""
    ny, nx = box.shape
    n = ny * nx
    mean = 0.0
    values = np.empty(n)
    for y in range(ny):
        for x in range(nx):
            mean += box[y, x]
            values[y * nx + x] = box[y, x]
    mean /= n
    variance = asymmetry = 0.0
    for y in range(ny):
        for x in range(nx):
            variance += (box[y, x] - mean) ** 2
            asymmetry += abs(box[ny - 1 - y, nx - 1 - x] - box[y, x])
    values = sorted_part(values, n)
    median = 0.5 * (values[(n - 1) // 2] + values[n // 2])
    return mean, median, math.sqrt(variance / n), asymmetry / n


@kernel
def box_smoothness(box: np.ndarray, size: int) -> float:
    """Mean positive difference of the box and its boxcar average."""
    smooth = boxcar(box, size)
    ny, nx = box.shape
    total = 0.0
    for y in range(ny):
        for x in range(nx):
            total += max(box[y, x] - smooth[y, x], 0.0)
    return total / (ny * nx)


@leaf
def white_noise_smoothness(sigma: float, size: int) -> float:
    """What ``box_smoothness`` tends to for white noise of standard deviation ``sigma``."""
    if size <= 1:
        return 0.0
    return sigma * math.sqrt((1.0 - 1.0 / (size * size)) / (2.0 * math.pi))


@kernel
def _running_sums(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the first i of the values and of their squares, both taken from the middle value."""
    middle = v[v.size // 2]
    one, two = np.zeros(v.size + 1), np.zeros(v.size + 1)
    for i in range(v.size):
        d = v[i] - middle
        one[i + 1], two[i + 1] = one[i] + d, two[i] + d * d
    return one, two


@leaf
def _range_statistics(
    v: np.ndarray, sums: tuple[np.ndarray, np.ndarray], low: int, high: int
) -> tuple[float, ...]:
    """(mean, median, standard deviation) of the sorted values low..high-1."""
    one, two = sums
    n = high - low
    mean = (one[high] - one[low]) / n
    variance = max((two[high] - two[low]) / n - mean * mean, 0.0)
    median = 0.5 * (v[low + (n - 1) // 2] + v[low + n // 2])
    return v[v.size // 2] + mean, median, math.sqrt(variance)


@leaf
def _narrow(v: np.ndarray, low: int, high: int, centre: float, width: float) -> tuple[int, int]:
    while low < high and v[low] < centre - width:
        low += 1
    while high > low and v[high - 1] > centre + width:
        high -= 1
    return low, high


@kernel
def clipped_statistics(v: np.ndarray) -> tuple[float, float]:
    """(mode, standard deviation) of sorted values after 3-sigma clipping about the mode until nothing
    changes.

    The mode is 2.5 median - 1.5 mean (Bertin & Arnouts 1996), itself of values clipped ten times about their
    median.
    """
    low, high, sums = 0, v.size, _running_sums(v)
    while True:
        inner_low, inner_high = low, high
        for _ in range(10):
            _m, median, std = _range_statistics(v, sums, inner_low, inner_high)
            a, b = _narrow(v, inner_low, inner_high, median, 3.0 * std)
            if a == inner_low and b == inner_high:
                break
            inner_low, inner_high = a, b
        mean, median, _s = _range_statistics(v, sums, inner_low, inner_high)
        mode = 2.5 * median - 1.5 * mean
        _m, _md, std = _range_statistics(v, sums, low, high)
        a, b = _narrow(v, low, high, mode, 3.0 * std)
        if (a == low and b == high) or a >= b:
            break
        low, high = a, b
    mean, median, std = _range_statistics(v, sums, low, high)
    return 2.5 * median - 1.5 * mean, std
