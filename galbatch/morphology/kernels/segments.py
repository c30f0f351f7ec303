"""Connected regions of a binary image (8 neighbours), without recursion."""

from __future__ import annotations

import numpy as np

from galbatch.morphology.kernels.jit import kernel, leaf


@leaf
def _fill_run(above: np.ndarray, out: np.ndarray, y: int, x: int) -> tuple[int, int]:
    """Set the unbroken part of row ``y`` around ``x``; returns its (first, last) column."""
    first = last = x
    while first > 0 and above[y, first - 1]:
        first -= 1
    while last < above.shape[1] - 1 and above[y, last + 1]:
        last += 1
    for i in range(first, last + 1):
        out[y, i] = True
    return first, last


@kernel
def grow(above: np.ndarray, y0: int, x0: int) -> np.ndarray:
    """The region of ``above`` (H, W bool) that contains (y0, x0); empty if that pixel is not set."""
    ny, nx = above.shape
    out = np.zeros((ny, nx), np.bool_)
    if not above[y0, x0]:
        return out
    runs = np.empty((ny * (nx + 1) // 2 + 1, 3), np.int64)  # row, first and last column of each found
    runs[0, 0], (runs[0, 1], runs[0, 2]) = y0, _fill_run(above, out, y0, x0)
    n = 1
    while n > 0:
        n -= 1
        y, first, last = runs[n, 0], max(runs[n, 1] - 1, 0), min(runs[n, 2] + 1, nx - 1)
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            x = first
            while x <= last:
                if above[j, x] and not out[j, x]:
                    runs[n, 0], (runs[n, 1], runs[n, 2]) = j, _fill_run(above, out, j, x)
                    x = runs[n, 2]
                    n += 1
                x += 1
    return out


@leaf
def count_set(region: np.ndarray) -> int:
    """Number of True pixels."""
    total = 0
    for y in range(region.shape[0]):
        for x in range(region.shape[1]):
            if region[y, x]:
                total += 1
    return total


@leaf
def brightest(image: np.ndarray) -> tuple[int, int]:
    """(y, x) of the first maximum in row order."""
    ny, nx = image.shape
    by = bx = 0
    best = image[0, 0]
    for y in range(ny):
        for x in range(nx):
            if image[y, x] > best:
                best = image[y, x]
                by, bx = y, x
    return by, bx


@leaf
def box_of(region: np.ndarray, border: int) -> tuple[int, ...]:
    """(y, x, height, width) of the smallest box around ``region`` with a ``border``, cut at the image; sizes
    0 if it is empty."""
    ny, nx = region.shape
    y0, y1, x0, x1 = ny, 0, nx, 0
    for y in range(ny):
        for x in range(nx):
            if region[y, x]:
                y0, y1, x0, x1 = min(y0, y), max(y1, y + 1), min(x0, x), max(x1, x + 1)
    if y1 == 0:
        return 0, 0, 0, 0
    y0, x0 = max(y0 - border, 0), max(x0 - border, 0)
    return y0, x0, min(y1 + border, ny) - y0, min(x1 + border, nx) - x0
