"""Statistics of a batch of images: the public face of the kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from galbatch.columns import QUANTITIES
from galbatch.errors import InputError
from galbatch.morphology.flags import MorphFlag
from galbatch.morphology.kernels import columns as at
from galbatch.morphology.kernels.columns import GROUPS
from galbatch.morphology.plugins import StatisticInput, evaluate, installed_statistics
from galbatch.quantity import plain, same_kind

RESULT_DTYPE = np.dtype([(name, np.float64) for name in QUANTITIES] + [("flags", np.int64)])
OUTLIER_SIGMA = 10.0  # Lotz et al. (2004)


def measure(
    images: np.ndarray,
    pixel_scale_arcsec: float,
    segmap: np.ndarray | None = None,
    sky_sigma: float | None = None,
    centre: np.ndarray | tuple[float, float] | None = None,
    mask: np.ndarray | None = None,
    *,
    sigma: np.ndarray | None = None,
    detection_threshold: np.ndarray | None = None,
    outlier_sigma: float = OUTLIER_SIGMA,
    psf_fwhm_pix: float = 0.0,
    psf: np.ndarray | None = None,
    groups: Iterable[str] = tuple(GROUPS),
    threads: int | None = None,
    map_of: np.ndarray | None = None,
) -> np.ndarray:
    """Morphology of images, one row per image.

    Definitions: Lotz et al. (2004), Rodriguez-Gomez et al. (2019), as in statmorph 0.7. Inputs are never
    changed; pixels are taken in single precision.

    Parameters
    ----------
    images : array (n, H, W)
        Flux in nJy per pixel; an astropy quantity is converted.
    pixel_scale_arcsec : float or Quantity
        Side of a pixel.
    segmap : array (H, W) or (n, H, W), optional
        1 or True the source, 0 sky, larger the neighbours (excluded); made from each image where None.
    sky_sigma : float or array (n,), optional
        White noise of the sky whose part in asymmetry and smoothness is taken off (0: none, for noise-free
        images); measured in an empty box of the image where None, as is the classical way.
    centre : array (2,) or (n, 2), optional
        x, y to be taken as the asymmetry centre instead of searching it.
    mask : array of bool, optional
        True excludes; shape of ``segmap``.
    sigma : array, optional
        Noise per pixel, for S/N and the weights of the Sersic fit; shape of ``segmap``.
    detection_threshold : float or array (n,), optional
        Surface brightness of the mask behind r_max and shape asymmetry; ``sky_sigma`` or, without it, one
        sigma above the sky of the image where None.
    outlier_sigma : float
        Single-pixel outliers beyond it are masked, 0 keeps them.
    psf_fwhm_pix : float
        FWHM of the Gaussian PSF of the Sersic model.
    psf : array (p, p) or (n, p, p), optional
        PSF of the Sersic model, as sampled as the images, centred; instead of ``psf_fwhm_pix``.
    groups : iterable of str
        What to compute beside positions, fluxes and radii.
    threads : int, optional
        At most the number of CPUs; results do not depend on it.
    map_of : array (n,), optional
        Row of segmap, mask and sigma that belongs to an image, where several images share them.

    Returns
    -------
    structured array (n,)
        The fields of ``QUANTITIES`` (radii in arcsec, positions in pixels from 0 at the centre of the first)
        and ``flags`` (``MorphFlag``); NaN where not measurable.

    Raises
    ------
    InputError
        Shapes, units or settings cannot be used. A bad image never raises.

    Examples
    --------
    >>> import numpy as np
    >>> import galbatch
    >>> y, x = np.mgrid[:64, :64] - 31.5
    >>> image = 10 * np.exp(-np.hypot(x, y) / 4)
    >>> stats = galbatch.measure(image[None], pixel_scale_arcsec=0.03, sky_sigma=0.0)
    >>> round(float(stats["r_half"][0]), 2), round(float(stats["asymmetry"][0]), 2)
    (0.2, 0.0)
    """
    from galbatch.morphology.kernels.engine import measure_range

    same_kind(
        "measure", images=images, sky_sigma=sky_sigma, sigma=sigma, detection_threshold=detection_threshold
    )
    pixel_scale_arcsec = plain(pixel_scale_arcsec, "arcsec", "measure: pixel_scale_arcsec")
    fluxes = {"sky_sigma": sky_sigma, "sigma": sigma, "detection_threshold": detection_threshold}
    sky_sigma, sigma, detection_threshold = (
        plain(value, "nJy", f"measure: {name}", pixel_scale_arcsec) for name, value in fluxes.items()
    )
    images = _images(plain(images, "nJy", "measure: images", pixel_scale_arcsec))
    n, shape = len(images), images.shape[1:]
    if not pixel_scale_arcsec > 0:
        raise InputError(
            f"measure: pixel_scale_arcsec is {pixel_scale_arcsec}: give the positive size of a pixel."
        )
    map_of = None if map_of is None else _owned(map_of, np.int64)
    bad, bad_of = _maps("mask", mask, n, shape, np.bool_, False, map_of)
    noise, noise_of = _maps("sigma", sigma, n, shape, np.float64, np.nan, map_of)
    find = segmap is None
    segmap = np.zeros(images.shape, np.int32) if find else segmap
    seg, seg_of = _maps("segmap", segmap, n, shape, np.int32, 0, None if find else map_of)
    sky = _per_image("sky_sigma", sky_sigma, n)
    above = sky if detection_threshold is None else _per_image("detection_threshold", detection_threshold, n)
    fixed, centres = np.stack([sky, above], axis=1), _centres(centre, n)
    out, flags = np.full((n, len(QUANTITIES)), np.nan), np.zeros(n, dtype=np.int64)
    maps = (seg, seg_of, bad, bad_of, noise, noise_of)
    psf_sigma = float(psf_fwhm_pix) / 2.3548200450309493
    settings = (float(outlier_sigma), psf_sigma, _group_bits(groups), int(find))
    _run(lambda *part: measure_range(images, *maps, fixed, centres, *settings, *part, out, flags), n, threads)
    if psf is not None and "sersic" in groups:
        _refit(out, flags, images, maps, psf, map_of)
    _beyond_stamp(out, flags, shape)
    result = _result(out, flags, pixel_scale_arcsec)
    return _with_plugins(result, images, maps, pixel_scale_arcsec)


def _images(images: np.ndarray) -> np.ndarray:
    images = images.detach().cpu().numpy() if hasattr(images, "detach") else np.asarray(images)
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise InputError(f"measure: images have shape {images.shape}: they must be (n, H, W).")
    with np.errstate(over="ignore"):
        return _owned(images, np.float32)


def _owned(array: np.ndarray, dtype: type) -> np.ndarray:
    """``array`` in C order and writeable, copied only where it is not: kernels are compiled for one kind of
    array."""
    return np.require(array, dtype=dtype, requirements=["C", "W"])


def _maps(
    name: str,
    value: np.ndarray | None,
    n: int,
    shape: tuple[int, int],
    dtype: type,
    fill: bool | float,
    map_of: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """((m, H, W) array, (n,) row of it for each image)."""
    if value is None:
        return np.full((1, *shape), fill, dtype=dtype), np.zeros(n, dtype=np.int64)
    value = _owned(value, dtype)
    if value.shape == shape:
        return value[None], np.zeros(n, dtype=np.int64)
    fits = len(value) == n if map_of is None else len(value) > map_of.max(initial=-1)
    if value.ndim != 3 or value.shape[1:] != shape or not fits:
        raise InputError(
            f"measure: {name} has shape {value.shape}, the images {(n, *shape)}: "
            f"give one map of shape {shape} for all, or one per image."
        )
    return value, np.arange(n) if map_of is None else map_of


def _centres(centre: np.ndarray | tuple[float, float] | None, n: int) -> np.ndarray:
    """(n, 2), NaN where the centre is to be searched."""
    centres = np.full((n, 2), np.nan)
    if centre is not None:
        try:
            centres[:] = np.asarray(centre, dtype=np.float64)
        except ValueError as error:
            raise InputError(
                f"measure: centre has shape {np.shape(centre)} for {n} images: "
                "give (x, y) or one pair per image."
            ) from error
    return centres


def _per_image(name: str, value: float | np.ndarray | None, n: int) -> np.ndarray:
    if value is None:
        return np.full(n, np.nan)
    value = np.asarray(value, dtype=np.float64)
    if value.shape not in ((), (n,)):
        raise InputError(
            f"measure: {name} has shape {value.shape} for {n} images: give a number or one per image."
        )
    return np.broadcast_to(value, (n,))


def _group_bits(groups: Iterable[str]) -> int:
    unknown = set(groups) - set(GROUPS)
    if unknown:
        raise InputError(f"measure: unknown group {sorted(unknown)}: choose from {sorted(GROUPS)}.")
    return sum(GROUPS[name] for name in set(groups))


def find_segments(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(n, H, W) int32: 1 on what stands out of the sky around the middle of each of ``images`` (n, H, W).

    ``mask`` (n, H, W), True excludes. Empty where an image has no finite pixel.
    """
    from galbatch.morphology.kernels.engine import measure_range

    images = _images(images)
    n = len(images)
    seg, own, zero = np.zeros(images.shape, np.int32), np.arange(n), np.zeros(n, np.int64)
    maps = (seg, own, _owned(mask, np.bool_), own, np.zeros((1, *images.shape[1:])), zero)
    fixed, out = np.zeros((n, 2)), np.zeros((n, len(QUANTITIES)))
    measure_range(images, *maps, fixed, fixed, 0.0, 0.0, 0, 2, 0, n, out, zero)
    return seg


