"""Peaks of an image, and the centre that minimises the asymmetry, found by the Nelder-Mead simplex, steps and
stops as in scipy's ``fmin``."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.apertures import outline_of
from galbatch.morphology.kernels.asymmetry import AsymmetryProblem, asymmetry_sums
from galbatch.morphology.kernels.columns import F_DEVIATION, F_SEARCH_EDGE
from galbatch.morphology.kernels.filters import gaussian
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.moments import centroid
from galbatch.morphology.kernels.segments import box_of, count_set

_NONE = 100.0  # what the search sees where no asymmetry exists
_CENTRE_TOLERANCE = 1e-3
_VALUE_TOLERANCE = 1e-4
_MAX_EVALUATIONS = 400
_FIRST_STEP, _STEP_FROM_ZERO = 1.05, 0.00025
_REFLECT, _EXPAND, _CONTRACT_OUTSIDE, _CONTRACT_INSIDE = 2.0, 3.0, 1.5, 0.5  # from the worst point on


@leaf
def _try(problem: AsymmetryProblem, x: float, y: float, vertex: np.ndarray) -> int:
    """Set ``vertex`` to (asymmetry, x, y); returns flag bits."""
    pair, r, sky, room = problem
    ny, nx = pair[0].shape
    vertex[0], vertex[1], vertex[2] = _NONE, x, y
    if x < 0.0 or x >= nx or y < 0.0 or y >= ny:
        return F_SEARCH_EDGE
    sums = asymmetry_sums(pair, outline_of(x, y, 1.0, 0.0), r, room)
    if sums[1] == 0.0:
        return F_SEARCH_EDGE
    vertex[0] = (sums[2] - sums[0] * sky) / sums[1]
    return 0


@leaf
def _try_along(problem: AsymmetryProblem, simplex: np.ndarray, t: float, vertex: np.ndarray) -> int:
    """``_try`` at a point of the line from the worst vertex (0) over the middle of the others (1)."""
    x = simplex[2, 1] + t * (0.5 * (simplex[0, 1] + simplex[1, 1]) - simplex[2, 1])
    y = simplex[2, 2] + t * (0.5 * (simplex[0, 2] + simplex[1, 2]) - simplex[2, 2])
    return _try(problem, x, y, vertex)


@leaf
def _copy_vertex(to: np.ndarray, vertex: np.ndarray) -> None:
    to[0], to[1], to[2] = vertex[0], vertex[1], vertex[2]


@leaf
def _sort(simplex: np.ndarray, spare: np.ndarray) -> None:
    """Best vertex first; equal ones stay in order."""
    for i in range(1, 3):
        _copy_vertex(spare, simplex[i])
        j = i - 1
        while j >= 0 and simplex[j, 0] > spare[0]:
            _copy_vertex(simplex[j + 1], simplex[j])
            j -= 1
        _copy_vertex(simplex[j + 1], spare)


@leaf
def _spread(simplex: np.ndarray, column: int) -> float:
    return max(abs(simplex[1, column] - simplex[0, column]), abs(simplex[2, column] - simplex[0, column]))


@leaf
def _first_simplex(problem: AsymmetryProblem, x: float, y: float, simplex: np.ndarray) -> int:
    """A vertex at the start and one a step away along either axis; returns flag bits."""
    x_step = x * _FIRST_STEP if x != 0.0 else _STEP_FROM_ZERO
    y_step = y * _FIRST_STEP if y != 0.0 else _STEP_FROM_ZERO
    flags = _try(problem, x, y, simplex[0]) | _try(problem, x_step, y, simplex[1])
    return flags | _try(problem, x, y_step, simplex[2])


@leaf
def _shrink(problem: AsymmetryProblem, simplex: np.ndarray) -> int:
    """Halve the distances to the best vertex; returns flag bits."""
    flags = 0
    for k in range(1, 3):
        x, y = 0.5 * (simplex[0, 1] + simplex[k, 1]), 0.5 * (simplex[0, 2] + simplex[k, 2])
        flags |= _try(problem, x, y, simplex[k])
    return flags


@kernel
def minimise_asymmetry(problem: AsymmetryProblem, x_start: float, y_start: float) -> tuple[float, float, int]:
    """(x, y, flag bits): the local minimum of the asymmetry that is found from the start.

    ``problem``: the pair of ``asymmetry_sums``, the radius, the asymmetry of a pixel of sky, room to trace.
    """
    simplex, one, two = np.empty((3, 3)), np.empty(3), np.empty(3)
    flags = _first_simplex(problem, x_start, y_start, simplex)
    _sort(simplex, one)
    calls = 3
    while calls < _MAX_EVALUATIONS:
        size = max(_spread(simplex, 1), _spread(simplex, 2))
        if size <= _CENTRE_TOLERANCE and _spread(simplex, 0) <= _VALUE_TOLERANCE:
            break
        flags |= _try_along(problem, simplex, _REFLECT, one)
        calls += 1
        if simplex[0, 0] <= one[0] < simplex[1, 0]:
            _copy_vertex(simplex[2], one)
        else:
            t = _EXPAND if one[0] < simplex[0, 0] else _CONTRACT_INSIDE
            t = _CONTRACT_OUTSIDE if simplex[0, 0] <= one[0] < simplex[2, 0] else t
            flags |= _try_along(problem, simplex, t, two)
            calls += 1
            limit = simplex[2, 0] if t == _CONTRACT_INSIDE else one[0]
            if two[0] < limit or (t == _CONTRACT_OUTSIDE and two[0] == limit):
                _copy_vertex(simplex[2], two)
            elif t == _EXPAND:
                _copy_vertex(simplex[2], one)
            else:
                flags |= _shrink(problem, simplex)
                calls += 2
        _sort(simplex, one)
    return simplex[0, 1], simplex[0, 2], flags


_BORDER = 5  # beyond the reach of the Gaussian filter of one pixel


@kernel
def _uphill(smooth: np.ndarray) -> np.ndarray:
    """For each pixel the flat index of its highest neighbour, itself at a local maximum, -1 where smooth is
    0."""
    ny, nx = smooth.shape
    link = np.empty(ny * nx, np.int64)
    for y in range(ny):
        for x in range(nx):
            if smooth[y, x] <= 0.0:
                link[y * nx + x] = -1
                continue
            best, where = smooth[y, x], y * nx + x
            for j in range(max(y - 1, 0), min(y + 2, ny)):
                for i in range(max(x - 1, 0), min(x + 2, nx)):
                    if smooth[j, i] > best:
                        best, where = smooth[j, i], j * nx + i
            link[y * nx + x] = where
    return link


@kernel
def intensity_deviation(image: np.ndarray, region: np.ndarray) -> tuple[float, float, int]:
    """(intensity, deviation, flag bits) of the pixels of ``image`` in ``region``.

    Each pixel of the image, smoothed by a Gaussian of one pixel, belongs to the local maximum that it climbs
    to; intensity is the ratio of the second largest sum to the largest, deviation the distance of the peak
    of the largest from the centroid in units of the radius of a circle with the area of the region.
    """
    y0, x0, ny, nx = box_of(region, _BORDER)
    if ny == 0:
        return 0.0, np.nan, F_DEVIATION
    cut = np.zeros((ny, nx))
    for y in range(ny):
        for x in range(nx):
            if region[y0 + y, x0 + x]:
                cut[y, x] = image[y0 + y, x0 + x]
    smooth = gaussian(cut, 1.0, True)
    link = _uphill(smooth)
    sums = np.zeros(ny * nx)
    for p in range(ny * nx):
        if link[p] >= 0:
            root = p
            while link[root] != root:
                root = link[root]
            q = p
            while link[q] != root:  # shorten the path for those that follow
                link[q], q = root, link[q]
            sums[root] += smooth[p // nx, p % nx]
    first = second = 0.0
    peak = -1
    for p in range(ny * nx):
        if sums[p] > first:
            first, second, peak = sums[p], first, p
        elif sums[p] > second:
            second = sums[p]
    flux, xc, yc = centroid(image, region)
    if peak < 0 or not flux > 0.0:
        return 0.0, np.nan, F_DEVIATION
    distance = math.sqrt((x0 + peak % nx - xc) ** 2 + (y0 + peak // nx - yc) ** 2)
    return second / first, math.sqrt(math.pi / count_set(region)) * distance, 0
