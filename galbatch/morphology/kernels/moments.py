"""First and second moments of a source, after Bertin & Arnouts (1996)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from galbatch.morphology.kernels.jit import leaf

if TYPE_CHECKING:
    import numpy as np


_RHO = 1.0 / 12.0  # variance of a pixel-wide top hat


@leaf
def centroid(image: np.ndarray, where: np.ndarray) -> tuple[float, ...]:
    """(flux, x, y) of ``image`` over the pixels of ``where``; x and y mean nothing unless flux > 0."""
    ny, nx = image.shape
    m = mx = my = 0.0
    for y in range(ny):
        for x in range(nx):
            if where[y, x]:
                v = image[y, x]
                m += v
                mx += v * x
                my += v * y
    if m == 0.0:
        return 0.0, 0.0, 0.0
    return m, mx / m, my / m


@leaf
def second_moments(image: np.ndarray, where: np.ndarray, xc: float, yc: float) -> tuple[float, ...]:
    """(flux, sum of I dx^2, I dx dy, I dy^2) about (xc, yc)."""
    ny, nx = image.shape
    m = xx = xy = yy = 0.0
    for y in range(ny):
        for x in range(nx):
            if where[y, x]:
                v, dx, dy = image[y, x], x - xc, y - yc
                m += v
                xx += v * dx * dx
                xy += v * dx * dy
                yy += v * dy * dy
    return m, xx, xy, yy


@leaf
def shape_of(image: np.ndarray, where: np.ndarray, xc: float, yc: float) -> tuple[float, float, float, bool]:
    """(ellipticity, elongation, orientation in rad from x, False if a variance is not positive).

    Infinitely thin sources are widened as in SExtractor (manual, eq. 43).
    """
    m, xx, xy, yy = second_moments(image, where, xc, yc)
    x2, y2, c = xx / m, yy / m, xy / m
    valid = x2 > 0.0 and y2 > 0.0
    if not (math.isfinite(x2) and math.isfinite(y2) and math.isfinite(c)):
        return 0.0, 1.0, 0.0, False
    for _ in range(100):
        if abs(x2 * y2 - c * c) >= _RHO * _RHO:
            break
        x2 += _RHO if x2 >= 0.0 else -_RHO
        y2 += _RHO if y2 >= 0.0 else -_RHO
    mid, spread = 0.5 * (x2 + y2), math.sqrt((0.5 * (x2 - y2)) ** 2 + c * c)
    p, q = abs(mid + spread), abs(mid - spread)
    a, b = math.sqrt(max(p, q)), math.sqrt(min(p, q))
    return 1.0 - b / a, a / b, 0.5 * math.atan2(2.0 * c, x2 - y2), valid
