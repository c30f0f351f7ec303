"""Radii and what they need: each function fills its columns of ``out`` and returns flag bits."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels import profile, shape
from galbatch.morphology.kernels.apertures import Curve
from galbatch.morphology.kernels.columns import (
    F_PETRO_LARGE,
    F_PETRO_SMALL,
    F_PETRO_ZERO,
    F_RADIUS,
    F_RMAX,
    F_SHAPE,
    I_C,
    I_FLUX,
    I_FLUX_ELLIP,
    I_MAG,
    I_R20,
    I_R50,
    I_R80,
    I_R_HALF,
    I_R_HALF_ELLIP,
    I_R_MAX,
    I_R_MAX_ELLIP,
    I_R_PETRO,
    I_R_PETRO_ELLIP,
)
from galbatch.morphology.kernels.jit import kernel, leaf


@leaf
def petro_flags(status: int) -> int:
    flags = 0
    if status & profile.PETRO_ZERO:
        flags |= F_PETRO_ZERO
    if status & profile.PETRO_SMALL:
        flags |= F_PETRO_SMALL
    if status & profile.PETRO_LARGE:
        flags |= F_PETRO_LARGE
    return flags


@leaf
def radii(circle: Curve, ellipse: Curve, diagonal: float, out: np.ndarray) -> tuple[float, float, int]:
    """Petrosian radii and fluxes, r20 r50 r80. Returns (r_petro, r_petro_ellip, flag bits)."""
    r, status = profile.petrosian_radius(circle, diagonal)
    flags = petro_flags(status)
    out[I_R_PETRO] = r if status & (profile.PETRO_SMALL | profile.PETRO_LARGE) == 0 else np.nan
    out[I_FLUX] = abs(profile.light(circle, 2.0 * r)[0])
    if out[I_FLUX] > 0.0:
        out[I_MAG] = 31.4 - 2.5 * math.log10(out[I_FLUX])
    a, status = profile.petrosian_radius(ellipse, diagonal)
    flags |= petro_flags(status)
    out[I_R_PETRO_ELLIP] = a if status & (profile.PETRO_SMALL | profile.PETRO_LARGE) == 0 else np.nan
    out[I_FLUX_ELLIP] = abs(profile.light(ellipse, 2.0 * a)[0])
    for k in range(3):
        value, valid = profile.fraction_radius(circle, 1.5 * r, (0.2, 0.5, 0.8)[k])
        if valid and value > 0.0:
            out[(I_R20, I_R50, I_R80)[k]] = value
        else:
            flags |= F_RADIUS
    if out[I_R20] > 0.0 and out[I_R80] > 0.0:
        out[I_C] = 5.0 * math.log10(out[I_R80] / out[I_R20])
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
    flags = 0
    image, _flux_sums, good, _area_sums = circle[0]
    if math.isnan(threshold):
        threshold = shape.background_threshold(image, good, circle[1], a, box)
    if math.isnan(threshold):
        region, flags = source, F_SHAPE
    else:
        region, status = shape.shape_segment(image, threshold)
        if status:
            flags = F_SHAPE
    r_max = shape.largest_radius(region, circle[1])
    a_max = shape.largest_radius(region, ellipse[1])
    out[I_R_MAX], out[I_R_MAX_ELLIP] = r_max, a_max
    return region, r_max, a_max, flags | (F_RMAX if r_max == 0.0 or a_max == 0.0 else 0)


@leaf
def half_light(
    circle: Curve, ellipse: Curve, r_max: float, a_max: float, out: np.ndarray
) -> tuple[float, int]:
    """Half-light radii. Returns (r_half_ellip, flag bits)."""
    a = 0.0
    flags = 0
    if r_max > 0.0:
        r, valid = profile.fraction_radius(circle, r_max, 0.5)
        out[I_R_HALF] = r if valid else np.nan
        flags |= 0 if valid else F_RADIUS
    if a_max > 0.0:
        a, valid = profile.fraction_radius(ellipse, a_max, 0.5)
        out[I_R_HALF_ELLIP] = a if valid else np.nan
        flags |= 0 if valid else F_RADIUS
    return a, flags
