"""A ``RunSummary`` from a run folder: everything that the page shows, thumbnails included; also from what and
with what the run was made, in words: PSFs, noise as found, floors of the error."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.display import first_few
from galbatch.errors import RunError
from galbatch.flags import FLAGS, Level, quality_of
from galbatch.report.colour import picture_of_mean
from galbatch.report.page import STATUSES, STEMS, Reason, RunSummary
from galbatch.report.read import RunReader
from galbatch.report.small import MAX_NUMBERS, MAX_STRIPS, StripPlan, encode_strip, plan_strips
from galbatch.store import Run, read_failures, read_summary
from galbatch.store.selection import grade_counts, quality_column


def provenance(reader: RunReader) -> tuple[tuple[str, dict[str, str]], ...]:
    """(what, text by band) of images, PSFs and noise; empty texts where a run does not say."""
    from galbatch.cutouts.noise.measure import lag_one

    run = reader.run
    resolved = run.manifest.get("config", {}).get("survey_resolved", {})
    tiles = {band["name"]: band["tiles"] for band in resolved.get("bands", ())}
    noise = {band: list(run.manifest.get("measured", {}).get(band, {}).values()) for band in run.bands}
    rows = {
        "images": {band: _files(tiles.get(band, ()), "sci") for band in run.bands},
        "PSF": {band: _files(tiles.get(band, ()), "psf") for band in run.bands},
        "FWHM of the PSF": {band: _width(reader, band) for band in run.bands},
        "noise against its map": {
            band: _span(noise[band], "err_scale", "{:.2f}", " times") for band in run.bands
        },
        "correlation of neighbouring pixels": {
            band: _span([{"r": lag_one(n["noise_acf"])} for n in noise[band]], "r", "{:.2f}")
            for band in run.bands
        },
        "blank sky used": {
            band: _span(noise[band], "blank_frac", "{:.0%}", " of the image") for band in run.bands
        },
        "error floor (median)": {band: _floor(reader, band) for band in run.bands},
    }
    return tuple((what, by_band) for what, by_band in rows.items() if any(by_band.values()))


def _files(tiles: Any, role: str) -> str:
    return first_few(list(dict.fromkeys(Path(t[role]["path"]).name for t in tiles if t.get(role))), 1)


def _span(found: list[dict[str, Any]], key: str, form: str, of: str = "") -> str:
    """A value ``of`` something, or the range of the tiles'."""
    values = [float(f[key]) for f in found if f.get(key) is not None and np.isfinite(f[key])]
    ends = [form.format(x) for x in (min(values), max(values))] if values else [""]
    one = not values or ends[0] == ends[-1]
    return ends[0] + of * bool(values) if one else f"{ends[0]} to {ends[-1]}{of} ({len(values)} tiles)"


def _width(reader: RunReader, band: str) -> str:
    """FWHM at the first source whose files are still there."""
    from galbatch.cutouts.psf.check import fwhm_pix

    for source_id in reader.columns["source_id"][:1].tolist():
        stamp, _ = reader.stamp(source_id, band)
        if stamp is not None and np.isfinite(stamp.psf[0]).all():
            scale = stamp.psf_scale_arcsec or stamp.pixel_scale_arcsec
            return f'{fwhm_pix(stamp.psf[0]) * scale:.3f}"'
    return ""


def _floor(reader: RunReader, band: str) -> str:
    values = reader.column(f"error_floor_{band}")
    values = np.array([]) if values is None else np.asarray(values, float)
    values = values[np.isfinite(values)]
    return f"{np.median(values):.1%} of the light" if values.size else ""


MAX_FAILURES = 100
COVERED = ("flux_njy", "r_half", "gini", "m20", "concentration", "asymmetry")


