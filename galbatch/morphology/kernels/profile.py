"""Curves of growth about a centre, and the radii read off them.

``Rings`` are the pixels sorted into bins of elliptical radius ``rho`` (see ``geometry``) with running sums of
flux and area, so that one aperture costs its edge pixels only. A tuple of arrays:
(start, flux_below, area_below, place, image, good), a place being y * 65536 + x, and the geometry
(dxx, dxy, dyy, reach, elongation, step, xc, yc).

Petrosian radius: where the mean flux in an annulus one pixel wide is 0.2 of the mean inside
(Petrosian 1976; Lotz et al. 2004 eq. 4). The coarse scan of 100 radii followed by root finding, the absolute
values and the fall-backs are those of statmorph (Rodriguez-Gomez et al. 2019).
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.geometry import FINE, disc_edge, edge_overlap, metric, reach
from galbatch.morphology.kernels.jit import kernel

_STEP = 0.5
_MAX_BINS = 4096
ETA = 0.2
ANNULUS = 1.0
_N_SCAN = 100
_TOLERANCE = 1e-4
_EXACT = 8.0  # up to here every aperture of the scan is exact: they are small

PETRO_OK, PETRO_ZERO, PETRO_SMALL, PETRO_LARGE = 0, 1, 2, 4


@kernel
def _rho(dx, dy, dxx, dxy, dyy):
    return math.sqrt(dxx * dx * dx + 2.0 * dxy * dx * dy + dyy * dy * dy)


@kernel
def build_rings(image, good, xc, yc, elongation, theta):
    """Sort the pixels of ``image`` (masked pixels zero; ``good`` 1 or 0 a pixel) into rings about the
    centre."""
    ny, nx = image.shape
    dxx, dxy, dyy = metric(elongation, theta)
    largest = 0.0
    for corner in range(4):  # rho is convex: largest in a corner
        x, y = corner % 2 * (nx - 1), corner // 2 * (ny - 1)
        largest = max(largest, _rho(x - xc, y - yc, dxx, dxy, dyy))
    step = max(_STEP, largest / _MAX_BINS)
    top = int(largest / step)
    ring = np.empty((ny, nx), np.int32)
    start, end = np.zeros(top + 2, np.int64), np.zeros(top + 2, np.int64)
    flux_below, area_below = np.zeros(top + 2), np.zeros(top + 2)
    for y in range(ny):
        row, dy = ring[y], y - yc
        for x in range(nx):
            row[x] = np.int32(_rho(x - xc, dy, dxx, dxy, dyy) / step)
        for x in range(nx):
            k = row[x] + 1
            start[k] += 1
            flux_below[k] += image[y, x]
            area_below[k] += good[y, x]
    for k in range(top + 1):
        start[k + 1] += start[k]
        flux_below[k + 1] += flux_below[k]
        area_below[k + 1] += area_below[k]
        end[k] = start[k]
    place = np.empty(ny * nx, np.int32)
    for y in range(ny):
        for x in range(nx):
            k = ring[y, x]
            place[end[k]] = np.int32((y << 16) | x)
            end[k] += 1
    shape = (dxx, dxy, dyy, reach(dxx, dxy, dyy), elongation, step, xc, yc)
    return (start, flux_below, area_below, place, image, good), shape


@kernel
def inside(rings, shape, a):
    """(flux, unmasked area on the image) inside the ellipse of semi-major axis ``a``."""
    start, flux_below, area_below, place, image, good = rings
    dxx, dxy, dyy, q, _, step, xc, yc = shape
    if a <= 0.0:
        return 0.0, 0.0
    circle = dxx == 1.0 and dxy == 0.0 and dyy == 1.0 and a >= FINE
    last = start.size - 1
    low = min(int(max(a - q, 0.0) / step), last)
    high = min(int((a + q) / step) + 1, last)
    total, area = flux_below[low], area_below[low]
    for j in range(start[low], start[high]):
        y, x = place[j] >> 16, place[j] & 65535
        dx, dy = x - xc, y - yc
        r = _rho(dx, dy, dxx, dxy, dyy)
        if r + q <= a:
            total += image[y, x]
            area += good[y, x]
        elif r - q < a:
            if circle:
                w = disc_edge(dx, dy, r, a)
            else:
                w = edge_overlap(dx, dy, r, q, a, dxx, dxy, dyy)
            total += w * image[y, x]
            area += w * good[y, x]
    return total, area


@kernel
def _petrosian(rings, shape, a):
    """(annulus mean / aperture mean - eta, 1 if the aperture mean is zero)."""
    f_in, a_in = inside(rings, shape, a - 0.5 * ANNULUS)
    f_out, a_out = inside(rings, shape, a + 0.5 * ANNULUS)
    f, area = inside(rings, shape, a)
    ring = abs((f_out - f_in) / (a_out - a_in)) if a_out - a_in > 1e-9 else 0.0
    mean = abs(f / area) if area > 1e-9 else 0.0
    if mean == 0.0:
        return (1.0 if ring != 0.0 else 0.0) - ETA, 1
    return ring / mean - ETA, 0


@kernel
def _clearly_inside(rings, shape, a):
    """Whether whole pixels alone put ``a`` well inside the Petrosian radius: edges move the ratio by a few
    per cent, here it is above twice its value there."""
    flux, area = rings[1], rings[2]
    step, last = shape[5], flux.size - 1
    low, high = min(int((a - 0.5 * ANNULUS) / step), last), min(int((a + 0.5 * ANNULUS) / step), last)
    mid = min(int(a / step), last)
    if a < _EXACT or area[high] - area[low] <= 0.0 or area[mid] <= 0.0 or flux[mid] == 0.0:
        return False
    ring = abs((flux[high] - flux[low]) / (area[high] - area[low]))
    return ring > 2.0 * ETA * abs(flux[mid] / area[mid])


@kernel
def _root(rings, shape, low, f_low, high, f_high, total, fraction):
    """Root between ``low`` and ``high`` by regula falsi (Illinois) of the Petrosian function, or, where
    ``fraction`` > 0, of flux / total - fraction."""
    side = 0
    for _ in range(60):
        if high - low < _TOLERANCE:
            break
        a = (low * f_high - high * f_low) / (f_high - f_low)
        if fraction > 0.0:
            value = _excess(rings, shape, a, total, fraction)
        else:
            value, _zero = _petrosian(rings, shape, a)
        if abs(value) < 1e-7:
            return a
        if value * f_low > 0.0:
            low, f_low = a, value
            if side == -1:
                f_high *= 0.5
            side = -1
        else:
            high, f_high = a, value
            if side == 1:
                f_low *= 0.5
            side = 1
    return 0.5 * (low + high)


@kernel
def petrosian_radius(rings, shape, diagonal):
    """(semi-major axis, status bits) of the Petrosian ellipse; ``diagonal`` of the stamp bounds the
    search."""
    first, last = ANNULUS, diagonal * shape[4]
    step = (last - first) / (_N_SCAN - 1)
    status = PETRO_OK
    low, f_low = -1.0, 0.0
    high, f_high = -1.0, 0.0
    for k in range(_N_SCAN):
        a = first + k * step
        if _clearly_inside(rings, shape, a) and k < _N_SCAN - 1:
            low, f_low = a, 0.0
            continue
        value, zero = _petrosian(rings, shape, a)
        if zero == 1:
            status |= PETRO_ZERO
        if value > 0.0:
            low, f_low = a, value
        elif low < 0.0:
            return first, status | PETRO_SMALL
        else:
            high, f_high = a, value
            break
    if high < 0.0:
        return last, status | PETRO_LARGE
    if f_low == 0.0:  # passed over
        f_low, _zero = _petrosian(rings, shape, low)
    return _root(rings, shape, low, f_low, high, f_high, 0.0, 0.0), status


@kernel
def _excess(rings, shape, a, total, fraction):
    return abs(inside(rings, shape, a)[0]) / total - fraction


@kernel
def _first_crossing(rings, shape, a_total, flux):
    """Where the sum of whole pixels first exceeds ``flux``: within a pixel of where the exact one does."""
    below, step = rings[1], shape[5]
    for k in range(below.size):
        if abs(below[k]) > flux:
            return k * step
        if k * step > a_total:
            break
    return a_total


@kernel
def fraction_radius(rings, shape, a_total, fraction):
    """(semi-major axis that holds ``fraction`` of the flux inside ``a_total``, False if that flux is <=
    0)."""
    total, _ = inside(rings, shape, a_total)
    if total == 0.0:
        return a_total, False
    positive = total > 0.0
    total = abs(total)
    first = _first_crossing(rings, shape, a_total, fraction * total)
    grid = a_total / (_N_SCAN - 1)
    k = min(max(int(first / grid) - 1, 0), _N_SCAN - 2)
    f_low = _excess(rings, shape, k * grid, total, fraction)
    while f_low > 0.0 and k > 0:
        k -= 1
        f_low = _excess(rings, shape, k * grid, total, fraction)
    f_high = _excess(rings, shape, (k + 1) * grid, total, fraction)
    while f_high <= 0.0 and k < _N_SCAN - 2:
        k, f_low = k + 1, f_high
        f_high = _excess(rings, shape, (k + 1) * grid, total, fraction)
    return _root(rings, shape, k * grid, f_low, (k + 1) * grid, f_high, total, fraction), positive
