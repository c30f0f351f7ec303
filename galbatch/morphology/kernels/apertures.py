"""Sums over a stamp inside ellipses (see ``geometry`` for their ``outline``).

An ellipse is traced row by row: pixels that are inside as a whole, and edge pixels with the share of each
that is inside. With running sums along the rows of an image the whole pixels of a row are one difference, so
that an aperture costs its edge only.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.geometry import FINE, column_range, divided_share, edge_share, row_range
from galbatch.morphology.kernels.jit import kernel, leaf

Room = tuple[np.ndarray, np.ndarray]  # first and last pixel of an ellipse by row
Curve = tuple[tuple[np.ndarray, ...], tuple[float, ...], Room]  # tables, outline, room


@kernel
def new_room(ny: int, nx: int) -> tuple[np.ndarray, np.ndarray]:
    """What ``trace`` fills: per row the columns where the edge begins, whole pixels begin and end, and the
    edge ends (ny, 4); dx, dy and share (3, .) of all the edge pixels in that order."""
    return np.empty((ny, 4), np.int64), np.empty((3, ny * nx))


@leaf
def trace(outline: tuple[float, ...], a: float, nx: int, room: Room) -> tuple[int, int]:
    """Trace the ellipse ``rho < a`` on an image ``nx`` wide; returns its (first, last + 1) row."""
    xc, yc, dxx, dxy, dyy, reach = outline
    limits, (dx, dy, share) = room[0], (room[1][0], room[1][1], room[1][2])
    y_first, y_last = column_range(outline, a + reach, len(limits))
    n = 0
    for y in range(y_first, y_last):
        x0, x3 = row_range(outline, y, a + reach, nx)
        x1, x2 = row_range(outline, y, a - reach, nx)
        if x1 == x2:
            x1 = x2 = x0
        limits[y, 0], limits[y, 1], limits[y, 2], limits[y, 3] = x0, x1, x2, x3
        for x in range(x0, x1):
            dx[n], dy[n] = x - xc, y - yc
            n += 1
        for x in range(x2, x3):
            dx[n], dy[n] = x - xc, y - yc
            n += 1
    if a >= FINE * math.sqrt(dxx + dyy - 1.0):
        for i in range(n):
            share[i] = edge_share(dx[i], dy[i], a, dxx, dxy, dyy)
    else:
        for i in range(n):
            share[i] = divided_share(dx[i], dy[i], a, outline)
    return y_first, y_last


@leaf(forceinline=True)
def row_weights(room: Room, y: int, n: int, weight: np.ndarray) -> int:
    """Set ``weight`` to the shares of row ``y``, whose edge begins at the n-th pixel of all edges; returns
    that of the next row."""
    limits, share = room[0][y], room[1][2]
    for x in range(limits[0], limits[1]):
        weight[x] = share[n]
        n += 1
    for x in range(limits[1], limits[2]):
        weight[x] = 1.0
    for x in range(limits[2], limits[3]):
        weight[x] = share[n]
        n += 1
    return n


@kernel
def running_sums(image: np.ndarray) -> np.ndarray:
    """(H, W + 1): sums of the first pixels of each row."""
    ny, nx = image.shape
    out = np.empty((ny, nx + 1))
    for y in range(ny):
        total = out[y, 0] = 0.0
        for x in range(nx):
            total += image[y, x]
            out[y, x + 1] = total
    return out


@leaf
def inside(
    tables: tuple[np.ndarray, ...], outline: tuple[float, ...], a: float, room: Room
) -> tuple[float, float]:
    """(flux, unmasked area on the image) inside the ellipse of semi-major axis ``a``.

    ``tables``: image, its running sums, mask of good pixels (1 or 0), its running sums.
    """
    image, flux_sums, good, area_sums = tables
    flux = area = 0.0
    if a <= 0.0:
        return flux, area
    limits, share = room[0], room[1][2]
    n = 0
    y_first, y_last = trace(outline, a, image.shape[1], room)
    for y in range(y_first, y_last):
        x0, x1, x2, x3 = limits[y, 0], limits[y, 1], limits[y, 2], limits[y, 3]
        flux += flux_sums[y, x2] - flux_sums[y, x1]
        area += area_sums[y, x2] - area_sums[y, x1]
        for x in range(x0, x1):
            flux += share[n] * image[y, x]
            area += share[n] * good[y, x]
            n += 1
        for x in range(x2, x3):
            flux += share[n] * image[y, x]
            area += share[n] * good[y, x]
            n += 1
    return flux, area


@leaf
def roughly_inside(
    tables: tuple[np.ndarray, ...], outline: tuple[float, ...], a: float
) -> tuple[float, float]:
    """``inside`` by pixel centres."""
    _image, flux_sums, _good, area_sums = tables
    flux = area = 0.0
    y_first, y_last = column_range(outline, a, len(flux_sums))
    for y in range(y_first, y_last):
        x0, x1 = row_range(outline, y, a, flux_sums.shape[1] - 1)
        flux += flux_sums[y, x1] - flux_sums[y, x0]
        area += area_sums[y, x1] - area_sums[y, x0]
    return flux, area
