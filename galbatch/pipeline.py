"""One batch, start to finish, in one process: cut, sample, measure. No Dask, and nothing is written here.

A source's result depends on the run's settings, its own pixels, the seed and its id; never on the batch it is
in.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from galbatch.measurement import Table, empty_columns, measure_band
from galbatch.sampler import sample_posterior
from galbatch.store import MASK_EXCLUDED, MASK_NEIGHBOUR, STATUS, BatchResult, PlanBatch, StoreLayout
from galbatch.types import Failure, Flag, Observation, Posterior, StampBatch


@dataclass
class Context:
    """What a process needs for every batch, made once: survey, prior, layout of the store and sampling
    settings.

    ``cut(columns) -> StampBatch`` cuts the stamps of plan rows. ``at_once``: sources sampled together (None:
    the sampler's choice); it is halved when memory runs out, and stays so. ``measure_threads``: threads for
    the statistics of a batch. Several threads may work on batches of one context: stamps are cut and draws
    are made by one at a time, so that one thread reads ahead and another measures and writes while the device
    is at work.
    """

    cut: Callable[[dict[str, np.ndarray]], StampBatch]
    prior: Any
    layout: StoreLayout
    mode: str = "default"
    seed: int = 0
    at_once: int | None = None
    measure_threads: int = 1
    reading: threading.Lock = field(default_factory=threading.Lock)
    sampling: threading.Lock = field(default_factory=threading.Lock)
    counters: dict[str, float] = field(default_factory=dict)


class Clock:
    """Seconds by stage."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str):
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def process_batch(
    context: Context, rows: PlanBatch, exclude: dict[int, Failure] | None = None
) -> BatchResult:
    """Posterior and measurements of the sources of ``rows``.

    ``exclude``: failures by slot that are known beforehand; these sources are not touched. A source that
    cannot be processed becomes a failed row; nothing about a single source raises.
    """
    if exclude:
        kept = np.array([n for n in range(len(rows)) if n not in exclude], dtype=np.int64)
        return _spread(context.layout, rows, kept, process_batch(context, rows.take(kept)), exclude)
    clock = Clock()
    ids = rows.columns["source_id"]
    with context.reading, clock("cut"):
        stamps = context.cut(rows.columns)
    failures = dict(stamps.failures)
    arrays = _empty_arrays(context.layout, len(ids))
    columns = empty_columns(context.layout.bands, len(ids))
    flags = np.asarray(rows.columns["prescreen_flags"], np.int64) | stamps.flags
    _store_stamps(arrays, columns, stamps, context.layout)
    counters = {"draws": 0, "evaluations": 0.0}  # of one band each
    for bands, members in _groups(stamps, failures, flags):
        with context.sampling, clock("sample"):
            posterior = _sample_bisecting(context, stamps, bands, members, failures)
        for part, done in posterior:
            with clock("measure"):
                flags[done] |= _store_posterior(context, arrays, columns, stamps, bands, done, part)
            images = part.samples.shape[1] * len(bands)
            counters["draws"] += images * len(done)
            counters["evaluations"] += float(np.sum(part.n_evaluations)) * images
    return _finish(rows, arrays, columns, flags, failures, clock.seconds, counters)


def _groups(stamps: StampBatch, failures: dict[int, Failure], flags: np.ndarray) -> list[tuple]:
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
    groups, kinds = [], {}
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


def _sample_bisecting(context: Context, stamps: StampBatch, bands, members, failures):
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
        return _sample_bisecting(context, stamps, bands, members, failures)
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
        for done in _sample_bisecting(context, stamps, bands, part, failures)
    ]


def _out_of_memory(err: Exception) -> bool:
    return type(err).__name__ == "OutOfMemoryError" or "out of memory" in str(err).lower()


def _halve(context: Context, n: int) -> bool:
    """Sample fewer sources at once from now on; False when it is one already."""
    now = min(context.at_once or n, n)
    _empty_device_cache(context.prior)
    if now <= 1:
        return False
    context.at_once = now // 2
    return True


def _empty_device_cache(prior) -> None:
    if str(getattr(prior, "device", "cpu")).startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def _sample(context: Context, stamps: StampBatch, bands, members: np.ndarray) -> Posterior:
    chosen = [stamps.bands[b] for b in bands]
    first = chosen[0]
    take = lambda name: np.stack([getattr(b, name)[members] for b in chosen], axis=1)  # noqa: E731
    acf = None if first.noise_acf is None else np.stack([b.noise_acf for b in chosen])
    obs = Observation(
        take("data"),
        take("sigma"),
        take("psf"),
        take("mask"),
        first.pixel_scale_arcsec,
        first.psf_scale_arcsec,
        acf,
        _white(chosen, members),
    )
    return sample_posterior(
        context.prior,
        obs,
        draws=context.layout.draws,
        mode=context.mode,
        oversample=context.layout.oversample * first.ratio,
        seed=_seed_of(context, first.band),
        source_ids=[_plain(i) for i in stamps.source_id[members]],
        batch=context.at_once,
    )


def _white(bands, members) -> np.ndarray | None:
    """``sigma_white`` (b, c, h, w) of a group of bands, zero for those without; None where none has one."""
    if all(b.sigma_white is None for b in bands):
        return None
    nothing = np.zeros_like(bands[0].sigma)
    return np.stack([(nothing if b.sigma_white is None else b.sigma_white)[members] for b in bands], axis=1)


