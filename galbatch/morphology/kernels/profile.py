"""Curves of growth about a centre, and the radii read off them.

A ``curve`` is what an aperture needs: the tables of ``apertures.inside``, the outline of its ellipses and the
room to trace them.

Petrosian radius: where the mean flux in an annulus one pixel wide is 0.2 of the mean inside
(Petrosian 1976; Lotz et al. 2004 eq. 4), the outermost such place within the source's segment: a nucleus in a
disc has one of its own. The coarse scan of 100 radii followed by root finding, the absolute values and the
fall-backs are those of statmorph (Rodriguez-Gomez et al. 2019), which takes the innermost.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels import columns as at
from galbatch.morphology.kernels.apertures import Curve, inside, roughly_inside
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.segments import background_threshold, largest_radius, shape_segment

ETA = 0.2
ANNULUS = 1.0
_N_SCAN = 100
_TOLERANCE = 1e-4
_EXACT = 8.0  # up to here every aperture of the scan is exact: they are small
_NOT_FOUND = at.F_PETRO_SMALL | at.F_PETRO_LARGE


@leaf
def light(curve: Curve, a: float) -> tuple[float, float]:
    """(flux, unmasked area on the image) inside the ellipse of semi-major axis ``a``."""
    tables, outline, room = curve
    return inside(tables, outline, a, room)


@leaf
def _roughly(curve: Curve, a: float) -> tuple[float, float]:
    """``light`` by pixel centres."""
    tables, outline, _room = curve
    return roughly_inside(tables, outline, a)


@leaf
def _petrosian(curve: Curve, a: float) -> tuple[float, int]:
    """(annulus mean / aperture mean - eta, 1 if the aperture mean is zero)."""
    f_in, a_in = light(curve, a - 0.5 * ANNULUS)
    f_out, a_out = light(curve, a + 0.5 * ANNULUS)
    f, area = light(curve, a)
    ring = abs((f_out - f_in) / (a_out - a_in)) if a_out - a_in > 1e-9 else 0.0
    mean = abs(f / area) if area > 1e-9 else 0.0
    if mean == 0.0:
        return (1.0 if ring != 0.0 else 0.0) - ETA, 1
    return ring / mean - ETA, 0


@leaf
def _rough_ratio(curve: Curve, a: float) -> float:
    """Annulus mean over aperture mean by whole pixels alone, a few per cent off; ``ETA`` where apertures are
    too small for that."""
    if a < _EXACT:
        return ETA
    f_in, a_in = _roughly(curve, a - 0.5 * ANNULUS)
    f_out, a_out = _roughly(curve, a + 0.5 * ANNULUS)
    f, area = _roughly(curve, a)
    if a_out - a_in <= 0.0 or area <= 0.0 or f == 0.0:
        return ETA
    return abs((f_out - f_in) / (a_out - a_in)) / abs(f / area)


@leaf
def _root(
    curve: Curve, low: float, f_low: float, high: float, f_high: float, total: float, fraction: float
) -> float:
    """Root between ``low`` and ``high`` by regula falsi (Illinois) of the Petrosian function, or, where
    ``fraction`` > 0, of flux / total - fraction."""
    side = 0
    for _ in range(60):
        if high - low < _TOLERANCE:
            break
        a = (low * f_high - high * f_low) / (f_high - f_low)
        if fraction > 0.0:
            value = _excess(curve, a, total, fraction)
        else:
            value, _zero = _petrosian(curve, a)
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


@leaf
def petrosian_radius(curve: Curve, diagonal: float, source: np.ndarray) -> tuple[float, int]:
    """(semi-major axis, flag bits) of the Petrosian ellipse; ``diagonal`` of the stamp bounds the search for
    the first, the pixels of ``source`` (H, W) that for one farther out."""
    dxx, dyy = curve[1][2], curve[1][4]
    first, last = ANNULUS, diagonal * math.sqrt(dxx + dyy - 1.0)
    step = (last - first) / (_N_SCAN - 1)
    reach = largest_radius(source, curve[1])
    flags = 0
    low, f_low = -1.0, 0.0
    inside, f_inside = -1.0, 0.0  # the last radius above eta
    high, f_high = -1.0, 0.0
    for k in range(_N_SCAN):
        a = first + k * step
        if high > 0.0 and a > reach:
            break
        rough = _rough_ratio(curve, a)
        if rough > 2.0 * ETA and k < _N_SCAN - 1:
            inside, f_inside = a, 0.0
            continue
        if high > 0.0 and inside < high and rough < 0.5 * ETA:
            continue
        value, zero = _petrosian(curve, a)
        if zero == 1:
            flags |= at.F_PETRO_ZERO
        if value > 0.0:
            inside, f_inside = a, value
        elif inside < 0.0:
            return first, flags | at.F_PETRO_SMALL
        elif inside > high:
            low, f_low, high, f_high = inside, f_inside, a, value
    if high < 0.0:
        return last, flags | at.F_PETRO_LARGE
    if f_low == 0.0:  # passed over
        f_low, _zero = _petrosian(curve, low)
    return _root(curve, low, f_low, high, f_high, 0.0, 0.0), flags


@leaf
def _excess(curve: Curve, a: float, total: float, fraction: float) -> float:
    return abs(light(curve, a)[0]) / total - fraction


@leaf
def fraction_radius(curve: Curve, a_total: float, fraction: float) -> tuple[float, bool]:
    """(semi-major axis that holds ``fraction`` of the flux inside ``a_total``, False if that flux is <=
    0)."""
    total, _ = light(curve, a_total)
    if total == 0.0:
        return a_total, False
    positive = total > 0.0
    total = abs(total)
    grid = a_total / (_N_SCAN - 1)
    k = 0
    while k < _N_SCAN - 2 and abs(_roughly(curve, (k + 1) * grid)[0]) <= fraction * total:
        k += 1
    f_low = _excess(curve, k * grid, total, fraction)
    while f_low > 0.0 and k > 0:
        k -= 1
        f_low = _excess(curve, k * grid, total, fraction)
    f_high = _excess(curve, (k + 1) * grid, total, fraction)
    while f_high <= 0.0 and k < _N_SCAN - 2:
        k, f_low = k + 1, f_high
        f_high = _excess(curve, (k + 1) * grid, total, fraction)
    return _root(curve, k * grid, f_low, (k + 1) * grid, f_high, total, fraction), positive


@leaf
def radii(
    circle: Curve, ellipse: Curve, diagonal: float, source: np.ndarray, out: np.ndarray
) -> tuple[float, float, int]:
    """Petrosian radii and fluxes, r20 r50 r80. Returns (r_petro, r_petro_ellip, flag bits)."""
    r, flags = petrosian_radius(circle, diagonal, source)
    out[at.I_R_PETRO] = r if flags & _NOT_FOUND == 0 else np.nan
    out[at.I_FLUX] = abs(light(circle, 2.0 * r)[0])
    if out[at.I_FLUX] > 0.0:
        out[at.I_MAG] = 31.4 - 2.5 * math.log10(out[at.I_FLUX])
    a, more = petrosian_radius(ellipse, diagonal, source)
    flags |= more
    out[at.I_R_PETRO_ELLIP] = a if more & _NOT_FOUND == 0 else np.nan
    out[at.I_FLUX_ELLIP] = abs(light(ellipse, 2.0 * a)[0])
    for k in range(3):
        value, valid = fraction_radius(circle, 1.5 * r, (0.2, 0.5, 0.8)[k])
        if valid and value > 0.0:
            out[(at.I_R20, at.I_R50, at.I_R80)[k]] = value
        else:
            flags |= at.F_RADIUS
    if out[at.I_R20] > 0.0 and out[at.I_R80] > 0.0:
        out[at.I_C] = 5.0 * math.log10(out[at.I_R80] / out[at.I_R20])
    return r, a, flags


@kernel
def detection(
    circle: Curve,
    ellipse: Curve,
    source: np.ndarray,
    a: float,
    box: tuple[int, ...],
    threshold: float,
    out: np.ndarray,
) -> tuple[np.ndarray, float, float, int]:
    """Detection mask with its largest radii. Returns (mask, r_max, r_max_ellip, flag bits)."""
    image, _flux_sums, good, _area_sums = circle[0]
    if math.isnan(threshold):
        threshold = background_threshold(image, good, circle[1], a, box)
    if math.isnan(threshold):
        region, flags = source, at.F_SHAPE
    else:
        region, flags = shape_segment(image, threshold)
    r_max = largest_radius(region, circle[1])
    a_max = largest_radius(region, ellipse[1])
    out[at.I_R_MAX], out[at.I_R_MAX_ELLIP] = r_max, a_max
    return region, r_max, a_max, flags | (at.F_RMAX if r_max == 0.0 or a_max == 0.0 else 0)


@leaf
def half_light(
    circle: Curve, ellipse: Curve, r_max: float, a_max: float, out: np.ndarray
) -> tuple[float, int]:
    """Half-light radii. Returns (r_half_ellip, flag bits)."""
    a = 0.0
    flags = 0
    if r_max > 0.0:
        r, valid = fraction_radius(circle, r_max, 0.5)
        out[at.I_R_HALF] = r if valid else np.nan
        flags |= 0 if valid else at.F_RADIUS
    if a_max > 0.0:
        a, valid = fraction_radius(ellipse, a_max, 0.5)
        out[at.I_R_HALF_ELLIP] = a if valid else np.nan
        flags |= 0 if valid else at.F_RADIUS
    return a, flags
