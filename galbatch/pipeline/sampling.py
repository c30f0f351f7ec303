"""Draws of the sources of a batch: which are sampled together, and how one that breaks the sampler, or a lack
of memory, is kept from costing the others theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from galbatch.interfaces import Denoiser
from galbatch.pipeline.context import Context
from galbatch.sampler import sample_posterior, sources_at_once
from galbatch.types import PSF_ERROR_PARTS, BandStamps, Failure, Flag, Observation, Posterior, StampBatch


def groups_of(stamps: StampBatch, failures: dict[int, Failure], flags: np.ndarray) -> list[tuple]:
    """(bands, sources) that can be sampled in one call: bands on one detector grid, sources that have just
    these.

    Sources without a usable pixel are added to ``failures``, those without a band flagged."""
    usable = np.array([np.any(~b.mask, axis=(1, 2)) for b in stamps.bands]).T  # (source, band)
    for number in range(len(usable)):
        if number not in failures and not usable[number].any():
            failures[number] = Failure(
                stamps.source_id[number], "cut", "ALL_MASKED", "no usable pixel in any band"
            )
    flags[~usable.all(axis=1)] |= int(Flag.BAND_MISSING)
    groups: list[tuple[tuple[int, ...], np.ndarray]] = []
    kinds: dict[tuple, list[int]] = {}
    for n, band in enumerate(stamps.bands):
        acf = None if band.noise_acf is None else band.noise_acf.shape
        key = (
            band.data.shape,
            band.ratio,
            band.pixel_scale_arcsec,
            band.psf.shape,
            band.psf_scale_arcsec,
            acf,
        )
        kinds.setdefault(key, []).append(n)
    for bands in kinds.values():
        patterns: dict[tuple[int, ...], list[int]] = {}
        for number in range(len(usable)):
            if number not in failures:
                patterns.setdefault(tuple(b for b in bands if usable[number, b]), []).append(number)
        groups += [(pattern, np.array(members)) for pattern, members in patterns.items() if pattern]
    return groups


def sample_bisecting(
    context: Context,
    stamps: StampBatch,
    bands: Sequence[int],
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


def _sample(context: Context, stamps: StampBatch, bands: Sequence[int], members: np.ndarray) -> Posterior:
    chosen = [stamps.bands[b] for b in bands]
    return sample_posterior(
        context.prior,
        observation_of(chosen, members),
        draws=context.layout.draws,
        mode=context.mode,
        oversample=context.layout.oversample * chosen[0].ratio,
        seed=context.seed,
        source_ids=[_plain(i) for i in stamps.source_id[members]],
        batch=context.at_once,
        bands=[b.band for b in chosen],
    )


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


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
