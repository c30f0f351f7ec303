"""Statistics of a batch of images: the public face of the kernels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from galbatch.errors import InputError
from galbatch.morphology.quantities import GROUPS, QUANTITIES

RESULT_DTYPE = np.dtype([(name, np.float64) for name in QUANTITIES] + [("flags", np.int64)])
OUTLIER_SIGMA = 10.0  # Lotz et al. (2004)


def measure(images, pixel_scale_arcsec: float, segmap=None, sky_sigma=None, centre=None, mask=None, *,
            sigma=None, detection_threshold=None, outlier_sigma: float = OUTLIER_SIGMA,
            psf_fwhm_pix: float = 0.0, groups: Iterable[str] = tuple(GROUPS), threads: int | None = None,
            map_of=None) -> np.ndarray:
    """Morphology of ``images`` (n, H, W), nJy per pixel, one row an image.

    ``segmap`` (H, W) or (n, H, W): 1 or True the source, 0 sky, larger the neighbours (excluded); made from
    each image where None. ``mask``, True excludes; ``sigma``, noise per pixel, for S/N and the Sersic fit's weights:
    same shapes. ``sky_sigma``, scalar or (n,): white noise of the sky whose part in asymmetry and smoothness is
    taken off (0: none, for noise-free images); measured in an empty box of the image where None, as is the classical
    way. ``detection_threshold``, scalar or (n,): surface brightness of the mask behind r_max and shape asymmetry;
    ``sky_sigma`` or, without it, one sigma above the sky of the image where None. ``centre``, (2,) or (n, 2): x, y
    to be taken as the asymmetry centre instead of searching it. ``outlier_sigma``: single-pixel outliers beyond
    it are masked, 0 keeps them. ``psf_fwhm_pix``: Gaussian PSF of the Sersic model. ``groups``: what to compute
    beside positions, fluxes and radii. ``map_of`` (n,): row of segmap, mask and sigma that belongs to an image, where
    several images share them. ``threads``: at most the number of CPUs; results do not depend on it.

    Returns a structured array (n,) with the fields of ``QUANTITIES`` (radii in arcsec, positions in pixels from 0 at
    the centre of the first) and ``flags`` (``MorphFlag``); NaN where not measurable. Definitions: Lotz et al.
    (2004), Rodriguez-Gomez et al. (2019), as in statmorph 0.7. Inputs are never changed.

    Raises ``InputError`` when shapes or settings cannot be used; a bad image never raises.
    """
    from galbatch.morphology.engine import N_QUANTITIES, measure_range

    images = _images(images)
    n, shape = len(images), images.shape[1:]
    if not pixel_scale_arcsec > 0:
        raise InputError(f"measure: pixel_scale_arcsec is {pixel_scale_arcsec}: give the positive size of a pixel.")
    map_of = None if map_of is None else np.asarray(map_of, dtype=np.int64)
    bad, bad_of = _maps("mask", mask, n, shape, np.bool_, False, map_of)
    noise, noise_of = _maps("sigma", sigma, n, shape, np.float64, np.nan, map_of)
    if segmap is None:
        segmap, seg_map_of = _segments(images, bad, bad_of), np.arange(n)
    else:
        seg_map_of = map_of
    seg, seg_of = _maps("segmap", segmap, n, shape, np.int32, 0, seg_map_of)
    fixed = np.empty((n, 2))
    fixed[:, 0] = _per_image("sky_sigma", sky_sigma, n)
    fixed[:, 1] = fixed[:, 0] if detection_threshold is None else _per_image(
        "detection_threshold", detection_threshold, n)
    centres = np.full((n, 2), np.nan)
    if centre is not None:
        try:
            centres[:] = np.asarray(centre, dtype=np.float64)
        except ValueError as error:
            raise InputError(f"measure: centre has shape {np.shape(centre)} for {n} images: "
                             "give (x, y) or one pair an image.") from error
    out, flags = np.full((n, N_QUANTITIES), np.nan), np.zeros(n, dtype=np.int64)
    arguments = (images, seg, seg_of, bad, bad_of, noise, noise_of, fixed, centres, float(outlier_sigma),
                 float(psf_fwhm_pix) / 2.3548200450309493, _group_bits(groups))
    _run(lambda first, last: measure_range(*arguments, first, last, out, flags), n, threads)
    return _result(out, flags, pixel_scale_arcsec)


def _images(images) -> np.ndarray:
    images = images.detach().cpu().numpy() if hasattr(images, "detach") else np.asarray(images)
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise InputError(f"measure: images have shape {images.shape}: they must be (n, H, W).")
    dtype = np.float64 if images.dtype.kind in "iub" or images.dtype.itemsize > 4 else np.float32
    return np.ascontiguousarray(images, dtype=dtype)


def _maps(name, value, n, shape, dtype, fill, map_of):
    """((m, H, W) array, (n,) row of it for each image)."""
    if value is None:
        return np.full((1, *shape), fill, dtype=dtype), np.zeros(n, dtype=np.int64)
    value = np.ascontiguousarray(value, dtype=dtype)
    if value.shape == shape:
        return value[None], np.zeros(n, dtype=np.int64)
    rows = n if map_of is None else int(map_of.max(initial=-1)) + 1
    if value.ndim != 3 or value.shape[1:] != shape or len(value) < rows:
        raise InputError(f"measure: {name} has shape {value.shape}, the images {(n, *shape)}: "
                         f"give one map of shape {shape} for all, or one an image.")
    return value, np.arange(n) if map_of is None else map_of


def _per_image(name, value, n):
    if value is None:
        return np.full(n, np.nan)
    value = np.asarray(value, dtype=np.float64)
    if value.shape not in ((), (n,)):
        raise InputError(f"measure: {name} has shape {value.shape} for {n} images: give a number or one an image.")
    return np.broadcast_to(value, (n,))


def _group_bits(groups) -> int:
    unknown = set(groups) - set(GROUPS)
    if unknown:
        raise InputError(f"measure: unknown group {sorted(unknown)}: choose from {sorted(GROUPS)}.")
    return sum(GROUPS[name] for name in set(groups))


def _segments(images, bad, bad_of):
    from galbatch.morphology.detect import detect_range

    seg = np.zeros(images.shape, dtype=np.int32)
    detect_range(images, bad, bad_of, seg)
    return seg


def _run(work, n, threads):
    """Call ``work(first, last)`` over pieces of ``range(n)``; the kernels hold no lock, so threads run at once."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, min(threads or cpus, cpus, n))
    if threads == 1 or n < 2 * threads:
        return work(0, n)
    edges = np.linspace(0, n, 4 * threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]:
            done.result()
    return None


def _result(out, flags, pixel_scale_arcsec):
    result = np.empty(len(out), dtype=RESULT_DTYPE)
    for i, (name, quantity) in enumerate(QUANTITIES.items()):
        factor = {"arcsec": pixel_scale_arcsec, "nJy arcsec-2": pixel_scale_arcsec**-2}.get(quantity.unit, 1.0)
        result[name] = out[:, i] * factor
    result["flags"] = flags
    return result
