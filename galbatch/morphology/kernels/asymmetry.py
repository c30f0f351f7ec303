"""Rotational asymmetry, and smoothness (at the end).

For a centre c the image turned by 180 degrees is ``I180(p) = I(2c - p)``, interpolated linearly; pixels from
outside the image count as zero, pixels whose own or opposite place is masked do not count at all.
``A = (sum |I180 - I| - area * sky) / sum |I|`` inside an aperture (Conselice 2003; Lotz et al. 2004 eq. 10).
The offset 2c - p has one fractional part for the whole image, so that the turned image is a shifted,
reversed copy with four constant weights.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.apertures import Curve, Room, inside, row_weights, running_sums, trace
from galbatch.morphology.kernels.filters import boxcar
from galbatch.morphology.kernels.jit import kernel, leaf, sum_kernel

Pair = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # of ``reversed_pair``
AsymmetryProblem = tuple[Pair, float, float, Room]


@kernel
def reversed_padded(image: np.ndarray, fill: float) -> np.ndarray:
    """``image`` turned by 180 degrees about its middle, with a border one pixel wide of ``fill``."""
    ny, nx = image.shape
    out = np.empty((ny + 2, nx + 2))
    for y in range(ny + 2):
        for x in range(nx + 2):
            edge = y == 0 or y == ny + 1 or x == 0 or x == nx + 1
            out[y, x] = fill if edge else image[ny - y, nx - x]
    return out


@kernel
def reversed_pair(image: np.ndarray, good: np.ndarray) -> Pair:
    """What ``asymmetry_sums`` compares: image and mask of good pixels, both reversed, room for a row's
    weights and for the sums."""
    turned, good_turned = reversed_padded(image, 0.0), reversed_padded(good, 1.0)
    return image, good, turned, good_turned, np.empty(image.shape[1]), np.empty(5)


@sum_kernel
def _row_sums(
    weight: np.ndarray,
    row: np.ndarray,
    good: np.ndarray,
    turned0: np.ndarray,
    turned1: np.ndarray,
    good_turned: np.ndarray,
    wy: float,
    wx: float,
) -> tuple[float, ...]:
    """Area, and the sums of |I|, |I180 - I| and their squares over a piece of a row; ``turned0/1`` one pixel
    longer, from the two rows that I180 lies between."""
    area = one = difference = squares = square_differences = 0.0
    for x in range(row.size):
        a = turned0[x] + wx * (turned0[x + 1] - turned0[x])
        b = turned1[x] + wx * (turned1[x + 1] - turned1[x])
        w = weight[x] * good[x] * good_turned[x]
        d = a + wy * (b - a) - row[x]
        area += w
        one += w * abs(row[x])
        difference += w * abs(d)
        squares += w * row[x] * row[x]
        square_differences += w * d * d
    return area, one, difference, squares, square_differences


@leaf(forceinline=True)
def _add_piece(
    pair: Pair, y: int, first: int, last: int, rows: tuple[int, float, int], columns: tuple[int, float, int]
) -> None:
    """Add the sums over pixels first..last-1 of row ``y`` to those so far. ``rows``: the upper of the
    two that I180 lies between, its weight and the nearest one; ``columns``: the same as shifts."""
    image, good, turned, good_turned, weight, total = pair
    (j, wy, near), (shift, wx, near_shift) = rows, columns
    i = first + shift
    sums = _row_sums(
        weight[first:last],
        image[y, first:last],
        good[y, first:last],
        turned[j, i : i + last - first + 1],
        turned[j + 1, i : i + last - first + 1],
        good_turned[near, first + near_shift : last + near_shift],
        wy,
        wx,
    )
    for k in range(5):
        total[k] += sums[k]


@leaf
def _shift(centre: float, n: int) -> tuple[int, float, int]:
    """(whole, fractional) shift into the padded reversed image along one axis; the nearest whole one."""
    s = n - 2.0 * centre  # (n - 1) - 2 c, plus one for the border
    whole = math.floor(s)
    return whole, s - whole, math.floor(s + 0.5)


@leaf
def asymmetry_sums(pair: Pair, outline: tuple[float, ...], a: float, room: Room) -> tuple[float, ...]:
    """Sums inside an ellipse, about whose centre the image is turned: (area, |I|, |I180 - I|,
    I^2, (I180 - I)^2). ``pair``: see ``reversed_pair``."""
    image, _good, _turned, _good_turned, weight, total = pair
    ny, nx = image.shape
    columns, (sy, wy, near) = _shift(outline[0], nx), _shift(outline[1], ny)
    for k in range(5):
        total[k] = 0.0
    n = 0
    y_first, y_last = trace(outline, a, nx, room)
    for y in range(y_first, y_last):
        n = row_weights(room, y, n, weight)
        first, last = room[0][y, 0], room[0][y, 3]
        i0, i1 = max(first, -columns[0]), min(last, nx + 1 - columns[0])
        if y + sy < 0 or y + sy > ny or i0 >= i1:
            i0 = i1 = first
        else:
            _add_piece(pair, y, i0, i1, (y + sy, wy, y + near), columns)
        if first < i0:
            _add_piece(pair, y, first, i0, (0, 0.0, 0), (-first, 0.0, -first))  # opposite: the border
        if i1 < last:
            _add_piece(pair, y, i1, last, (0, 0.0, 0), (-i1, 0.0, -i1))
    return total[0], total[1], total[2], total[3], total[4]


@kernel
def smoothness(curve: Curve, r_petro: float, sky_smoothness: float) -> float:
    """Positive part of image - boxcar average in the annulus 0.25-1.5 ``r_petro``, less the sky's, per
    flux."""
    (image, flux_sums, _good, _area_sums), outline, room = curve
    r_in, r_out = 0.25 * r_petro, 1.5 * r_petro
    clumps = boxcar(image, int(r_in))
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            clumps[y, x] = max(image[y, x] - clumps[y, x], 0.0)
    tables = (image, flux_sums, clumps, running_sums(clumps))
    flux_out, clumps_out = inside(tables, outline, r_out, room)
    flux_in, clumps_in = inside(tables, outline, r_in, room)
    if flux_out - flux_in <= 0.0:
        return np.nan
    sky = math.pi * (r_out * r_out - r_in * r_in) * sky_smoothness
    return (clumps_out - clumps_in - sky) / (flux_out - flux_in)
