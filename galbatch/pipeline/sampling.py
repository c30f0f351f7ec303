"""Draws of the sources of a batch: which are sampled together, and how one that breaks the sampler, or a lack
of memory, is kept from costing the others theirs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from galbatch.interfaces import Denoiser
from galbatch.pipeline.colour import to_scene
from galbatch.pipeline.context import Context
from galbatch.sampler import sample_posterior, sources_at_once
from galbatch.types import PSF_ERROR_PARTS, BandStamps, Failure, Flag, Observation, Posterior, StampBatch

Parts = tuple[tuple[int, ...], ...]  # bands that are sampled together, those of one detector grid each
TURNED, SAME_PIX = 2e-3, 0.01  # terms of a map between grids, and pixels, that count as none


def groups_of(
    stamps: StampBatch,
    failures: dict[int, Failure],
    flags: np.ndarray,
    joint: bool = False,
    known: Collection[int] = (),
) -> list[tuple[Parts, np.ndarray]]:
    """(bands, sources) that can be sampled in one call: bands on one detector grid, sources that have just
    these; with ``joint`` all bands of a source, but those whose pixels are turned against the finest band's.
    ``known``: bands that have been drawn.

    Sources without a usable pixel are added to ``failures``, those without a band flagged."""
    usable = np.array([np.any(~b.mask, axis=(1, 2)) for b in stamps.bands]).T  # (source, band)
    for number in range(len(usable)):
        if number not in failures and not usable[number].any():
            failures[number] = Failure(
                stamps.source_id[number], "cut", "ALL_MASKED", "no usable pixel in any band"
            )
    flags[~usable.all(axis=1)] |= int(Flag.BAND_MISSING)
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for n, band in enumerate(stamps.bands):
        if n in known:
            continue
        acf = None if band.noise_acf is None else band.noise_acf.shape
        scales = (band.ratio, band.pixel_scale_arcsec, band.psf_scale_arcsec)
        kinds.setdefault((band.data.shape, band.psf.shape, acf, *scales), []).append(n)
    patterns: dict[Parts, list[int]] = {}
    for number in range(len(usable)):
        if number in failures:
            continue
        together = parallel(stamps, number) & joint
        parts = tuple(tuple(b for b in bands if together[b]) for bands in kinds.values())
        alone = [tuple(b for b in bands if usable[number, b] and not together[b]) for bands in kinds.values()]
        for pattern in (tuple(p for p in parts if p), *((p,) for p in alone if p)):
            if pattern:
                patterns.setdefault(pattern, []).append(number)
    return [(pattern, np.array(members)) for pattern, members in patterns.items()]


def parallel(stamps: StampBatch, number: int) -> np.ndarray:
    """(c,) bands of a source whose pixels lie along those of the finest; none where that is the only one."""
    found = np.array(
        [np.abs(to_scene(b, number)[:, :2] - b.ratio * np.eye(2)).max() < TURNED for b in stamps.bands]
    )
    return found & (found.sum() > 1)


def sample_bisecting(
    context: Context,
    stamps: StampBatch,
    bands: Parts,
    members: np.ndarray,
    failures: dict[int, Failure],
) -> Any:
    """Sample; when it raises, halve until the sources that cause it are alone, and fail only these."""
    try:
        return [(_sample(context, stamps, bands, members), members)]
    except MemoryError as err:
        message, memory = str(err), True
    except Exception as err:
        message, memory = f"{type(err).__name__}: {err}", _out_of_memory(err)
        code = type(err).__name__
    if memory and _halve(context, len(members)):  # after the except block: its traceback holds the tensors
        context.counters["out_of_memory"] = context.counters.get("out_of_memory", 0) + 1
        return sample_bisecting(context, stamps, bands, members, failures)
    if len(members) == 1:
        source = stamps.source_id[members[0]]
        failures[int(members[0])] = Failure(
            source, "sample", "OUT_OF_MEMORY" if memory else code, message[:500]
        )
        return []
    half = len(members) // 2
    return [
        done
        for part in (members[:half], members[half:])
        for done in sample_bisecting(context, stamps, bands, part, failures)
    ]


def _out_of_memory(err: Exception) -> bool:
    return type(err).__name__ == "OutOfMemoryError" or "out of memory" in str(err).lower()


def _halve(context: Context, n: int) -> bool:
    """Sample fewer sources at once from now on; False when it is one already."""
    now = min(context.at_once or sources_at_once(context.prior.spec.device, context.layout.draws), n)
    _empty_device_cache(context.prior)
    if now <= 1:
        return False
    context.at_once = now // 2
    return True


def _empty_device_cache(prior: Denoiser) -> None:
    if str(prior.spec.device).startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def _sample(context: Context, stamps: StampBatch, parts: Parts, members: np.ndarray) -> Posterior:
    chosen = [stamps.bands[b] for bands in parts for b in bands]
    wavelengths = context.layout.wavelength_um
    joint = bool(wavelengths) and len(chosen) > 1
    finest = min(b.ratio for b in chosen)
    observations = [_observation(stamps, bands, members, joint) for bands in parts]
    return sample_posterior(
        context.prior,
        observations if len(parts) > 1 else observations[0],
        draws=context.layout.draws,
        mode=context.mode,
        oversample=context.layout.oversample * finest,
        seed=context.seed,
        source_ids=stamps.source_id[members].tolist(),
        batch=context.at_once,
        bands=[b.band for b in chosen],
        joint=joint,
        wavelengths=[wavelengths[b] for bands in parts for b in bands] if joint else None,
    )


def _observation(stamps: StampBatch, bands: Sequence[int], members: np.ndarray, joint: bool) -> Observation:
    chosen = [stamps.bands[b] for b in bands]
    obs = observation_of(chosen, members)
    if not joint:
        return obs
    reference = next(b for b in stamps.bands if b.ratio == 1)
    shift = np.stack([[_shift(b, reference, i) for b in chosen] for i in members])
    psf = obs.psf.copy()
    middle = psf.shape[-1] // 2  # a band without pixels may have no PSF either
    psf[..., middle, middle] += psf.sum((-1, -2)) <= 0
    return replace(obs, psf=psf, shift_pix=shift if shift.any() else None)


def _shift(band: BandStamps, reference: BandStamps, i: int) -> np.ndarray:
    """(2,) how far the stamp of source ``i`` begins from that of the reference, along y and x in its
    pixels."""
    corners = [to_scene(b, i) @ np.array([-0.5, -0.5, 1.0]) for b in (band, reference)]
    apart = (corners[0] - corners[1])[::-1] / band.ratio
    return np.where(np.abs(apart) < SAME_PIX, 0.0, apart)


def observation_of(bands: Sequence[BandStamps], members: np.ndarray) -> Observation:
    """What the sampler is given of the sources ``members`` in bands on one detector grid."""

    def take(name: str) -> np.ndarray:
        return np.stack([getattr(b, name)[members] for b in bands], axis=1)

    acfs = [b.noise_acf for b in bands if b.noise_acf is not None]
    return Observation(
        take("data"),
        take("sigma"),
        take("psf"),
        take("mask"),
        bands[0].pixel_scale_arcsec,
        bands[0].psf_scale_arcsec,
        np.stack(acfs) if acfs else None,
        _white(bands, members),
        _psf_error(bands),
        neighbour=_neighbour(bands, members),
    )


def _white(bands: Sequence[BandStamps], members: np.ndarray) -> np.ndarray | None:
    """``sigma_white`` (b, c, h, w) of a group of bands, zero for those without; None where none has one."""
    if all(b.sigma_white is None for b in bands):
        return None
    nothing = np.zeros_like(bands[0].sigma)
    return np.stack([(nothing if b.sigma_white is None else b.sigma_white)[members] for b in bands], axis=1)


def _neighbour(bands: Sequence[BandStamps], members: np.ndarray) -> np.ndarray | None:
    """(b, c, h, w) pixels of neighbours that are fitted; None where none is."""
    found = np.stack([(b.seg > 1) & ~b.mask for b in bands], axis=1)[members]
    return found if found.any() else None


def _psf_error(bands: Sequence[BandStamps]) -> np.ndarray | None:
    """(c, 5): zero for a band whose PSF is exact; None where all are."""
    if all(b.psf_error is None for b in bands):
        return None
    exact = np.zeros(len(PSF_ERROR_PARTS), np.float32)
    return np.stack([exact if b.psf_error is None else b.psf_error for b in bands])
