"""Smoothness (clumpiness), Lotz et al. (2004) eq. 11, without Conselice's factor of ten."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.apertures import Curve, inside, running_sums
from galbatch.morphology.kernels.filters import boxcar
from galbatch.morphology.kernels.jit import kernel


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
