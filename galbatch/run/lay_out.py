"""The run folder laid out: its manifest and plan, what may not have changed when it goes on, and what workers
are told."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from galbatch.catalog.columns import OPTIONAL, REQUIRED, to_numpy
from galbatch.config import ExecutionSettings
from galbatch.errors import InputError, RunError
from galbatch.interfaces import Denoiser
from galbatch.prior.folder import folder_files
from galbatch.run import folder
from galbatch.run.context import ContextSpec
from galbatch.run.findings import passing_names, said_once
from galbatch.run.prepare import Inputs, noise_tables
from galbatch.store import (
    PlanWriter,
    RunPaths,
    begin_checksums,
    create_store,
    differences,
    dump_toml,
    fingerprint,
    hash_json,
    healpix_nested,
    layout_differences,
    read_manifest,
    restore_manifest,
    versions,
    write_atomic,
    write_manifest,
)
from galbatch.store.plan import CUT

CUT_COLUMNS = ("tile", "x", "y", "psf_index", "segmap_id", "psf_x", "psf_y", "stamp_arcsec")
STRIP_PIX = 256


def write_plan(
    paths: RunPaths,
    catalog: Any,
    survey: Any,
    batch: int,
    limit: int = 0,
    row_flags: np.ndarray | None = None,
) -> int:
    """Write ``plan.parquet`` for the rows of ``catalog`` (the first ``limit``, 0 for all); returns their
    number.

    ``row_flags`` (n_rows,): flags that the validation of the catalogue found. Rows are sorted by the tile of
    the finest band, then by row, so that a batch reads one part of one mosaic; those of a catalogue in the
    order of the sky by strips of ``STRIP_PIX`` rows of the mosaic, too. Memory is bounded by a block of rows.
    """
    names = passing_names(catalog, survey.band_names)
    with PlanWriter(paths.plan, batch, strip_pix=STRIP_PIX if catalog.by_sky else 0) as plan:
        for table in catalog.tables() if catalog.n_rows else [catalog.schema.empty_table()]:
            if limit:
                table = table.slice(0, limit - plan.n_rows)
            known = {
                n: to_numpy(str(catalog.path), n, table.column(n))
                for n in (*REQUIRED, *OPTIONAL)
                if n in table.column_names
            }
            core = locate_rows(known, survey)
            if row_flags is not None and len(row_flags):
                core["prescreen_flags"] |= row_flags[plan.n_rows : plan.n_rows + table.num_rows]
            plan.add(core, {new: table.column(old) for old, new in names.items()})
            if limit and plan.n_rows >= limit:
                break
        return plan.n_rows


def locate_rows(known: dict[str, np.ndarray], survey: Any) -> dict[str, np.ndarray]:
    """Galbatch's own columns of the plan: identity, located position, pre-screen flags, and what the cut
    needs."""
    n = len(known["source_id"])
    ra, dec = (known.get(name, np.full(n, np.nan)) for name in ("ra", "dec"))
    found = survey.locate(ra, dec, **{k: known[k] for k in ("tile", "x", "y") if k in known})
    core = {
        "source_id": known["source_id"],
        "ra": ra,
        "dec": dec,
        "tile": np.asarray(found.tile).astype(str),
        "x": found.x,
        "y": found.y,
        "prescreen_flags": np.asarray(found.flags, np.int64).copy(),
        "_healpix_29": healpix_nested(ra, dec),
    }
    cut = {CUT + name: known[name] for name in CUT_COLUMNS if name in known}
    if "stamp_arcsec" in known and not survey.config.stamp_auto:  # the survey's size, where a row has none
        scale, wanted = survey.geometry()[survey.finest()].scale_arcsec, known["stamp_arcsec"]
        own = np.isfinite(wanted) & (wanted > 0)
        cut[CUT + "stamp_arcsec"] = np.where(own, wanted, survey.stamp_pix() * scale)
    return core | cut


def input_files(survey: Any, catalog: str, before: dict[str, Any]) -> list[dict[str, Any]]:
    """Identity of the catalogue, of every plane and PSF, and of the files of noise correlation.
    ``before``: the manifest of the run that goes on. Catalogue, PSFs and small files are read through each
    time."""
    planes = survey.inputs()
    known = {i["path"]: i for i in before.get("inputs", [])}
    small = {catalog, *(e["path"] for e in planes if e["role"] == "psf")}
    absent = {e["path"] for e in planes if e["size"] is None and "://" not in e["path"]}  # optional planes
    names = dict.fromkeys([catalog, *(e["path"] for e in planes), *noise_tables(survey)])
    return [
        {"path": p, "size": None, "hash": None} if p in absent else fingerprint(p, p in small, known.get(p))
        for p in names
    ]


def model_identity(prior: Denoiser, path: str) -> dict[str, Any]:
    """Path, name, SHA-256 of the weights and calibration of a prior, and of a model folder each file's hash
    and one of all; an object without a hash is known by its type."""
    files = {} if path == "object" else folder_files(path)
    return {
        "path": path,
        "name": prior.spec.name,
        "sha256": prior.spec.sha256,
        "calibration": hash_json(prior.spec.calibration),
        "files": files,
        "hash": hash_json(files) if files else "",
    }


def make_manifest(
    inputs: Inputs, execution: ExecutionSettings, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the run is made from; ``differences`` compares the parts that decide the results. ``before``: the
    manifest of the run that goes on, so that large files that nobody touched are not read through again."""
    config = inputs.settings.record() | {
        "survey_resolved": inputs.survey.config.resolved(),
        "stamp_pix": inputs.layout.stamp_pix,
        "batch": inputs.layout.batch,
    }
    entries = inputs.survey.inputs()
    names = passing_names(inputs.catalog, inputs.survey.band_names)
    return {
        "schema": 1,
        "config": config,
        "settings": inputs.settings.record(),
        "config_hash": hash_json(config),
        "seed": inputs.settings.seed,
        "model": model_identity(inputs.prior, inputs.settings.model),
        "inputs": input_files(inputs.survey, inputs.settings.catalog, before or {}),
        "planes": entries,
        "measured": inputs.survey.measured,
        "warnings": [f.line for f in said_once(inputs.findings) if f.level == "warn"],
        "columns": {names.get(name, name): about for name, about in inputs.catalog.meta.items()},
        "layout": inputs.layout.attributes(),
        "threads": execution.threads,
        "versions": versions(),
        "argv": sys.argv,
        "host": os.uname().nodename,
        "created": time.time(),
    }


