"""From a stamp to what is measured: masked pixels cleared, the source found, the sky's part known.

``image``: masked pixels are zero; ``good``: 1 or 0 per pixel; ``source``: unmasked pixels of the segment.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels import columns as at
from galbatch.morphology.kernels import sky
from galbatch.morphology.kernels.filters import mask_outliers
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.moments import centroid, shape_of
from galbatch.morphology.kernels.segments import count_set


@kernel
def prepare(
    raw: np.ndarray, seg: np.ndarray, bad: np.ndarray, n_outlier: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(image with masked pixels zero, good (1 or 0), source pixels, flag bits)."""
    ny, nx = raw.shape
    image, good = np.zeros((ny, nx)), np.zeros((ny, nx))
    n_good = 0
    for y in range(ny):
        for x in range(nx):
            if math.isfinite(raw[y, x]):
                image[y, x] = raw[y, x]
                good[y, x] = 1.0
                n_good += 1
    flags = 0 if n_good > 0 else at.F_PIXELS
    if n_outlier > 0.0 and mask_outliers(image, good, n_outlier) > 0:
        flags |= at.F_OUTLIERS
    source = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            if bad[y, x] or (seg[y, x] != 0 and seg[y, x] != 1):
                good[y, x] = 0.0
            if good[y, x] == 0.0:
                image[y, x] = 0.0
            source[y, x] = seg[y, x] == 1 and good[y, x] > 0.0
    return image, good, source, flags


@leaf
def source_centroid(image: np.ndarray, source: np.ndarray, out: np.ndarray) -> tuple[float, float, bool, int]:
    """Flux, centroid and shape of the segment. Returns (x, y, whether they can be used, flag bits)."""
    ny, nx = image.shape
    if count_set(source) == 0:
        return 0.0, 0.0, False, at.F_SEGMENT
    flux, xc, yc = centroid(image, source)
    out[at.I_FLUX_SEG] = flux
    if not flux > 0.0:
        return xc, yc, False, at.F_FLUX
    flags = 0
    if yc < 0.0 or yc >= ny or xc < 0.0 or xc >= nx:
        xc, yc = nx / 2.0, ny / 2.0
        flags |= at.F_CENTROID_OUT
    if image[int(yc), int(xc)] == 0.0:
        flags |= at.F_CENTROID_MASKED
    out[at.I_XC], out[at.I_YC] = xc, yc
    e, elongation, theta, valid = shape_of(image, source, xc, yc)
    out[at.I_ELLIPTICITY_C], out[at.I_ELONGATION_C], out[at.I_ORIENTATION_C] = e, elongation, theta
    return xc, yc, True, flags | (0 if valid else at.F_MOMENT)


@kernel
def sky_terms(
    image: np.ndarray, seg: np.ndarray, bad: np.ndarray, fixed: np.ndarray, out: np.ndarray
) -> tuple[float, float, tuple[int, ...], int]:
    """(asymmetry per pixel, sigma, box (y, x, size), flag bits)."""
    if math.isfinite(fixed[0]):
        return 2.0 * fixed[0] / math.sqrt(math.pi), fixed[0], (0, 0, 0), 0
    taken = np.empty(image.shape, np.bool_)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            taken[y, x] = seg[y, x] != 0 or bad[y, x]
    y0, x0, size = sky.find_box(taken)
    if size == 0:
        return 0.0, 0.0, (0, 0, 0), at.F_NO_BOX
    mean, median, sigma, asymmetry = sky.box_statistics(sky.copy_box(image, y0, x0, size, size))
    out[at.I_SKY_MEAN], out[at.I_SKY_MEDIAN], out[at.I_SKY_SIGMA] = mean, median, sigma
    return asymmetry, sigma, (y0, x0, size), (at.F_SKY if abs(mean) > sigma else 0)
