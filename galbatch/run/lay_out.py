"""The run folder laid out: its manifest and plan, what may not have changed when it goes on, and what workers
are told."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from galbatch.config import ExecutionSettings
from galbatch.errors import InputError, RunError
from galbatch.run import folder
from galbatch.run.columns import passing_names
from galbatch.run.context import ContextSpec
from galbatch.run.identity import input_files, model_identity
from galbatch.run.plan import write_plan
from galbatch.run.prepare import Inputs
from galbatch.store import (
    RunPaths,
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
        inputs.layout,
        inputs.settings.mode,
        inputs.settings.seed,
        execution.threads,
        "cpu" if execution.cluster == "local" else "auto",
        manifest["model"]["sha256"],
        inputs.settings.precision,
        model_hash=manifest["model"]["hash"],
    )
