"""Everything that is settled before the first batch: inputs, model, layout, disk space; and the run folder
laid out."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.catalog import open_catalog, validate
from galbatch.config import ExecutionSettings, RunSettings, default_batch, survey_beside
from galbatch.cutouts import check_footprint, check_tile_names, load_survey, open_survey
from galbatch.errors import ConfigError, InputError, RunError
from galbatch.interfaces import Denoiser
from galbatch.run import folder
from galbatch.run.columns import check_columns, passing_names
from galbatch.run.context import ContextSpec, load_model
from galbatch.run.findings import said_once
from galbatch.run.identity import input_files, model_identity
from galbatch.run.plan import write_plan
from galbatch.store import (
    RunPaths,
    StoreLayout,
    begin_checksums,
    create_store,
    differences,
    dump_toml,
    hash_json,
    layout_differences,
    read_manifest,
    restore_manifest,
    versions,
    withdraw_damaged,
    write_atomic,
    write_manifest,
)
from galbatch.types import Finding

LARGEST_STAMP_PIX = 512


@dataclass
class Inputs:
    """The opened inputs of a run and what was found out about them."""

    settings: RunSettings
    survey: Any
    catalog: Any
    prior: Any
    findings: list[Finding]
    row_flags: Any
    n_rows: int
    stamp_pix: int


def settle_precision(settings: RunSettings, execution: ExecutionSettings) -> RunSettings:
    """The settings with 'auto' settled for this machine, so that a run that goes on elsewhere says so. For a
    scheduler's workers it stays: each settles it by itself."""
    if execution.scheduler or execution.scheduler_file or settings.model == "object":
        return settings
    from galbatch.prior import choose_device, choose_precision

    device = choose_device("cpu" if execution.cluster == "local" else "auto")
    return dataclasses.replace(settings, precision=choose_precision(device, settings.precision))


def open_inputs(settings: RunSettings, prior: Any = None, measured: dict | None = None) -> Inputs:
    """Open and check survey, catalogue and model. Raises the error of the first that cannot be used."""
    survey_path = settings.survey or str(survey_beside(settings.catalog))
    settings = dataclasses.replace(
        settings, survey=str(Path(survey_path).absolute()), catalog=str(Path(settings.catalog).absolute())
    )
    survey = open_survey(load_survey(settings.survey, settings.bands or None), measured=measured)
    catalog = open_catalog(settings.catalog, pixel_columns=survey.config.pixel_columns)
    checked = validate(catalog, survey.config.pixel_columns)
    findings = [*survey.check(catalog.columns), *checked.findings, *check_columns(catalog, survey.band_names)]
    n_rows = min(catalog.n_rows, settings.limit) if settings.limit else catalog.n_rows
    if not any(f.level == "error" and f.code in ("band", "grid") for f in findings):
        findings += check_tile_names(survey, _first(catalog, n_rows))
        findings += check_footprint(survey, _first(catalog, n_rows))
    errors = [f for f in findings if f.level == "error"]
    stamp_pix = 0 if errors else settings.stamp_pix or stamp_size(survey, catalog, settings.stamp_arcsec)
    return Inputs(settings, survey, catalog, prior, findings, checked.flags, n_rows, stamp_pix)


def stamp_size(survey: Any, catalog: Any, stamp_arcsec: float = 0.0) -> int:
    """Side of the stamps of a run in pixels of the finest band: that of ``stamp_arcsec``, else of the
    largest ``stamp_arcsec`` in the catalogue (all stamps have one size; a row's pixels outside its own are
    masked), else the survey's. Raises ``InputError`` where the largest is beyond ``LARGEST_STAMP_PIX``."""
    if not stamp_arcsec and "stamp_arcsec" in catalog.columns:
        for _, rows in catalog.batches(["stamp_arcsec"]):
            wanted = rows["stamp_arcsec"]
            stamp_arcsec = max(stamp_arcsec, float(wanted[np.isfinite(wanted)].max(initial=0.0)))
        size = survey.stamp_pix(stamp_arcsec or None)
        if size > LARGEST_STAMP_PIX:
            raise InputError(
                f"{catalog.path}: the largest stamp_arcsec is {stamp_arcsec:g}, {size} pixels; more than "
                f"{LARGEST_STAMP_PIX} must be asked for. Correct that row, or give --stamp-arcsec."
            )
    return survey.stamp_pix(stamp_arcsec or None)


