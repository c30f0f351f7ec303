"""Statistics of posterior draws, with what is fixed once per source, and the classical ones beside them.

A draw is a noise-free image at the target PSF. What depends on the noise of the observation is therefore not
measured on a draw but set once per source:

- the segment: the given one on the fine grid, or, where the source has none, made from the posterior mean;
  segments of neighbours are excluded as they are on the observed stamp;
- the detection limit behind r_max, r_half and shape asymmetry: the scatter of the observed sky per fine
  pixel;
- the noise for S/N per pixel and for the weights of the Sersic fit: the observed sigma per fine pixel;
- no sky is subtracted from asymmetry and smoothness, because a draw has no sky noise.

Percentiles, mean and standard deviation are over the draws in which a quantity could be measured, and NaN
where that is fewer than half of them. raw16, raw50 and raw84 are the draws' own percentiles; p16, p50 and p84
are widened for their number (``intervals``), which ``calibration`` replaces where it reaches. Position angles
are axial: they are unwrapped about their mean direction first, so that raw16 < raw50 < raw84 and raw84 may
exceed the usual range by up to pi/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from galbatch.columns import INTERVAL, Column, is_positive, statistics_of
from galbatch.errors import InputError
from galbatch.morphology.flags import severity
from galbatch.morphology.images import find_segments, measure
from galbatch.morphology.intervals import LEVEL, interval
from galbatch.morphology.plugins import all_quantities
from galbatch.morphology.sersic_psf import psf_on_grid

_POSITIONS = ("xc_centroid", "yc_centroid", "xc_asymmetry", "yc_asymmetry", "sersic_xc", "sersic_yc")


def measure_posterior(
    samples: np.ndarray,
    observed: np.ndarray,
    sigma: np.ndarray,
    mask: np.ndarray | None = None,
    seg: np.ndarray | None = None,
    psf: np.ndarray | None = None,
    pixel_scale_arcsec: float = 0.03,
    oversample: int = 1,
    target_fwhm_pix: float = 2.0,
    *,
    mean: np.ndarray | None = None,
    psf_scale_arcsec: float | None = None,
    groups: Sequence[str] | None = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(draws (b, k), obs (b,)): structured arrays as of ``measure``.

    ``samples`` (b, k, H, W) nJy per fine pixel; ``observed``, ``sigma`` (b, h, w) nJy per detector pixel;
    ``mask`` (b, h, w), True excludes; ``seg`` (b, h, w): 1 the source, larger its neighbours; ``psf`` (b, p,
    p), sampled at ``psf_scale_arcsec`` (the detector's where None), used in the Sersic fit of ``obs``;
    ``target_fwhm_pix`` of the Gaussian PSF of the draws, in fine pixels; ``mean`` (b, H, W), the posterior
    mean, else the mean of the draws. Radii are in arcsec; positions of both are in detector pixels.

    Raises ``InputError`` when shapes do not fit together.
    """
    samples, observed = np.asarray(samples), np.asarray(observed)
    b, k, shape = _check(samples, observed, sigma, oversample)
    mask = np.zeros(observed.shape, bool) if mask is None else np.asarray(mask, bool)
    noise = np.where(np.isfinite(sigma) & (np.asarray(sigma) > 0), sigma, np.nan).astype(np.float64)
    seg = np.zeros(observed.shape, np.int32) if seg is None else np.array(seg, np.int32)
    fine_seg = np.repeat(np.repeat(seg, oversample, axis=1), oversample, axis=2)
    _fill_segments(fine_seg, samples.mean(axis=1) if mean is None else mean, seg, oversample)
    choice: dict[str, Any] = {} if groups is None else {"groups": groups}
    if psf is not None:
        psf = psf_on_grid(
            np.asarray(psf, np.float64), psf_scale_arcsec or pixel_scale_arcsec, pixel_scale_arcsec
        )
    obs = measure(
        observed, pixel_scale_arcsec, segmap=seg, mask=mask, sigma=noise, psf=psf, threads=threads, **choice
    )
    sky = (
        np.nanmedian(np.where(np.isfinite(noise), noise, np.nan).reshape(b, -1), axis=1) if b else np.empty(0)
    )
    sky = np.where(np.isfinite(obs["sky_sigma"]) & (obs["sky_sigma"] > 0), obs["sky_sigma"], sky)
    area = oversample**2
    of = np.repeat(np.arange(b), k)
    fine_noise = np.repeat(np.repeat(_filled(noise), oversample, axis=1), oversample, axis=2) / area
    draws = measure(
        samples.reshape(b * k, *shape),
        pixel_scale_arcsec / oversample,
        segmap=fine_seg,
        sky_sigma=0.0,
        sigma=fine_noise,
        detection_threshold=np.repeat(sky / area, k),
        outlier_sigma=0.0,
        psf_fwhm_pix=target_fwhm_pix,
        threads=threads,
        map_of=of,
        **choice,
    )
    for name in _POSITIONS:
        draws[name] = (draws[name] + 0.5) / oversample - 0.5
    return draws.reshape(b, k), obs


