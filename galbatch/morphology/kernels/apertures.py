"""Ellipses on a stamp: how much of a pixel lies inside one, and sums over the pixels inside.

An ellipse is given by its semi-major axis ``a`` and an ``outline``: the centre and a metric,
(xc, yc, dxx, dxy, dyy, reach). ``rho(x, y) = sqrt(dxx dx^2 + 2 dxy dx dy + dyy dy^2)`` is the semi-major axis
of the concentric ellipse through a point, so the inside is ``rho < a``; ``reach`` is the largest change of
rho between the centre of a pixel and any point of it. A pixel is a unit square about integer coordinates.

Shares are exact for a straight edge and corrected to second order for its curvature; where the minor axis is
below ``FINE`` pixels the pixel is divided. Areas agree with exact circles to about 1e-4 pixel.

An ellipse is traced row by row: pixels that are inside as a whole, and edge pixels with the share of each
that is inside. With running sums along the rows of an image the whole pixels of a row are one difference, so
that an aperture costs its edge only.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.jit import kernel, leaf

FINE = 4.0
_MAX_DIVISION = 8


@leaf
def outline_of(xc: float, yc: float, elongation: float, theta: float) -> tuple[float, ...]:
    """Ellipses about (xc, yc) with axis ratio ``elongation`` >= 1 and position angle ``theta`` (rad, from
    x)."""
    c, s, e2 = math.cos(theta), math.sin(theta), elongation * elongation
    dxx, dxy, dyy = c * c + e2 * s * s, c * s * (1.0 - e2), s * s + e2 * c * c
    return xc, yc, dxx, dxy, dyy, 0.5 * math.sqrt(dxx + dyy + 2.0 * abs(dxy))


@leaf(forceinline=True)
def row_range(outline: tuple[float, ...], y: int, a: float, nx: int) -> tuple[int, int]:
    """(first, last + 1) of the pixels in row ``y`` of an image whose centres are inside."""
    xc, yc, dxx, dxy, dyy, _reach = outline
    dy = y - yc
    square = dxx * a * a - (dxx * dyy - dxy * dxy) * dy * dy
    if a <= 0.0 or square < 0.0:
        return 0, 0
    middle, half = xc - dxy / dxx * dy, math.sqrt(square) / dxx
    first = min(max(0, math.ceil(middle - half)), nx)
    return first, max(first, min(nx, math.floor(middle + half) + 1))


@leaf
def column_range(outline: tuple[float, ...], a: float, ny: int) -> tuple[int, int]:
    """(first, last + 1) of the rows of an image that the ellipse reaches with pixel centres."""
    _xc, yc, dxx, dxy, dyy, _reach = outline
    half = min(a * math.sqrt(dxx / (dxx * dyy - dxy * dxy)), 2.0 * ny + abs(yc))
    return max(0, math.ceil(yc - half)), min(ny, math.floor(yc + half) + 1)


@leaf(forceinline=True)
def edge_share(dx: float, dy: float, a: float, dxx: float, dxy: float, dyy: float) -> float:
    """Share of the unit pixel at (dx, dy) from the centre that is inside ``rho < a``, for a minor axis of at
    least ``FINE`` and a pixel within its reach of the edge. Free of branches, so that loops run in lanes."""
    px, py = dxx * dx + dxy * dy, dxy * dx + dyy * dy
    rho, length = math.sqrt(dx * px + dy * py), math.sqrt(px * px + py * py)
    by_rho, inverse = 1.0 / rho, 1.0 / length
    nx, ny, g, by_g = px * inverse, py * inverse, length * by_rho, rho * inverse  # normal, slope of rho
    s = (a - rho) * by_g  # distance of the edge along the normal
    ix = 1.0 / (nx if abs(nx) > 1e-12 else 1e-12)
    iy = 1.0 / (ny if abs(ny) > 1e-12 else 1e-12)
    beyond, small, large = abs(s), min(abs(nx), abs(ny)), max(abs(nx), abs(ny))
    rest = max(0.5 * (small + large) - beyond, 0.0)
    corner, strip = 0.5 * rest * rest * abs(ix * iy), 0.5 - beyond * min(abs(ix), abs(iy))
    area = corner if beyond > 0.5 * (large - small) else strip
    area = 1.0 - area if s > 0.0 else area
    p, q, u, v = (s * nx - 0.5) * iy, (s * nx + 0.5) * iy, (-0.5 - s * ny) * ix, (0.5 - s * ny) * ix
    low, high = max(min(p, q), min(u, v)), min(max(p, q), max(u, v))  # the chord, along (-ny, nx)
    mx, my = dxx * nx + dxy * ny, dxy * nx + dyy * ny
    nn, nt, tt = nx * mx + ny * my, nx * my - ny * mx, dxx * ny * ny - 2.0 * dxy * nx * ny + dyy * nx * nx
    bend = (
        s * s * (nn - g * g) * (high - low)
        + s * nt * (high * high - low * low)
        + tt * (high * high * high - low * low * low) / 3.0
    )
    area -= 0.5 * bend * by_rho * by_g if high > low else 0.0
    return min(max(area, 0.0), 1.0)


@leaf
def divided_share(dx: float, dy: float, a: float, outline: tuple[float, ...]) -> float:
    """``edge_share`` for an ellipse of any size: the pixel divided until the minor axis is ``FINE`` parts."""
    _xc, _yc, dxx, dxy, dyy, reach = outline
    minor = a / math.sqrt(dxx + dyy - 1.0)  # the elongation squared is the trace of the metric less one
    m = min(math.ceil(FINE / minor), _MAX_DIVISION)
    total = 0.0
    for i in range(m):
        for j in range(m):  # in units of a part the same problem has a larger ellipse
            x, y = m * dx + j + 0.5 - 0.5 * m, m * dy + i + 0.5 - 0.5 * m
            rho = math.sqrt(dxx * x * x + 2.0 * dxy * x * y + dyy * y * y)
            if rho + reach <= m * a:
                total += 1.0
            elif rho == 0.0:
                total += min(1.0, math.pi * minor * a * m * m)
            elif rho - reach < m * a:
                total += edge_share(x, y, m * a, dxx, dxy, dyy)
    return total / (m * m)


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