def _first(catalog: Any, n_rows: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The batches of a catalogue up to ``n_rows`` rows."""
    for start, rows in catalog.batches():
        if start >= n_rows:
            return
        yield start, {name: column[: n_rows - start] for name, column in rows.items()}


def refuse_errors(inputs: Inputs) -> None:
    """Raise ``InputError`` with every error that the preflight found."""
    errors = [f for f in inputs.findings if f.level == "error"]
    if errors:
        raise InputError("\n".join(f.line for f in said_once(errors)))


def layout_of(inputs: Inputs) -> StoreLayout:
    """The store's layout. Needs the model, for its target PSF."""
    survey, settings = inputs.survey, inputs.settings
    geometry = survey.geometry()
    ratios = tuple(int(geometry[b].ratio) for b in survey.band_names)
    bad = [r for r in ratios if inputs.stamp_pix % r]
    if bad:
        raise InputError(
            f"stamp_pix is {inputs.stamp_pix}, but a band has pixels {bad[0]} times larger: "
            f"use a multiple of {bad[0]}."
        )
    return StoreLayout(
        n_sources=inputs.n_rows,
        batch=settings.batch or default_batch(inputs.n_rows),
        draws=settings.draws,
        bands=tuple(survey.band_names),
        stamp_pix=inputs.stamp_pix,
        oversample=settings.oversample,
        samples=settings.samples,
        string_ids="int" not in str(inputs.catalog.schema.field("source_id").type),
        pixel_ratio=ratios,
        pixel_scale_arcsec=tuple(float(geometry[b].delivered_scale_arcsec) for b in survey.band_names),
        target_fwhm_pix=inputs.prior.spec.target_fwhm_pix,
        draw_columns=settings.draw_columns,
    )


def target_fwhm_arcsec(layout: StoreLayout) -> float:
    """FWHM of the target PSF."""
    return layout.target_fwhm_pix / layout.oversample * min(layout.pixel_scale_arcsec)


def make_manifest(
    inputs: Inputs, layout: StoreLayout, execution: ExecutionSettings, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the run is made from; ``differences`` compares the parts that decide the results. ``before``: the
    manifest of the run that goes on, so that large files that nobody touched are not read through again."""
    config = inputs.settings.record() | {
        "survey_resolved": inputs.survey.config.resolved(),
        "stamp_pix": layout.stamp_pix,
        "batch": layout.batch,
    }
    entries = inputs.survey.inputs()
    names = passing_names(inputs.catalog, inputs.survey.band_names)
    return {
        "schema": 1,
        "checksums": "SHA-256",
        "config": config,
        "settings": inputs.settings.record(),
        "config_hash": hash_json(config),
        "seed": inputs.settings.seed,
        "model": model_identity(inputs.prior, inputs.settings.model),
        "inputs": input_files(inputs.survey, inputs.settings.catalog, before or {}),
        "planes": entries,
        "measured": inputs.survey.measured,
        "columns": {names.get(name, name): about for name, about in inputs.catalog.meta.items()},
        "layout": layout.attributes(),
        "threads": execution.threads,
        "versions": versions(),
        "argv": sys.argv,
        "host": os.uname().nodename,
        "created": time.time(),
    }


def check_space(paths: RunPaths, layout: StoreLayout) -> str:
    """One line with the bytes needed and free. Raises ``RunError`` when they do not fit."""
    place = next(p for p in (paths.root, *paths.root.parents) if p.exists())
    need, free = layout.predicted_bytes(), shutil.disk_usage(place).free
    if need > free:
        raise RunError(
            f"{paths.root} needs about {need / 1e9:.2f} GB, {place} has {free / 1e9:.2f} GB free. Choose "
            "another --out, fewer --draws, or --no-samples."
        )
    size = f"{need / 1e9:.2f} GB" if need > 1e9 else f"{max(1, round(need / 1e6))} MB"
    return f"about {size} to write, {free / 1e9:.0f} GB free"


def lay_out(paths: RunPaths, inputs: Inputs, layout: StoreLayout, manifest: dict[str, Any]) -> None:
    """Write plan, template, configuration and, last, the manifest: with it the folder is a run."""
    written = write_plan_at(paths, inputs, layout)
    if written != layout.n_sources:
        raise InputError(
            f"{inputs.settings.catalog}: announced {layout.n_sources} rows, held {written}. The file is "
            "damaged, or changed while it was read."
        )
    create_store(paths.posterior, layout)
    write_config(paths, inputs)
    write_manifest(paths, manifest)
    begin_checksums(paths)


def write_plan_at(paths: RunPaths, inputs: Inputs, layout: StoreLayout) -> int:
    """Write the plan of a run into the folder of ``paths``; returns its rows."""
    settings = inputs.settings
    return write_plan(paths, inputs.catalog, inputs.survey, layout.batch, settings.limit, inputs.row_flags)


def refuse_inputs_inside(paths: RunPaths, inputs: Inputs) -> None:
    """Raise ``ConfigError`` when catalogue, survey file, model or an image is in the folder of the run."""
    settings, bands = inputs.settings, inputs.survey.config.bands
    names = [settings.catalog, settings.survey, *(entry["path"] for entry in inputs.survey.inputs())]
    tables = {tile.noise_acf for band in bands for tile in band.tiles} - {"none", "measure"}
    models = {settings.model} - {"", "object"}
    folder.refuse_inside(paths, [*names, *sorted(tables), *models])


def go_on(paths: RunPaths, inputs: Inputs) -> list[str]:
    """Make whole what surrounds a run that goes on: copy of the manifest, configuration; remove what a killed
    process left behind, and parts that are damaged. Returns messages."""
    restore_manifest(paths)
    if not paths.config.exists():
        write_config(paths, inputs)
    for orphan in paths.orphans():
        orphan.unlink(missing_ok=True)
    damaged = withdraw_damaged(paths)
    return [f"{paths.part(batch).name} was damaged: its sources are computed again" for batch in damaged]


def write_config(paths: RunPaths, inputs: Inputs) -> None:
    """Write ``galbatch.toml``."""
    config = {"run": inputs.settings.record(), "survey": inputs.survey.config.resolved()}
    write_atomic(paths.config, dump_toml(config).encode())


def check_unchanged(place: folder.Place, manifest: dict[str, Any], force: bool) -> list[str]:
    """What changed since the run began. Raises ``RunError`` with the list unless ``force``, and whatever the
    flag where it would be stored in another form."""
    paths, begun = place.paths, read_manifest(place.paths)
    if stored := layout_differences(begun, manifest):
        raise RunError(
            "\n".join(
                [
                    f"{paths.root} stores its results in another form, which no flag changes:",
                    *stored,
                    f"Restore these settings, {_instead(place)}.",
                ]
            )
        )
    changes = differences(begun, manifest)
    if changes and not force:
        raise RunError(
            "\n".join(
                [
                    f"{paths.root} was made with other settings or inputs:",
                    *changes,
                    f"Restore them, {_instead(place)}, or go on all the same with --force.",
                ]
            )
        )
    return changes


def _instead(place: folder.Place) -> str:
    if place.target:
        return f"go on with that run (`galbatch resume {place.paths.root}`), delete its folder"
    return "start again with --overwrite"


def make_spec(
    paths: RunPaths,
    inputs: Inputs,
    layout: StoreLayout,
    manifest: dict[str, Any],
    execution: ExecutionSettings,
) -> ContextSpec:
    """What workers need, to be sent to them."""
    model = inputs.prior if inputs.settings.model == "object" else inputs.settings.model
    run_id = f"{paths.root}:{manifest['config_hash']}:{time.time_ns()}"
    return ContextSpec(
        run_id,
        str(paths.root),
        inputs.survey,
        model,
        layout,
        inputs.settings.mode,
        inputs.settings.seed,
        execution.threads,
        "cpu" if execution.cluster == "local" else "auto",
        manifest["model"]["sha256"],
        inputs.settings.precision,
        model_hash=manifest["model"]["hash"],
    )


def open_model(settings: RunSettings, prior: Any) -> Denoiser:
    """The prior of a run: the object given, else the model folder of the settings."""
    if prior is None and settings.model == "object":
        raise ConfigError(
            "This run was made with a prior object of a Python program: give the same one to resume()."
        )
    # for its card: workers load their own
    return load_model(settings.model if prior is None else prior, "cpu")
