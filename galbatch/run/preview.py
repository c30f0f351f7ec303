"""What a run would do, without doing it: ``--dry-run``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from galbatch.config import RunSettings
from galbatch.cutouts import check_resolution
from galbatch.run import folder, prepare
from galbatch.run.choice import said_of_model, settle_model
from galbatch.run.execute import split_options
from galbatch.run.findings import said_once
from galbatch.store import RunPaths


def preview(
    catalog: str | Path,
    survey: str | Path | None = None,
    out: str | Path | None = None,
    prior: Any = None,
    **options: Any,
) -> list[str]:
    """Check inputs, model and disk as ``process`` does and say what it would do; nothing is written.

    Raises what ``process`` would raise before its first batch.
    """
    run_options, execution = split_options(options)
    settings = RunSettings(str(catalog), "" if survey is None else str(survey), **run_options)
    if prior is not None:
        settings = dataclasses.replace(settings, model="object")
    asked = settings.model
    settings = prepare.settle_precision(settle_model(settings, execution, {}), execution)
    inputs = prepare.open_inputs(settings, prior)
    prepare.refuse_errors(inputs)
    inputs.prior = prepare.open_model(inputs.settings, prior)
    layout = prepare.layout_of(inputs)
    paths = RunPaths(Path(out) if out is not None else Path(catalog).with_suffix(".run"))
    folder.settle(paths, resuming=True, overwrite=False)
    prepare.refuse_inputs_inside(paths, inputs)
    fwhm = prepare.target_fwhm_arcsec(layout)
    findings = inputs.findings + check_resolution(inputs.survey, fwhm)
    lines = [f"{f.level}: {f.line}" for f in said_once(findings)]
    lines += [
        f"catalogue  {inputs.settings.catalog}: {inputs.n_rows} sources",
        f"survey     {inputs.settings.survey}: bands {', '.join(layout.bands)}",
        f"stamps     {layout.stamp_pix} pixels of {min(layout.pixel_scale_arcsec):.4g} arcsec, oversample "
        f"{layout.oversample}, target PSF FWHM {fwhm:.4g} arcsec",
        f"sampling   {layout.draws} draws, mode {settings.mode}, seed {settings.seed}, precision "
        f"{settings.precision}",
        *said_of_model(asked, settings, inputs.prior, False),
        f"batches    {layout.n_batches} of {layout.batch} sources",
        f"cluster    {execution.cluster if not execution.scheduler else execution.scheduler}",
        f"output     {paths.root}: {prepare.check_space(paths, layout)}",
    ]
    if paths.manifest.exists():
        lines.append(f"output     {paths.root} holds a run already: use --resume or --overwrite")
    return lines