def _refit(
    out: np.ndarray,
    flags: np.ndarray,
    images: np.ndarray,
    maps: tuple[np.ndarray, ...],
    psf: np.ndarray,
    map_of: np.ndarray | None,
) -> None:
    from galbatch.morphology.sersic_psf import refit

    psf = np.asarray(psf, dtype=np.float64)
    if psf.ndim not in (2, 3) or psf.shape[-1] != psf.shape[-2]:
        raise InputError(f"measure: psf has shape {psf.shape}: it must be (p, p) or (n, p, p).")
    if psf.ndim == 2:
        psf = np.broadcast_to(psf, (len(images), *psf.shape))
    elif map_of is not None:
        psf = psf[map_of]
    refit(out[:, at.I_SERSIC : at.I_SERSIC_LAST + 1], flags, images, maps, psf)


def _run(work: Callable[..., Any], n: int, threads: int | None) -> None:
    """Call ``work(first, last)`` over pieces of ``range(n)``; the kernels hold no lock, so threads run at
    once."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, min(threads or cpus, cpus, n))
    if threads == 1 or n < 2 * threads:
        return work(0, n)
    edges = np.linspace(0, n, 4 * threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, a, b) for a, b in pairwise(edges)]:
            done.result()
    return None


def _beyond_stamp(out: np.ndarray, flags: np.ndarray, shape: tuple[int, int]) -> None:
    """A Petrosian radius that was reached only because the annulus ran off the stamp is none."""
    x, y = out[:, at.I_XA], out[:, at.I_YA]
    corner = np.hypot(np.maximum(x, shape[1] - 1 - x) + 0.5, np.maximum(y, shape[0] - 1 - y) + 0.5)
    beyond = out[:, at.I_R_PETRO] > corner - 1.5
    out[beyond, at.I_R_PETRO] = out[beyond, at.I_R_PETRO_ELLIP] = np.nan
    flags[beyond] |= int(MorphFlag.PETRO_LARGE)


def _with_plugins(
    result: np.ndarray, images: np.ndarray, maps: tuple[np.ndarray, ...], pixel_scale_arcsec: float
) -> np.ndarray:
    statistics = installed_statistics()
    if not statistics:
        return result
    seg, seg_of, bad, bad_of, noise, noise_of = maps
    views = [v.view() for v in (images, seg[seg_of], bad[bad_of], noise[noise_of])]
    for v in views:
        v.flags.writeable = False
    images, segmap, mask, sigma = views
    inputs = StatisticInput(images, segmap, mask, sigma, pixel_scale_arcsec, result.copy())
    fields = [d for d in result.dtype.descr if d[0] != "flags"] + [(s.name, np.float64) for s in statistics]
    wide = np.empty(len(result), dtype=[*fields, ("flags", np.int64)])
    for name in result.dtype.names or ():
        wide[name] = result[name]
    for statistic in statistics:
        wide[statistic.name] = evaluate(statistic, inputs)
    return wide


def _result(out: np.ndarray, flags: np.ndarray, pixel_scale_arcsec: float) -> np.ndarray:
    result = np.empty(len(out), dtype=RESULT_DTYPE)
    for i, (name, quantity) in enumerate(QUANTITIES.items()):
        factor = {"arcsec": pixel_scale_arcsec, "nJy arcsec-2": pixel_scale_arcsec**-2}.get(
            quantity.unit, 1.0
        )
        result[name] = out[:, i] * factor
    result["flags"] = flags
    return result
