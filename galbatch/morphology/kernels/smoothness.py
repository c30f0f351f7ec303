"""Smoothness (clumpiness), Lotz et al. (2004) eq. 11, without Conselice's factor of ten."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.filters import boxcar
from galbatch.morphology.kernels.geometry import overlap
from galbatch.morphology.kernels.jit import kernel


@kernel
def smoothness(image, xc, yc, r_petro, sky_smoothness):
    """Positive part of image - boxcar average in the annulus 0.25-1.5 ``r_petro``, less the sky's, per
    flux."""
    r_in, r_out = 0.25 * r_petro, 1.5 * r_petro
    smooth = boxcar(image, int(r_in))
    ny, nx = image.shape
    flux = clumps = 0.0
    for y in range(ny):
        for x in range(nx):
            w = overlap(x - xc, y - yc, r_out, 1.0, 0.0, 1.0)
            if w > 0.0:
                w -= overlap(x - xc, y - yc, r_in, 1.0, 0.0, 1.0)
                flux += w * image[y, x]
                clumps += w * max(image[y, x] - smooth[y, x], 0.0)
    if flux <= 0.0:
        return np.nan
    return (clumps - math.pi * (r_out * r_out - r_in * r_in) * sky_smoothness) / flux
