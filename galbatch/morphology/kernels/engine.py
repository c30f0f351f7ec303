"""All statistics of one image, in the order in which they depend on each other, and the loop over a batch.

Everything here is in pixels and in the unit of the image; ``measure`` turns it into the units of
``QUANTITIES``. ``out`` is the row of a result in that order. ``fixed`` holds (sky sigma for the noise terms,
surface brightness of the detection mask); NaN means: measure it on this image. ``GROUPS`` are bits of what to
compute.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from galbatch.morphology.kernels import columns as at
from galbatch.morphology.kernels import sersic
from galbatch.morphology.kernels.apertures import new_room, outline_of, running_sums
from galbatch.morphology.kernels.asymmetry import reversed_pair
from galbatch.morphology.kernels.filters import as_double
from galbatch.morphology.kernels.jit import entry, kernel
from galbatch.morphology.kernels.moments import shape_of
from galbatch.morphology.kernels.prepare import prepare, sky_terms, source_centroid
from galbatch.morphology.kernels.profile import detection, half_light, petrosian_radius, radii
from galbatch.morphology.kernels.segments import detect
from galbatch.morphology.kernels.stages import (
    asymmetries,
    asymmetry_centre,
    clumpiness,
    gini_group,
    mid_group,
)

if TYPE_CHECKING:
    import numpy as np


@kernel(inline="always")
def measure_image(
    raw: np.ndarray,
    seg: np.ndarray,
    bad: np.ndarray,
    sigma: np.ndarray,
    fixed: np.ndarray,
    centre: np.ndarray,
    n_outlier: float,
    psf_sigma: float,
    groups: int,
    out: np.ndarray,
) -> int:
    """Fill ``out`` (NaN on entry) for one image; returns the flag bits."""
    ny, nx = raw.shape
    image, good, source, flags = prepare(raw, seg, bad, n_outlier)
    if flags & at.F_PIXELS:
        return flags
    xc, yc, found, more = source_centroid(image, source, out)
    flags |= more
    if not found:
        return flags
    sky_asymmetry, sky_sigma, box, more = sky_terms(image, seg, bad, fixed, out)
    flags |= more
    tables, room = (image, running_sums(image), good, running_sums(good)), new_room(ny, nx)
    diagonal = math.hypot(nx, ny)
    r_first, petro = petrosian_radius((tables, outline_of(xc, yc, 1.0, 0.0), room), diagonal, source)
    pair = reversed_pair(image, good)
    x, y, more = centre[0], centre[1], 0
    if not (0.0 <= x < nx and 0.0 <= y < ny):
        problem = (pair, 1.5 * r_first, sky_asymmetry, room)
        x, y, more = asymmetry_centre(problem, source, xc, yc, 0.25 * r_first)
    flags |= petro | more
    out[at.I_XA], out[at.I_YA] = x, y
    out[at.I_ELLIPTICITY], elongation, theta, valid = shape_of(image, source, x, y)
    out[at.I_ELONGATION], out[at.I_ORIENTATION] = elongation, theta
    flags |= 0 if valid else at.F_MOMENT

    circle = (tables, outline_of(x, y, 1.0, 0.0), room)
    ellipse = (tables, outline_of(x, y, elongation, theta), room)
    r, a, more = radii(circle, ellipse, diagonal, source, out)
    flags |= more
    if 1.5 * r > min(min(x, nx - 1 - x), min(y, ny - 1 - y)) + 0.5:
        flags |= at.F_CUT
    region, r_max, a_max, more = detection(circle, ellipse, source, a, box, fixed[1], out)
    flags |= more
    a_half, more = half_light(circle, ellipse, r_max, a_max, out)
    flags |= more

    if groups & (at.GINI | at.MID):
        outline = outline_of(xc, yc, elongation, theta)
        gini_region, more = gini_group(image, good, sigma, outline, a, room, out)
        flags |= more
        if groups & at.MID:
            flags |= mid_group(image, source, gini_region, out)
    if groups & at.CAS:
        flags |= clumpiness(circle, r, box, sky_sigma, out)
    sky, sizes = (sky_asymmetry, sky_sigma), (1.5 * r_first, a_half, a_max, r_max)
    flags |= asymmetries(pair, circle, ellipse, sky, groups, sizes, region, out)
    if groups & at.SERSIC:
        start = (x, y, a_half, out[at.I_ELLIPTICITY], theta, out[at.I_C])
        flags |= sersic.fit(image, good, sigma, psf_sigma, *start, out[at.I_SERSIC : at.I_SERSIC_LAST + 1])
    return flags


@entry
def measure_range(
    images: np.ndarray,
    seg: np.ndarray,
    seg_of: np.ndarray,
    bad: np.ndarray,
    bad_of: np.ndarray,
    sigma: np.ndarray,
    sigma_of: np.ndarray,
    fixed: np.ndarray,
    centre: np.ndarray,
    n_outlier: float,
    psf_sigma: float,
    groups: int,
    find: int,
    first: int,
    last: int,
    out: np.ndarray,
    flags: np.ndarray,
) -> None:
    """Measure images ``first`` to ``last - 1``; ``*_of`` (n,) give the row of the maps that belongs to an
    image.

    ``find``: 0 use ``seg``, 1 make it from the image first (``seg_of`` must not repeat), 2 make it and do no
    more.
    """
    for i in range(first, last):
        raw = as_double(images[i])
        if find > 0:
            detect(raw, bad[bad_of[i]], seg[seg_of[i]])
        if find < 2:
            flags[i] = measure_image(
                raw,
                seg[seg_of[i]],
                bad[bad_of[i]],
                sigma[sigma_of[i]],
                fixed[i],
                centre[i],
                n_outlier,
                psf_sigma,
                groups,
                out[i],
            )
