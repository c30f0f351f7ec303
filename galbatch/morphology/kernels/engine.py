"""All statistics of one image, in the order in which they depend on each other, and the loop over a batch.

Everything here is in pixels and in the unit of the image; ``measure`` turns it into the units of
``QUANTITIES``. ``out`` is the row of a result in that order. ``fixed`` holds (sky sigma for the noise terms,
surface brightness of the detection mask); NaN means: measure it on this image. ``GROUPS`` are bits of what to
compute.
"""

from __future__ import annotations

import math

from galbatch.morphology.kernels import asymmetry as asym
from galbatch.morphology.kernels import profile, sersic, sky
from galbatch.morphology.kernels.detect import detect
from galbatch.morphology.kernels.jit import entry, kernel
from galbatch.morphology.kernels.moments import centroid, shape_of
from galbatch.morphology.kernels.segments import count_set
from galbatch.morphology.kernels.smoothness import smoothness
from galbatch.morphology.kernels.stages import (
    CAS,
    F_CENTROID_MASKED,
    F_CENTROID_OUT,
    F_CUT,
    F_FLUX,
    F_MOMENT,
    F_PIXELS,
    F_SEGMENT,
    F_SMOOTHNESS,
    GINI,
    I_C,
    I_FLUX_SEG,
    I_S,
    I_SERSIC,
    I_XA,
    I_XC,
    MID,
    SERSIC,
    any_masked,
    as_double,
    asymmetries,
    asymmetry_centre,
    detection,
    gini_group,
    half_light,
    mid_group,
    petro_flags,
    prepare,
    radii,
    sky_terms,
)


@kernel(inline="always")
def measure_image(raw, seg, bad, sigma, fixed, centre, n_outlier, psf_sigma, groups, out):
    """Fill ``out`` (NaN on entry) for one image; returns the flag bits."""
    ny, nx = raw.shape
    image, good, source, flags = prepare(raw, seg, bad, n_outlier)
    if flags & F_PIXELS:
        return flags
    if count_set(source) == 0:
        return flags | F_SEGMENT
    flux, xc, yc = centroid(image, source)
    out[I_FLUX_SEG] = flux
    if not flux > 0.0:
        return flags | F_FLUX
    if yc < 0.0 or yc >= ny or xc < 0.0 or xc >= nx:
        xc, yc = nx / 2.0, ny / 2.0
        flags |= F_CENTROID_OUT
    if image[int(yc), int(xc)] == 0.0:
        flags |= F_CENTROID_MASKED
    out[I_XC], out[I_XC + 1] = xc, yc
    out[I_XC + 2], out[I_XC + 3], out[I_XC + 4], valid = shape_of(image, source, xc, yc)
    flags |= 0 if valid else F_MOMENT

    sky_asymmetry, sky_sigma, box, _known, more = sky_terms(image, seg, bad, fixed, out)
    flags |= more
    diagonal = math.hypot(nx, ny)
    rings, rings_shape = profile.build_rings(image, good, xc, yc, 1.0, 0.0)
    r_first, status = profile.petrosian_radius(rings, rings_shape, diagonal)
    flags |= petro_flags(status)
    turned, good_turned = asym.reversed_padded(image, 0.0), asym.reversed_padded(good, 1.0)
    x, y = centre[0], centre[1]
    if not (0.0 <= x < nx and 0.0 <= y < ny):
        x, y, more = asymmetry_centre(image, turned, good, good_turned, any_masked(good), source, xc, yc,
                                       r_first, sky_asymmetry)
        flags |= more
    out[I_XA], out[I_XA + 1] = x, y
    out[I_XA + 2], elongation, theta, valid = shape_of(image, source, x, y)
    out[I_XA + 3], out[I_XA + 4] = elongation, theta
    flags |= 0 if valid else F_MOMENT

    rings, rings_shape = profile.build_rings(image, good, x, y, 1.0, 0.0)
    ellipses, ellipses_shape = profile.build_rings(image, good, x, y, elongation, theta)
    r, a, more = radii(rings, rings_shape, ellipses, ellipses_shape, diagonal, out)
    flags |= more
    if 1.5 * r > min(min(x, nx - 1 - x), min(y, ny - 1 - y)) + 0.5:
        flags |= F_CUT
    region, r_max, a_max, more = detection(image, good, source, x, y, a, elongation, theta, box, fixed[1],
                                           out)
    flags |= more
    _r_half, a_half, more = half_light(rings, rings_shape, ellipses, ellipses_shape, r_max, a_max, out)
    flags |= more

    if groups & (GINI | MID):
        gini_region, more = gini_group(image, good, sigma, xc, yc, a, elongation, theta, out)
        flags |= more
        if groups & MID:
            flags |= mid_group(image, source, gini_region, out)
    if groups & CAS:
        size = int(0.25 * r)
        if box[2] > 0:
            y0, x0, n = box
            level = sky.box_smoothness(sky.copy_box(image, y0, x0, n, n), size)
        else:
            level = sky.white_noise_smoothness(sky_sigma, size)
        out[I_S] = smoothness(image, x, y, r, level)
        flags |= 0 if math.isfinite(out[I_S]) else F_SMOOTHNESS
    flags |= asymmetries(image, turned, good, good_turned, x, y, 1.5 * r_first, a_half, a_max, r_max,
                          elongation, theta, region, sky_asymmetry, sky_sigma, groups, out)
    if groups & SERSIC:
        flags |= sersic.fit(image, good, sigma, psf_sigma, x, y, a_half, out[I_XA + 2], theta, out[I_C],
                            out[I_SERSIC:I_SERSIC + sersic.N_RESULTS])
    return flags


@entry
def measure_range(images, seg, seg_of, bad, bad_of, sigma, sigma_of, fixed, centre, n_outlier, psf_sigma,
                  groups,
                  find, first, last, out, flags):
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
            flags[i] = measure_image(raw, seg[seg_of[i]], bad[bad_of[i]], sigma[sigma_of[i]], fixed[i],
                                     centre[i],
                                     n_outlier, psf_sigma, groups, out[i])