def gather(run: Run, on_source: Callable[[], None] | None = None) -> RunSummary:
    """Everything the page of a finished run shows. ``on_source`` is called after each source's thumbnails.

    Raises ``RunError`` when the run is not finished.
    """
    reader = RunReader(run)
    if not reader.columns:
        run.catalog  # noqa: B018  raises, and says how to finish the run
    n = len(reader.columns["source_id"])
    rows, note = _choose(n, MAX_NUMBERS // len(run.bands), "Plots, table and gallery show")
    pictured, picture_note = _choose(len(rows), max(1, MAX_STRIPS // len(run.bands)), "Pictures are of")
    columns = {name: values[rows] for name, values in reader.columns.items()}
    plan = plan_strips(len(pictured) * len(run.bands))
    plan = replace(plan, coloured=len(run.bands) > 2)
    wanted = [f"{stem}_{band}" for band in run.bands for stem in STEMS]
    facts, rates, stages = _about(run)
    status = np.asarray(reader.columns["status"]).astype(str)
    return RunSummary(
        title=run.paths.root.name,
        bands=run.bands,
        source_id=columns["source_id"],
        ra=np.asarray(columns["ra"], float),
        dec=np.asarray(columns["dec"], float),
        status=np.array(columns["status"], dtype=str),
        flags=np.asarray(columns["flags"], dtype=np.int64),
        quality=quality_column(columns),
        columns={name: v[rows] for name in wanted if (v := reader.column(name)) is not None}
        | {f"quality_{band}": quality_column(columns, band) for band in run.bands},
        counts={"sources": n} | {s: int(np.sum(status == s)) for s in STATUSES},
        stages=stages,
        facts=facts,
        rates=rates,
        failures=_failures(run),
        panels=plan.titles,
        strips=_strips(reader, columns["source_id"], pictured, plan, on_source),
        note=" ".join(filter(None, (note, picture_note))),
        calibration=_calibration(reader),
        grades=grade_counts(reader.columns, run.bands),
        reasons=reasons(np.asarray(reader.columns["flags"], dtype=np.int64)),
        warnings=tuple(map(str, run.manifest.get("warnings", ()))),
        provenance=provenance(reader),
    )


def _choose(n: int, most: int, what: str) -> tuple[np.ndarray, str]:
    """Rows shown: all, or of too many a fixed random choice; and what to say about it."""
    if n <= most:
        return np.arange(n), ""
    rows = np.sort(np.random.default_rng(0).choice(n, most, replace=False))
    return rows, f"{what} {most:,} sources chosen at random out of {n:,}."


def reasons(flags: np.ndarray) -> tuple[Reason, ...]:
    """Flags that occur among (n,) words of flags, the gravest and most frequent first."""
    quality = quality_of(flags)
    found = []
    for flag, about in FLAGS.items():
        has = flags & int(flag) != 0
        if has.any():
            graver = has & (quality == about.level) & (quality_of(flags & ~int(flag)) < about.level)
            alone = int(np.sum(graver)) if about.level > Level.INFO else 0
            found.append(
                Reason(str(flag.name), int(about.level), about.meaning, about.remedy, int(has.sum()), alone)
            )
    return tuple(sorted(found, key=lambda r: (-r.level, -r.sources)))


def _about(run: Run) -> tuple[tuple, tuple, dict[str, float]]:
    """(facts, rates, seconds by stage) from manifest and summary."""
    manifest, summary = run.manifest, read_summary(run.paths)
    config, model = manifest.get("config", {}), manifest.get("model", {})
    created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(manifest.get("created", 0)))
    facts = (
        ("catalogue", Path(config.get("catalog", "")).name),
        ("survey", Path(config.get("survey") or Path(config.get("catalog", "")).with_suffix(".toml")).name),
        ("mode", f"{config.get('mode')}, {config.get('draws')} draws, seed {config.get('seed')}"),
        ("model", f"{model.get('name', '')} {model.get('sha256', '')[:12]}".strip()),
        ("galbatch", manifest.get("versions", {}).get("galbatch", "")),
        ("started", created),
        ("network's precision", str(config.get("precision", ""))),
        ("command", shlex.join(["galbatch", *map(str, manifest.get("argv", [])[1:])])),
    )
    elapsed = float(summary.get("elapsed_s") or 0)
    fresh = summary.get("planned", 0) - summary.get("resumed_from", 0)
    rates: tuple[tuple[str, str], ...] = ()
    if elapsed > 0 and fresh > 0:
        rates = (
            ("run time", _duration(elapsed)),
            ("sources per second", f"{fresh / elapsed:.3g}"),
            ("draws per second", f"{summary.get('draws_per_s', 0):.3g}"),
        )
        if summary.get("draws"):
            rates += (
                ("network evaluations per draw", f"{summary.get('evaluations', 0) / summary['draws']:.1f}"),
            )
    return facts, rates, {k: float(v) for k, v in summary.get("stage_seconds", {}).items()}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    )


def _failures(run: Run) -> tuple[dict[str, str], ...]:
    if not run.paths.failures.exists():
        return ()
    keys = ("source_id", "stage", "code", "message")
    return tuple({key: str(row[key]) for key in keys} for row in read_failures(run.paths, MAX_FAILURES))


def _strips(
    reader: RunReader,
    source_ids: np.ndarray,
    pictured: np.ndarray,
    plan: StripPlan,
    on_source: Callable[[], None] | None,
) -> dict[str, list[str | None]]:
    """Pictures of the sources at ``pictured``, None for the others and for those that failed."""
    bands = reader.run.bands
    strips: dict[str, list[str | None]] = {band: [None] * len(source_ids) for band in bands}
    wanted = source_ids[pictured].tolist()
    reader.run.locate(wanted)
    for row, source_id in zip(pictured.tolist(), wanted, strict=True):
        colour = picture_of_mean(reader.run, source_id) if plan.coloured else None
        for band in bands:
            with suppress(RunError):  # failed, or nothing usable in this band: its card has no picture
                view = reader.view(source_id, band, draws=plan.draws, lean=True)
                strips[band][row] = encode_strip(view, plan, colour)
        if on_source is not None:
            on_source()
    return strips


def _calibration(reader: RunReader) -> tuple[tuple[str, str, int, int], ...]:
    """(quantity, band, truths within the 68% interval, truths) of the sources of a mock field that are
    quality 0 in the band."""
    rows = []
    for band, table in reader.truths().items():
        for quantity in COVERED:
            inside = []
            for source_id, values in table.items():
                if reader.number(f"quality_{band}", source_id) > 0:
                    continue
                low, high = (reader.number(f"{quantity}_{p}_{band}", source_id) for p in ("p16", "p84"))
                if np.isfinite([low, high, values[quantity]]).all():
                    inside.append(bool(low <= values[quantity] <= high))
            if inside:
                rows.append((quantity, band, sum(inside), len(inside)))
    return tuple(rows)
