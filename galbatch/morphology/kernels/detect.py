"""A segment for a source when nobody gives one: what stands out of the sky around the middle of the stamp."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.filters import boxcar
from galbatch.morphology.kernels.jit import kernel
from galbatch.morphology.kernels.ordering import sorted_part
from galbatch.morphology.kernels.segments import grow
from galbatch.morphology.kernels.sky import clipped_statistics

_N_SIGMA = 1.5


@kernel
def detect(raw: np.ndarray, bad: np.ndarray, seg: np.ndarray) -> None:
    """Set ``seg`` to 1 on the pixels of the 3 x 3 averaged image above mode + 1.5 sigma that connect to its
    brightest pixel in the central half of the stamp. Leaves it empty where no pixel is finite."""
    ny, nx = raw.shape
    image = np.zeros((ny, nx))
    values = np.empty(ny * nx)
    n = 0
    for y in range(ny):
        for x in range(nx):
            if math.isfinite(raw[y, x]) and not bad[y, x]:
                image[y, x] = raw[y, x]
                values[n] = raw[y, x]
                n += 1
    if n == 0:
        return
    mode, std = clipped_statistics(sorted_part(values, n))
    smooth = boxcar(image, 3)
    above = np.empty((ny, nx), np.bool_)
    best, y0, x0 = -np.inf, 0, 0
    for y in range(ny):
        for x in range(nx):
            above[y, x] = smooth[y, x] > mode + _N_SIGMA * std
            central = ny // 4 <= y < ny - ny // 4 and nx // 4 <= x < nx - nx // 4
            if central and smooth[y, x] > best:
                best, y0, x0 = smooth[y, x], y, x
    above[y0, x0] = True
    region = grow(above, y0, x0)
    for y in range(ny):
        for x in range(nx):
            seg[y, x] = 1 if region[y, x] and not bad[y, x] else 0
