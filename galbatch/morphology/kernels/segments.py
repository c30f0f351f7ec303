"""Connected regions of a binary image (8 neighbours), without recursion."""

from __future__ import annotations

import numpy as np

from galbatch.morphology.kernels.jit import kernel


@kernel
def grow(above, y0, x0):
    """The region of ``above`` (H, W bool) that contains (y0, x0); empty if that pixel is not set."""
    ny, nx = above.shape
    out = np.zeros((ny, nx), np.bool_)
    if not above[y0, x0]:
        return out
    stack = np.empty(ny * nx, np.int64)
    stack[0] = y0 * nx + x0
    size = 1
    out[y0, x0] = True
    while size > 0:
        size -= 1
        p = stack[size]
        y, x = p // nx, p % nx
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            for i in range(max(x - 1, 0), min(x + 2, nx)):
                if above[j, i] and not out[j, i]:
                    out[j, i] = True
                    stack[size] = j * nx + i
                    size += 1
    return out


@kernel
def count_set(region):
    """Number of True pixels."""
    total = 0
    for y in range(region.shape[0]):
        for x in range(region.shape[1]):
            if region[y, x]:
                total += 1
    return total


@kernel
def brightest(image):
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


@kernel
def box_of(region, border):
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