def _seed_of(context: Context, band: str) -> int:
    """The run's seed for the first band; another stream for a group of bands that is sampled by itself."""
    if band == context.layout.bands[0]:
        return context.seed
    digest = hashlib.blake2b(f"{context.seed}:{band}".encode(), digest_size=5).digest()
    return int.from_bytes(digest, "big")


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _empty_arrays(layout: StoreLayout, n: int) -> dict[str, np.ndarray]:
    sizes = layout.sizes()
    return {
        s.name: np.full((n, *s.shape(sizes)[1:]), s.fill, dtype=object if s.dtype == "str" else s.dtype)
        for s in layout.arrays().values()
        if s.name != "source_id"
    }


def _store_stamps(arrays, columns: Table, stamps: StampBatch, layout: StoreLayout) -> None:
    for n, band in enumerate(stamps.bands):
        r = band.ratio
        wide = lambda a, r=r: a if r == 1 else a.repeat(r, axis=1).repeat(r, axis=2)  # noqa: E731
        arrays["observed"][:, n] = wide(band.data) / r**2
        arrays["sigma"][:, n] = wide(np.where(band.mask, np.inf, band.sigma)) / r**2
        arrays["mask"][:, n] = wide(
            np.where(band.mask, MASK_EXCLUDED, 0) | np.where(band.seg > 1, MASK_NEIGHBOUR, 0)
        )
        arrays["psf_id"][:, n] = band.psf_id.astype(str)
        arrays["wcs"][:, n] = band.wcs
        for stem, values in band.columns.items():
            columns[f"{stem}_{band.band}"] = np.asarray(values)


def _store_posterior(
    context: Context,
    arrays,
    columns: Table,
    stamps: StampBatch,
    bands,
    done: np.ndarray,
    posterior: Posterior,
) -> np.ndarray:
    """Put the posterior of the sources ``done`` into arrays and columns; returns their new flags (n,)."""
    flags = np.array(posterior.flags, dtype=np.int64)
    columns["n_draws_ok"][done] = np.minimum(columns["n_draws_ok"][done], posterior.n_draws_ok)
    columns["n_evaluations"][done] += posterior.n_evaluations
    for place, n in enumerate(bands):
        band = stamps.bands[n]
        for name in ("mean", "std", "prior_driven"):
            arrays[name][done, n] = getattr(posterior, name)[:, place]
        if "samples" in arrays:
            arrays["samples"][done, :, n] = posterior.samples[:, :, place]
        if "model" in posterior.info:
            model, r = posterior.info["model"][:, place], band.ratio
            arrays["model"][done, n] = model.repeat(r, axis=1).repeat(r, axis=2) / r**2
        arrays["chi2"][done, n] = posterior.chi2[:, place]
        for name in ("chi2", "chi2_p", "prior_driven_frac"):
            columns[f"{name}_{band.band}"][done] = getattr(posterior, name)[:, place]
        flags |= measure_band(
            columns,
            band,
            done,
            posterior.samples[:, :, place],
            context.layout.oversample * band.ratio,
            posterior.target_fwhm_pix,
            context.measure_threads,
            context.layout.draw_columns,
            getattr(context.prior, "calibration", {}).get(context.mode),
        )
    return flags


def _finish(rows: PlanBatch, arrays, columns: Table, flags, failures, seconds, counters) -> BatchResult:
    ids = rows.columns["source_id"]
    failed = np.zeros(len(ids), bool)
    text = {name: np.full(len(ids), "", object) for name in ("stage", "code", "message")}
    for number, failure in failures.items():
        failed[number] = True
        flags[number] |= int(Flag.__members__.get(failure.code, 0))
        for name, values in text.items():
            values[number] = str(getattr(failure, name))
    columns["n_draws_ok"][failed] = 0
    code = np.where(
        failed, STATUS.index("failed"), np.where(flags != 0, STATUS.index("flagged"), STATUS.index("ok"))
    )
    arrays |= {"source_id": ids, "status": code.astype(np.uint8), "flags": flags}
    table = {"source_id": ids, **columns, "flags": flags, "status": np.array(STATUS, object)[code]}
    table |= {f"failure_{name}": values for name, values in text.items()}
    return BatchResult(rows.batch, arrays, table, seconds, counters)


def _spread(
    layout: StoreLayout, rows: PlanBatch, kept: np.ndarray, part: BatchResult, exclude: dict[int, Failure]
) -> BatchResult:
    """The result of some rows of a batch, at their places in the whole batch; the others are failed rows."""
    n = len(rows)
    arrays, columns = _empty_arrays(layout, n), empty_columns(layout.bands, n)
    columns |= {
        k: np.full((n, *v.shape[1:]), np.nan, v.dtype) for k, v in part.columns.items() if v.dtype.kind == "f"
    }
    names = [k for k in part.columns if k in columns]
    for target, source, keys in ((arrays, part.arrays, list(arrays)), (columns, part.columns, names)):
        for key in keys:
            target[key][kept] = source[key]
    failures = dict(exclude)
    for place, slot in enumerate(kept):
        if part.columns["status"][place] == "failed":
            text = (str(part.columns[f"failure_{k}"][place]) for k in ("stage", "code", "message"))
            failures[int(slot)] = Failure(rows.columns["source_id"][slot], *text)
    flags = np.asarray(rows.columns["prescreen_flags"], np.int64).copy()
    flags[kept] = part.columns["flags"]
    return _finish(rows, arrays, columns, flags, failures, part.seconds, part.counters)