def lay_out(paths: RunPaths, inputs: Inputs, manifest: dict[str, Any]) -> None:
    """Write plan, template, configuration and, last, the manifest: with it the folder is a run."""
    written = write_plan_at(paths, inputs)
    if written != inputs.layout.n_sources:
        raise InputError(
            f"{inputs.settings.catalog}: announced {inputs.layout.n_sources} rows, held {written}. The file "
            "is damaged, or changed while it was read."
        )
    create_store(paths.posterior, inputs.layout)
    write_config(paths, inputs)
    write_manifest(paths, manifest)
    begin_checksums(paths)


def write_plan_at(paths: RunPaths, inputs: Inputs) -> int:
    """Write the plan of a run into the folder of ``paths``; returns its rows."""
    settings = inputs.settings
    return write_plan(
        paths, inputs.catalog, inputs.survey, inputs.layout.batch, settings.limit, inputs.row_flags
    )


def go_on(paths: RunPaths, inputs: Inputs) -> None:
    """Make whole what surrounds a run that goes on: copy of the manifest, configuration; remove what a killed
    process left behind."""
    restore_manifest(paths)
    if not paths.config.exists():
        write_config(paths, inputs)
    for orphan in paths.orphans():
        orphan.unlink(missing_ok=True)


def write_config(paths: RunPaths, inputs: Inputs) -> None:
    """Write ``galbatch.toml``."""
    config = {"run": inputs.settings.record(), "survey": inputs.survey.config.resolved()}
    write_atomic(paths.config, dump_toml(config).encode())


def check_unchanged(place: folder.Place, manifest: dict[str, Any], force: bool) -> list[str]:
    """What changed since the run began. Raises ``RunError`` with the list unless ``force``, and whatever the
    flag where it would be stored in another form."""
    paths, begun = place.paths, read_manifest(place.paths)
    instead = "start again with --overwrite"
    if place.target:
        instead = f"go on with that run (`galbatch resume {paths.quoted}`), delete its folder"
    if stored := layout_differences(begun, manifest):
        head = f"{paths.root} stores its results in another form, which no flag changes:"
        raise RunError("\n".join([head, *stored, f"Restore these settings, {instead}."]))
    changes = differences(begun, manifest)
    if changes and not force:
        head = f"{paths.root} was made with other settings or inputs:"
        tail = f"Restore them, {instead}, or go on all the same with --force."
        raise RunError("\n".join([head, *changes, tail]))
    return changes


def make_spec(
    paths: RunPaths, inputs: Inputs, manifest: dict[str, Any], execution: ExecutionSettings, update: str = ""
) -> ContextSpec:
    """What workers need, to be sent to them. ``update``: the run from which sources are taken over."""
    model = inputs.prior if inputs.settings.model == "object" else inputs.settings.model
    run_id = f"{paths.root}:{manifest['config_hash']}:{time.time_ns()}"
    return ContextSpec(
        run_id,
        str(paths.root),
        inputs.survey,
        model,
        inputs.layout,
        inputs.settings.mode,
        inputs.settings.seed,
        execution.threads,
        "cpu" if execution.cluster == "local" else "auto",
        manifest["model"]["sha256"],
        inputs.settings.precision,
        model_hash=manifest["model"]["hash"],
        update=update,
    )