def _check(
    samples: np.ndarray, observed: np.ndarray, sigma: np.ndarray, oversample: int
) -> tuple[int, int, tuple[int, int]]:
    if samples.ndim != 4 or observed.ndim != 3 or len(samples) != len(observed):
        raise InputError(
            f"measure_posterior: samples have shape {samples.shape}, observed {observed.shape}: "
            "they must be (b, k, H, W) and (b, h, w)."
        )
    if np.shape(sigma) != observed.shape:
        raise InputError(
            f"measure_posterior: sigma has shape {np.shape(sigma)}, observed {observed.shape}: "
            "give one sigma per pixel."
        )
    b, k, *shape = samples.shape
    if tuple(shape) != tuple(oversample * n for n in observed.shape[1:]):
        raise InputError(
            f"measure_posterior: draws of shape {tuple(shape)} are not {oversample} x the observed "
            f"stamps {observed.shape[1:]}: check oversample."
        )
    return b, k, tuple(shape)


def _fill_segments(fine_seg: np.ndarray, mean: np.ndarray, seg: np.ndarray, oversample: int) -> None:
    """Where a source has no segment, take one from the posterior mean, on both grids, outside its
    neighbours."""
    empty = np.flatnonzero(~(seg == 1).any(axis=(1, 2)))
    if not empty.size:
        return
    found = find_segments(np.asarray(mean)[empty], fine_seg[empty] > 1)
    for i, b in enumerate(empty):
        fine_seg[b][found[i] == 1] = 1
        seg[b][found[i][oversample // 2 :: oversample, oversample // 2 :: oversample] == 1] = 1


def _filled(noise: np.ndarray) -> np.ndarray:
    """Noise (b, h, w) with the unknown pixels set to the median of their stamp: draws exist there too."""
    out = noise.copy()
    for stamp in out:
        known = np.isfinite(stamp)
        stamp[~known] = np.median(stamp[known]) if known.any() else np.nan
    return out


_PERCENTILES = {"raw16": LEVEL, "raw50": 0.5, "raw84": 1 - LEVEL}


def summarise(draws: np.ndarray, obs: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Columns from ``draws`` (b, k) and ``obs`` (b,), structured arrays as of ``measure``.

    Returns column stem -> (b,): ``{quantity}_{statistic}``, those of ``galbatch.columns``, the shares of
    draws that meet a criterion, ``n_draws_measured`` and flag bits."""
    columns: dict[str, np.ndarray] = {}
    kinds: dict[tuple[bool, bool], dict[str, Column]] = {}
    for name, about in all_quantities().items():
        if about.summary != "observed":
            kinds.setdefault((about.summary == "angle", is_positive(about)), {})[name] = about
        if obs is not None:
            columns[f"{name}_obs"] = np.array(obs[name])
    for (angle, positive), quantities in kinds.items():
        columns |= _statistics(draws, quantities, angle, positive)
    columns.update(class_probabilities(draws))
    measured = severity(draws["flags"]) < 4
    columns["n_draws_measured"] = measured.sum(axis=1).astype(np.int32)
    columns["morph_flags"] = _common_bits(draws["flags"])
    if obs is not None:
        columns["morph_flags_obs"] = np.array(obs["flags"])
    return columns


def class_probabilities(draws: np.ndarray) -> dict[str, np.ndarray]:
    """name -> (b,) share of the draws in which the criterion could be judged that meet it."""
    a, s = draws["asymmetry"], draws["smoothness"]
    criteria = {
        "p_merger": (draws["gini_m20_merger"], draws["gini_m20_merger"] > 0),
        "p_bulge": (draws["gini_m20_bulge"], draws["gini_m20_bulge"] > 0),
        "p_asymmetric": (a + s, (a > 0.35) & (a > s)),
        "p_disturbed_outskirts": (draws["shape_asymmetry"], draws["shape_asymmetry"] > 0.2),
        "p_multimodal": (draws["multimode"], draws["multimode"] > 0.1),
        "p_disc": (draws["sersic_n"], draws["sersic_n"] < 2.5),
    }
    out = {}
    for name, (value, met) in criteria.items():
        judged = np.isfinite(value)
        n = judged.sum(axis=1)
        share = (met & judged).sum(axis=1) / np.maximum(n, 1)
        out[name] = np.where(2 * n >= max(value.shape[1], 1), share, np.nan)
    return out


def _statistics(
    draws: np.ndarray, quantities: dict[str, Column], angle: bool, positive: bool
) -> dict[str, np.ndarray]:
    """Columns ``{name}_{statistic}`` (b,) of quantities of one kind in draws (b, k), all at once: of a
    few draws a call costs more than its numbers. What is ``obs`` is not of draws."""
    b, k = draws.shape
    values = np.concatenate([draws[name] for name in quantities])
    enough = 2 * np.isfinite(values).sum(axis=1) >= max(k, 1)
    kept = (_unwrap(values) if angle else values)[enough]
    found = {name: _percentile(kept, q) for name, q in _PERCENTILES.items()}
    found |= {"mean": np.nanmean(kept, axis=1), "std": np.nanstd(kept, axis=1)}
    found |= zip(INTERVAL, interval(kept, positive=positive), strict=True)
    whole = {statistic: np.full(len(values), np.nan) for statistic in found}
    for statistic, column in whole.items():
        column[enough] = found[statistic]
    return {
        f"{name}_{statistic}": whole[statistic][number * b : (number + 1) * b]
        for number, (name, about) in enumerate(quantities.items())
        for statistic in statistics_of(about)
        if statistic != "obs"
    }


def _percentile(values: np.ndarray, level: float) -> np.ndarray:
    """(b,) as ``np.nanpercentile`` of (b, k), which takes a row at a time, has it."""
    ordered = np.sort(values, axis=1)  # NaNs last
    place = level * (np.isfinite(ordered).sum(axis=1, keepdims=True) - 1)
    low = np.floor(place).astype(int)
    one, other = (np.take_along_axis(ordered, i, axis=1) for i in (low, np.ceil(place).astype(int)))
    return (one + (place - low) * (other - one))[:, 0]


def _unwrap(angles: np.ndarray) -> np.ndarray:
    """Angles (b, k) modulo pi, moved within pi/2 of their axial mean."""
    finite = np.isfinite(angles)
    vector = np.where(finite, np.exp(2j * np.where(finite, angles, 0.0)), 0.0).sum(axis=1)
    mean = 0.5 * np.angle(vector)[:, None]
    return mean + np.mod(angles - mean + np.pi / 2, np.pi) - np.pi / 2


def _common_bits(flags: np.ndarray) -> np.ndarray:
    k = flags.shape[1]
    bits = np.arange(63, dtype=np.int64)
    often = ((flags[..., None] >> bits) & 1).sum(axis=1) * 2 >= max(k, 1)
    return (often * (np.int64(1) << bits)).sum(axis=1)


def compile_kernels() -> None:
    """Compile all that ``measure`` and ``measure_posterior`` run, or load it from the cache of this
    installation.

    Some 40 s of one core the first time on a machine, a second afterwards. Processes that start at once wait
    for the first of them. May be called from a thread: most of it runs without holding up what others compute
    on GPUs, but on the CPU it takes a core.
    """
    side = 24
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    image = np.exp(-np.hypot(y, x) / 3.0)[None]
    psf = np.exp(-(y[:9, :9] ** 2 + x[:9, :9] ** 2) / 4.0)[None]
    measure_posterior(image[:, None], image, np.full(image.shape, 0.05), psf=psf, threads=1)
