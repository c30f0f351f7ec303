"""One batch, start to finish, in one process: cut, sample, measure. No Dask, and nothing is written here.

A source's result depends on the run's settings, its own pixels, the seed and its id; never on the batch it is
in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from galbatch.morphology import own_light
from galbatch.pipeline.colour import colours
from galbatch.pipeline.context import Clock, Context, Cut, Earlier, Piece
from galbatch.pipeline.hashes import draw_hashes, pixel_hashes
from galbatch.pipeline.light import contaminated, light_flags, second_sources, still_measured
from galbatch.pipeline.measurement import Table, empty_columns, grade, measure_band
from galbatch.pipeline.sampling import groups_of, sample_bisecting
from galbatch.store import MASK_EXCLUDED, MASK_NEIGHBOUR, STATUS, BatchResult, PlanBatch, StoreLayout
from galbatch.store.posterior import round_mantissa
from galbatch.types import BandStamps, Failure, Flag, Posterior, StampBatch


def process_batch(
    context: Context, rows: PlanBatch, exclude: dict[int, Failure] | None = None
) -> BatchResult:
    """Posterior and measurements of the sources of ``rows``.

    ``exclude``: failures by slot that are known beforehand; these sources are not touched. A source that
    cannot be processed becomes a failed row; nothing about a single source raises.
    """
    layout, exclude, clock = context.layout, exclude or {}, Clock()
    kept = np.array([n for n in range(len(rows)) if n not in exclude], dtype=np.int64)
    with context.reading, clock("cut"):
        pieces: list[Piece] = [(*piece, None) for piece in context.cut(rows.take(kept).columns)]
        taken: list[tuple[np.ndarray, BatchResult]] = []
        update: dict[str, int] = {}
        if context.reuse is not None:
            pieces, taken, update = context.reuse(rows.take(kept), pieces)
    parts = [
        (kept[places], _process(context, rows.take(kept[places]), stamps, clock, earlier))
        for places, stamps, earlier in pieces
    ]
    if len(parts) == 1 and not taken and not exclude and not layout.sides:
        return replace(parts[0][1], update=dict(update))
    parts += [(kept[places], part) for places, part in taken]
    return replace(_gather(layout, rows, parts, exclude, clock.seconds), update=dict(update))


def _process(
    context: Context, rows: PlanBatch, stamps: StampBatch, clock: Clock, earlier: Earlier | None
) -> BatchResult:
    """The result of sources whose stamps have one size, in arrays of that size. ``earlier``: what is known of
    them in some of the bands."""
    ids = rows.columns["source_id"]
    layout = replace(context.layout, stamp_pix=_side(stamps), sides=())
    failures = dict(stamps.failures)
    drawn = layout.samples or layout.regenerate or len(layout.bands) > 1  # what is not kept is needed here
    arrays = _empty_arrays(replace(layout, samples=drawn, regenerate=False), len(ids))
    columns = empty_columns(layout.bands, len(ids))
    flags = np.asarray(rows.columns["prescreen_flags"], np.int64) | stamps.flags
    _store_stamps(arrays, columns, stamps, layout)
    known = earlier.put_into(layout, arrays, columns) if earlier else set()
    counters = {"draws": 0, "evaluations": 0.0}  # of one band each
    for parts, members in groups_of(stamps, failures, flags, layout.joint, known):
        bands = [band for together in parts for band in together]
        with context.sampling, clock("sample"):
            posterior = sample_bisecting(context, stamps, parts, members, failures)
        for part, done in posterior:
            with clock("measure"):
                _store_posterior(context, arrays, columns, stamps, bands, done, part)
            images = part.samples.shape[1] * len(bands)
            counters["draws"] += images * len(done)
            counters["evaluations"] += float(np.sum(part.n_evaluations)) * images
    with clock("measure"):
        if len(layout.bands) > 1:
            table = context.calibration.get("color") if layout.joint else None
            drawn = round_mantissa(arrays["samples"])
            columns |= colours(columns, stamps.bands, drawn, layout.oversample, layout.joint, table)
    if layout.regenerate:
        arrays["draws_hash"] = draw_hashes(arrays["samples"])
    arrays = {name: values for name, values in arrays.items() if layout.kept(name)}
    return _finish(rows, layout, arrays, columns, flags, failures, clock.seconds, counters)


def pixels_of(cut: Cut, layout: StoreLayout, rows: PlanBatch) -> dict[str, np.ndarray]:
    """Arrays of ``layout`` with what is cut for the sources of ``rows``, and nothing drawn."""
    arrays = _empty_arrays(layout, len(rows))
    for places, stamps in cut(rows.columns):
        own = replace(layout, stamp_pix=_side(stamps), sides=())
        part = _empty_arrays(own, len(places))
        _store_stamps(part, empty_columns(layout.bands, len(places)), stamps, own)
        _put_arrays(layout, arrays, part, places)
    return arrays


def _side(stamps: StampBatch) -> int:
    """Side of stamps in detector pixels of the finest band."""
    return stamps.bands[0].data.shape[-1] * stamps.bands[0].ratio


def _empty_arrays(layout: StoreLayout, n: int) -> dict[str, np.ndarray]:
    sizes = layout.sizes()
    return {
        s.name: np.full((n, *s.shape(sizes)[1:]), s.fill, dtype=object if s.dtype == "str" else s.dtype)
        for s in layout.arrays().values()
        if s.name != "source_id"
    }


def _store_stamps(
    arrays: dict[str, np.ndarray], columns: Table, stamps: StampBatch, layout: StoreLayout
) -> None:
    arrays["pixels_hash"][:] = pixel_hashes(stamps)
    for n, band in enumerate(stamps.bands):
        r = band.ratio
        bits = np.where(band.mask, MASK_EXCLUDED, 0) | np.where(band.seg > 1, MASK_NEIGHBOUR, 0)
        arrays["observed"][:, n] = _wide(band.data, r) / r**2
        arrays["sigma"][:, n] = _wide(np.where(band.mask, np.inf, band.sigma), r) / r**2
        arrays["mask"][:, n] = _wide(bits, r)
        arrays["psf_id"][:, n] = band.psf_id.astype(str)
        arrays["wcs"][:, n] = band.wcs
        for stem, values in band.columns.items():
            columns[f"{stem}_{band.band}"] = np.asarray(values)
        if band.flags is not None:
            columns[f"flags_{band.band}"] |= band.flags
        empty = band.mask.all(axis=(1, 2))
        columns[f"flags_{band.band}"] |= np.where(empty, int(Flag.BAND_MISSING), 0)


def _wide(images: np.ndarray, ratio: int) -> np.ndarray:
    """Images (n, h, w) with each pixel replicated to ``ratio`` along both sides."""
    return images if ratio == 1 else images.repeat(ratio, axis=1).repeat(ratio, axis=2)


def _store_posterior(
    context: Context,
    arrays: dict[str, np.ndarray],
    columns: Table,
    stamps: StampBatch,
    bands: Sequence[int],
    done: np.ndarray,
    posterior: Posterior,
) -> None:
    """Put the posterior of the sources ``done`` into arrays and columns. Nothing is measured in a band that
    was drawn from the others."""
    flags = posterior.band_flags
    if flags is None:
        flags = np.repeat(np.asarray(posterior.flags, np.int64)[:, None], len(bands), axis=1)
    columns["n_draws_ok"][done] = np.minimum(columns["n_draws_ok"][done], posterior.n_draws_ok)
    columns["n_evaluations"][done] = np.maximum(columns["n_evaluations"][done], posterior.n_evaluations)
    for place, n in enumerate(bands):
        band = stamps.bands[n]
        for name in ("mean", "std", "prior_driven"):
            arrays[name][done, n] = getattr(posterior, name)[:, place]
        if "samples" in arrays:
            arrays["samples"][done, :, n] = posterior.samples[:, :, place]
        h, w = band.data.shape[1:]
        if "model" in posterior.info:
            model = posterior.info["model"][:, place, :h, :w]
            arrays["model"][done, n] = _wide(model, band.ratio) / band.ratio**2
        arrays["chi2"][done, n] = posterior.chi2[:, place]
        for name in ("chi2", "chi2_p", "prior_driven_frac"):
            columns[f"{name}_{band.band}"][done] = getattr(posterior, name)[:, place]
        columns[f"flags_{band.band}"][done] |= flags[:, place]
        seen = (flags[:, place] & Flag.PREDICTED) == 0
        if seen.any():
            if "model" in posterior.info:
                model = posterior.info["model"][seen, place, :h, :w]
                columns[f"flags_{band.band}"][done[seen]] |= light_flags(band, done[seen], model)
            wide = seen & (band.psf_error is not None)
            if "psf_in_error" in posterior.info:
                wide &= posterior.info["psf_in_error"][:, place]
            _measure(context, columns, band, done[seen], posterior.samples[seen, :, place], wide[seen])


def _measure(
    context: Context,
    columns: Table,
    band: BandStamps,
    done: np.ndarray,
    samples: np.ndarray,
    wide: np.ndarray,
) -> None:
    """Measure the draws (n, k, H, W) of the sources ``done`` in one band; ``wide`` (n,): those of PSFs of
    their own."""
    layout = context.layout
    fine = layout.oversample * band.ratio
    own = own_light(samples, band.seg[done], band.mask[done], fine)
    found = columns[f"flags_{band.band}"][done] | measure_band(
        columns,
        band,
        done,
        own,
        fine,
        context.prior.spec.target_fwhm_pix,
        context.measure_threads,
        layout.draw_columns,
        context.calibration or None,
        wide,
    )
    found = still_measured(found, columns[f"r_petro_raw50_{band.band}"][done], band)
    found |= contaminated(found, columns[f"neighbour_frac_{band.band}"][done], own)
    found |= second_sources(own, context.prior.spec.target_fwhm_pix)
    columns[f"flags_{band.band}"][done] = found


def _finish(
    rows: PlanBatch,
    layout: StoreLayout,
    arrays: dict[str, np.ndarray],
    columns: Table,
    flags: np.ndarray,
    failures: dict[int, Failure],
    seconds: dict[str, float],
    counters: dict[str, float],
) -> BatchResult:
    ids = rows.columns["source_id"]
    failed = np.zeros(len(ids), bool)
    text = {name: np.full(len(ids), "", object) for name in ("stage", "code", "message")}
    for number, failure in failures.items():
        failed[number] = True
        flags[number] |= int(Flag.__members__.get(failure.code, 0))
        for name, values in text.items():
            values[number] = str(getattr(failure, name))
    columns["n_draws_ok"][failed] = 0
    flags = grade(columns, layout.bands, flags, failed)
    good = np.where(columns["quality"] == 0, STATUS.index("ok"), STATUS.index("flagged"))
    code = np.where(failed, STATUS.index("failed"), good)
    arrays |= {"source_id": ids, "status": code.astype(np.uint8), "flags": flags}
    table = {"source_id": ids, **columns, "flags": flags, "status": np.array(STATUS, object)[code]}
    table |= {f"failure_{name}": values for name, values in text.items()}
    return BatchResult(rows.batch, arrays, table, seconds, counters)


def _gather(
    layout: StoreLayout,
    rows: PlanBatch,
    parts: list[tuple[np.ndarray, BatchResult]],
    exclude: dict[int, Failure],
    seconds: dict[str, float],
) -> BatchResult:
    """The results of some rows each of a batch, at their places in the whole batch; the others are failed
    rows."""
    n = len(rows)
    arrays, columns = _empty_arrays(layout, n), empty_columns(layout.bands, n)
    flags = np.asarray(rows.columns["prescreen_flags"], np.int64).copy()
    failures = dict(exclude)
    counters: dict[str, float] = {"draws": 0, "evaluations": 0.0}
    if layout.sides:
        arrays["stamp_pix"][:] = layout.sides[0]
        for name, empty in (("mask", MASK_EXCLUDED), ("sigma", np.inf)):
            if layout.kept(name):
                arrays[name][:] = empty
    for kept, part in parts:
        _put_arrays(layout, arrays, part.arrays, kept)
        for name, values in part.columns.items():
            if name not in (*columns, "source_id", "flags") and values.dtype.kind in "fi":
                empty = np.nan if values.dtype.kind == "f" else 0
                columns[name] = np.full((n, *values.shape[1:]), empty, values.dtype)
            if name in columns:
                columns[name][kept] = values
        for place in np.flatnonzero(part.columns["status"] == "failed"):
            text = (str(part.columns[f"failure_{k}"][place]) for k in ("stage", "code", "message"))
            failures[int(kept[place])] = Failure(part.columns["source_id"][place], *text)
        flags[kept] = part.columns["flags"]
        counters |= {name: counters.get(name, 0) + value for name, value in part.counters.items()}
    return _finish(rows, layout, arrays, columns, flags, failures, seconds, counters)


def _put_arrays(
    layout: StoreLayout, arrays: dict[str, np.ndarray], part: dict[str, np.ndarray], kept: np.ndarray
) -> None:
    """Put the arrays of a part, whose stamps may be smaller, at the places ``kept``, each stamp in the
    middle."""
    specs = layout.arrays()
    side = part["mean"].shape[-1] // layout.oversample
    for name, spec in specs.items():
        if name == "stamp_pix":
            arrays[name][kept] = side
        elif spec.is_image:
            inside = layout.place(side, spec)
            arrays[name][kept, ..., inside, inside] = part[name]
        elif name in arrays:
            arrays[name][kept] = part[name]
    shift = layout.place(side).start / np.array(layout.pixel_ratio or [1])
    arrays["wcs"][kept, :, :2] += shift[:, None]
