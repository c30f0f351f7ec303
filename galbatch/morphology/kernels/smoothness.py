"""Smoothness (clumpiness), Lotz et al. (2004) eq. 11, without Conselice's factor of ten."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.filters import boxcar
from galbatch.morphology.kernels.geometry import disc_overlap, span
from galbatch.morphology.kernels.jit import kernel


@kernel
def smoothness(image, xc, yc, r_petro, sky_smoothness):
    """Positive part of image - boxcar average in the annulus 0.25-1.5 ``r_petro``, less the sky's, per
    flux."""
    r_in, r_out = 0.25 * r_petro, 1.5 * r_petro
    smooth = boxcar(image, int(r_in))
    ny, nx = image.shape
    flux = clumps = 0.0
    y_first, y_last = span(yc, r_out + 0.5, ny)
    x_first, x_last = span(xc, r_out + 0.5, nx)
    for y in range(y_first, y_last):
        for x in range(x_first, x_last):
            w = disc_overlap(x - xc, y - yc, r_out)
            if w > 0.0:
                w -= disc_overlap(x - xc, y - yc, r_in)
                flux += w * image[y, x]
                clumps += w * max(image[y, x] - smooth[y, x], 0.0)
    if flux <= 0.0:
        return np.nan
    return (clumps - math.pi * (r_out * r_out - r_in * r_in) * sky_smoothness) / flux
