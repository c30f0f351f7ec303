"""The data of a Sersic fit: single pixels around the centre, blocks of pixels farther out, where any model is
smooth.

A block stands for its pixels by their weighted mean and by their slopes along x and y, which are independent
of each other; what is left is their scatter about this plane, which no smooth model changes. The model of a
block, convolved with a Gaussian PSF, is the mean of four points (+-s_x, +-s_y) about the mean position,
s^2 the variance of the positions plus that of the PSF: exact for cubic polynomials. So are its slopes to
second order. A block with excluded pixels has no slopes.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.sersic_model import constants, model_points

_WHOLE, _NEAR = 16, 36  # pixels from the centre: single pixels, blocks of _SMALL, then of _LARGE
_SMALL, _LARGE = 4, 8


@leaf
def window_of(centre: float, n: int) -> tuple[int, int]:
    """(first, last + 1) of the single pixels along an axis of ``n``, multiples of ``_SMALL`` inside it."""
    c = int(min(max(centre, 0.0), n - 1.0))
    return max(0, (c - _WHOLE) // _SMALL * _SMALL), min(n, (c + _WHOLE) // _SMALL * _SMALL + _SMALL)


@leaf
def _add_block(
    image: np.ndarray,
    weight: np.ndarray,
    y0: int,
    x0: int,
    size: int,
    k: int,
    place: np.ndarray,
    data: np.ndarray,
    root: np.ndarray,
) -> tuple[int, float]:
    """Describe the block from (y0, x0) on in column ``k``; returns (the next column, scatter)."""
    y1, x1 = min(y0 + size, image.shape[0]), min(x0 + size, image.shape[1])
    n, total, mx, my, mean = 0, 0.0, 0.0, 0.0, 0.0
    for y in range(y0, y1):
        for x in range(x0, x1):
            w = weight[y, x] * weight[y, x]
            if w > 0.0:
                n += 1
                total += w
                mx += w * x
                my += w * y
                mean += w * image[y, x]
    if n == 0:
        return k, 0.0
    mx, my, mean = mx / total, my / total, mean / total
    xx = yy = dx = dy = scatter = 0.0
    for y in range(y0, y1):
        for x in range(x0, x1):
            w = weight[y, x] * weight[y, x]
            if w > 0.0:
                d = image[y, x] - mean
                xx += w * (x - mx) ** 2
                yy += w * (y - my) ** 2
                dx += w * d * (x - mx)
                dy += w * d * (y - my)
                scatter += w * d * d
    place[0, k], place[1, k], place[2, k], place[3, k] = mx, my, xx / total, yy / total
    data[0, k], root[0, k] = mean, math.sqrt(total)
    data[1, k] = data[2, k] = root[1, k] = root[2, k] = 0.0
    if n == (y1 - y0) * (x1 - x0) and xx > 0.0 and yy > 0.0:
        data[1, k], root[1, k] = dx / xx, math.sqrt(xx)
        data[2, k], root[2, k] = dy / yy, math.sqrt(yy)
        scatter -= dx * dx / xx + dy * dy / yy
    return k + 1, scatter


@kernel
def make_blocks(
    image: np.ndarray, weight: np.ndarray, window: tuple[int, ...], centre: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(place (4, m): mean x and y, variances; data (3, m): mean, slopes; root (3, m) of their weights;
    scatter) of what lies outside ``window`` (y0, y1, x0, x1)."""
    ny, nx = image.shape
    most = (ny // _SMALL + 2) * (nx // _SMALL + 2)
    place, data, root = np.empty((4, most)), np.empty((3, most)), np.empty((3, most))
    k, scatter = 0, 0.0
    half = 0.5 * (_LARGE - 1)
    for y0 in range(0, ny, _LARGE):
        for x0 in range(0, nx, _LARGE):
            if max(abs(y0 + half - centre[0]), abs(x0 + half - centre[1])) > _NEAR:
                k, more = _add_block(image, weight, y0, x0, _LARGE, k, place, data, root)
                scatter += more
                continue
            for y in range(y0, min(y0 + _LARGE, ny), _SMALL):
                for x in range(x0, min(x0 + _LARGE, nx), _SMALL):
                    if y < window[0] or y >= window[1] or x < window[2] or x >= window[3]:
                        k, more = _add_block(image, weight, y, x, _SMALL, k, place, data, root)
                        scatter += more
    return _first(place, k), _first(data, k), _first(root, k), scatter


@kernel
def _first(table: np.ndarray, n: int) -> np.ndarray:
    out = np.empty((table.shape[0], n))
    for row in range(table.shape[0]):
        for i in range(n):
            out[row, i] = table[row, i]
    return out


@leaf
def _add_corner(
    mean: np.ndarray,
    slope_x: np.ndarray,
    slope_y: np.ndarray,
    corner: np.ndarray,
    by_x: np.ndarray,
    by_y: np.ndarray,
) -> None:
    for i in range(mean.size):
        mean[i] += 0.25 * corner[i]
        slope_x[i] += by_x[i] * corner[i]
        slope_y[i] += by_y[i] * corner[i]


@kernel
def block_models(p: np.ndarray, psf_sigma: float, place: np.ndarray, images: np.ndarray) -> None:
    """Fill ``images`` (3, 8, m): mean, slope along x and along y of the model and its derivatives."""
    const, m = constants(p), place.shape[1]
    corner, at = np.empty((8, m)), np.empty((4, m))
    x, y, by_x, by_y = at[0], at[1], at[2], at[3]
    for kind in range(3):
        for k in range(8):
            for i in range(m):
                images[kind, k, i] = 0.0
    for sign_y in range(-1, 2, 2):
        for sign_x in range(-1, 2, 2):
            for i in range(m):
                s_x = math.sqrt(place[2, i] + psf_sigma * psf_sigma)
                s_y = math.sqrt(place[3, i] + psf_sigma * psf_sigma)
                x[i], y[i] = place[0, i] + sign_x * s_x, place[1, i] + sign_y * s_y
                by_x[i] = 0.25 * sign_x / s_x if s_x > 0.0 else 0.0
                by_y[i] = 0.25 * sign_y / s_y if s_y > 0.0 else 0.0
            model_points(p, const, x, y, corner)
            for k in range(8):
                _add_corner(images[0, k], images[1, k], images[2, k], corner[k], by_x, by_y)
