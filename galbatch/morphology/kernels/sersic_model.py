"""Sersic profile and its derivatives on a pixel grid, written so that the compiler uses vector instructions;
and far pixels in blocks (mean and slopes), for which the profile is nearly straight.

``I = A exp(-b (z^(1/n) - 1))`` with ``z`` the elliptical radius in units of the effective semi-major axis and
b(n) such that half of the light is inside z = 1 (Sersic 1968; Ciotti & Bertin 1999). Sampled at pixel
centres.

Parameters ``p``: A, ln r_c, ln n, x, y, e1, e2. r_c is the circularised radius r_e sqrt(q), and
(e1, e2) = e (cos 2 theta, sin 2 theta) with e = 1 - q the ellipticity: smooth also for round galaxies.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaincinv

from galbatch.morphology.kernels.jit import bits_of, float_of, kernel, leaf

N_PARAMETERS = 7
N_LOW, N_HIGH = 0.01, 20.0
_GRID = np.linspace(math.log(N_LOW), math.log(N_HIGH), 2048)
_LN_B = np.log(gammaincinv(2.0 * np.exp(_GRID), 0.5))
_SLOPE = np.gradient(_LN_B, _GRID, edge_order=2)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND = 6755399441055744.0  # adding this puts the nearest integer in the low bits
_TWO52 = 4503599627370496.0


@leaf
def scale_b(ln_n: float) -> tuple[float, float]:
    """(b, db / d ln n), by cubic interpolation of ln b in ln n; 1e-9 relative."""
    step = _GRID[1] - _GRID[0]
    i = min(max(int((ln_n - _GRID[0]) / step), 0), _GRID.size - 2)
    t = (ln_n - _GRID[i]) / step
    y0, y1, s0, s1 = _LN_B[i], _LN_B[i + 1], _SLOPE[i] * step, _SLOPE[i + 1] * step
    a, c = 2.0 * (y0 - y1) + s0 + s1, 3.0 * (y1 - y0) - 2.0 * s0 - s1
    b = math.exp(((a * t + c) * t + s0) * t + y0)
    return b, b * ((3.0 * a * t + 2.0 * c) * t + s0) / step


@leaf(fastmath={"contract"})
def _log(x: float) -> float:
    """Natural logarithm of a positive normal number, 1e-12."""
    bits = bits_of(x)
    exponent = float_of((bits >> 52) | 0x4330000000000000) - (_TWO52 + 1023.0)
    m = float_of((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    large = m > 1.4142135623730951
    m = 0.5 * m if large else m
    exponent = exponent + 1.0 if large else exponent
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    series = 1.0 / 13.0
    series = series * q + 1.0 / 11.0
    series = series * q + 1.0 / 9.0
    series = series * q + 1.0 / 7.0
    series = series * q + 1.0 / 5.0
    series = series * q + 1.0 / 3.0
    series = series * q + 1.0
    return exponent * (_LN2_HIGH + _LN2_LOW) + 2.0 * s * series


@leaf(fastmath={"contract"})
def _exp(x: float) -> float:
    """Exponential, 1e-12, of an argument cut to +-700."""
    x = x if x < 700.0 else 700.0
    x = x if x > -700.0 else -700.0
    shifted = x * 1.4426950408889634 + _ROUND
    k = shifted - _ROUND
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * float_of((bits_of(shifted) + 1023) << 52)


@leaf
def constants(p: np.ndarray) -> tuple[float, ...]:
    """What all points share: see ``model_points``."""
    n = math.exp(p[2])
    b, db = scale_b(p[2])
    e = math.sqrt(p[5] * p[5] + p[6] * p[6])
    c2, s2 = (p[5] / e, p[6] / e) if e > 1e-12 else (0.0, 0.0)
    inv = math.exp(-2.0 * p[1])
    c = 0.5 * ((1.0 - e) + 1.0 / (1.0 - e)) * inv
    k = -0.5 * (2.0 - e) / (1.0 - e) * inv
    dc = 0.5 * (1.0 / (1.0 - e) ** 2 - 1.0) * inv
    dk = -0.5 / (1.0 - e) ** 2 * inv
    return n, b, db, c2, s2, c, k, dc, dk


@leaf(fastmath={"contract"})
def model_points(
    p: np.ndarray, const: tuple[float, ...], x: np.ndarray, y: np.ndarray, images: np.ndarray
) -> None:
    """Model and its seven derivatives at the points ``x`` (m,), ``y`` (m,): ``images`` (8, m), C order, is
    overwritten."""
    n, b, db, c2, s2, c, k, dc, dk = const
    amplitude, e1, e2 = p[0], p[5], p[6]
    xc, yc, inv_n = p[3], p[4], 1.0 / n
    f, f1, f2, f3 = images[0], images[1], images[2], images[3]
    f4, f5, f6, f7 = images[4], images[5], images[6], images[7]
    for i in range(f.size):
        dx, dy = x[i] - xc, y[i] - yc
        r2, d2, xy = dx * dx + dy * dy, dx * dx - dy * dy, 2.0 * dx * dy
        tilt = e1 * d2 + e2 * xy
        q = c * r2 + k * tilt
        q = q if q > 1e-12 else 1e-12
        ln_z = 0.5 * _log(q)
        u = _exp(ln_z * inv_n)
        unit = _exp(-b * (u - 1.0))
        model = amplitude * unit
        slope = -model * b * u * inv_n  # d model / d ln z
        by_q = 0.5 * slope / q
        f[i] = model
        f1[i] = unit
        f2[i] = -slope
        f3[i] = -slope * ln_z - model * db * (u - 1.0)
        f4[i] = -2.0 * by_q * ((c + k * e1) * dx + k * e2 * dy)
        f5[i] = -2.0 * by_q * ((c - k * e1) * dy + k * e2 * dx)
        f6[i] = by_q * ((dc * r2 + dk * tilt) * c2 + k * d2)
        f7[i] = by_q * ((dc * r2 + dk * tilt) * s2 + k * xy)


@kernel
def model_images(p: np.ndarray, y0: int, x0: int, images: np.ndarray, divide: int) -> None:
    """Fill ``images`` (H, 8, W) with the rows of the model and its derivatives from pixel (y0, x0) on; pixels
    within 2.5 of the centre are averaged over ``divide`` x ``divide`` points (1: pixel centres only)."""
    ny, _, nx = images.shape
    const = constants(p)
    x, y = np.empty(nx), np.empty(nx)
    for i in range(nx):
        x[i] = x0 + i
    for j in range(ny):
        for i in range(nx):
            y[i] = y0 + j
        model_points(p, const, x, y, images[j])
    if divide <= 1:
        return
    fine = np.empty((8, divide * divide))
    x, y = np.empty(divide * divide), np.empty(divide * divide)
    for j in range(max(0, math.ceil(p[4] - 2.5) - y0), min(ny, math.floor(p[4] + 2.5) + 1 - y0)):
        for i in range(max(0, math.ceil(p[3] - 2.5) - x0), min(nx, math.floor(p[3] + 2.5) + 1 - x0)):
            for k in range(divide * divide):
                x[k] = x0 + i - 0.5 + (k % divide + 0.5) / divide
                y[k] = y0 + j - 0.5 + (k // divide + 0.5) / divide
            model_points(p, const, x, y, fine)
            for m in range(8):
                total = 0.0
                for k in range(divide * divide):
                    total += fine[m, k]
                images[j, m, i] = total / (divide * divide)


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
