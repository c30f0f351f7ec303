"""The detection mask of shape asymmetry (Pawlik et al. 2016) and the largest radius in it."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.filters import boxcar
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.ordering import sorted_part
from galbatch.morphology.kernels.segments import brightest, grow
from galbatch.morphology.kernels.sky import BOX, clipped_statistics

UNDEFINED, ADDED_BRIGHTEST = 1, 2


@kernel
def background_threshold(
    image: np.ndarray,
    good: np.ndarray,
    outline: tuple[float, ...],
    r_petro_ellip: float,
    box: tuple[int, ...],
) -> float:
    """Mode + one sigma of the sky in an annulus of 2 to 4 Petrosian radii, or in the sky ``box`` (y, x, size)
    where fewer than 32 x 32 pixels are left; NaN where there is neither."""
    ny, nx = image.shape
    xc, yc = outline[0], outline[1]
    r_in, r_out = 2.0 * r_petro_ellip, 4.0 * r_petro_ellip
    values = np.empty(ny * nx)
    n = 0
    for y in range(ny):
        for x in range(nx):
            d2 = (x - xc) ** 2 + (y - yc) ** 2
            if good[y, x] > 0.0 and d2 < r_out * r_out and d2 >= r_in * r_in:
                values[n] = image[y, x]
                n += 1
    if n < BOX * BOX:
        n = 0
        y0, x0, size = box
        for y in range(y0, y0 + size):
            for x in range(x0, x0 + size):
                values[n] = image[y, x]
                n += 1
        if n == 0:
            return np.nan
    mode, std = clipped_statistics(sorted_part(values, n))
    return mode + std


@kernel
def shape_segment(image: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
    """(region, status bits): 3 x 3 averaged image above ``threshold``, connected to its brightest pixel."""
    smooth = boxcar(image, 3)
    above = np.empty(image.shape, np.bool_)
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            above[y, x] = smooth[y, x] >= threshold
    y0, x0 = brightest(smooth)
    status = 0
    if not above[y0, x0]:
        above[y0, x0] = True
        status = ADDED_BRIGHTEST
    return grow(above, y0, x0), status


@leaf
def largest_radius(region: np.ndarray, outline: tuple[float, ...]) -> float:
    """Semi-major axis of the smallest ellipse with every pixel centre of ``region``; 0 if it is empty."""
    xc, yc, dxx, dxy, dyy, _reach = outline
    ny, nx = region.shape
    best = 0.0
    for y in range(ny):
        for x in range(nx):
            if region[y, x]:
                dx, dy = x - xc, y - yc
                best = max(best, dxx * dx * dx + 2.0 * dxy * dx * dy + dyy * dy * dy)
    return math.sqrt(best)
