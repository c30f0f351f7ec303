"""``galbatch check``: preflight of a run; writes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from galbatch.cli.process import BANDS, DRAWS, MODEL, OVERSAMPLE, SURVEY, band_names
from galbatch.cli.progress import wide_console

if TYPE_CHECKING:
    from galbatch.config import RunSettings


@click.command("check")
@click.argument("catalog", type=click.Path(dir_okay=True))
@SURVEY
@BANDS
@click.option("--out", metavar="RUN", type=click.Path(), help="Run folder, to see if its disk has room.")
@MODEL
@DRAWS
@OVERSAMPLE
@click.option(
    "--noise",
    is_flag=True,
    help="Compare the noise map of every tile with the sky, not of one tile per band only.",
)
@click.option("--checksums", is_flag=True, help="Read every file through and compare it with its DATASUM.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def command(
    catalog: str,
    survey: str | None,
    bands: str | None,
    out: str | None,
    model: str,
    draws: int,
    oversample: int,
    noise: bool,
    checksums: bool,
    as_json: bool,
) -> int:
    """Look for what would spoil a run on CATALOG: files, WCS, grids, units, PSFs, ids, positions, model,
    disk.

    Exit code 1 when there is an error that a run must not start with.

    \b
    galbatch check catalogs/demo.parquet
    galbatch check sources.parquet --survey ceers.toml --noise
    """
    from galbatch.config import RunSettings

    settings = RunSettings(
        catalog, survey or "", band_names(bands), draws, oversample=oversample, model=model
    )
    findings = collect(settings, out, noise, checksums)
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        show(findings)
    return 1 if any(f.level == "error" for f in findings) else 0


def collect(
    settings: RunSettings, out: str | None = None, noise: bool = False, checksums: bool = False
) -> list:
    """All findings for a run with these ``RunSettings``, the gravest first. Raises only when the catalogue
    or the survey file cannot be read at all."""
    from galbatch.cutouts import check_noise
    from galbatch.run import prepare

    inputs = prepare.open_inputs(settings)
    findings = inputs.findings
    if not any(f.level == "error" and f.code in ("band", "grid") for f in findings):
        findings += check_noise(inputs.survey, every_tile=noise)
        findings += _product(inputs, Path(out) if out else Path(settings.catalog).with_suffix(".run"))
    if checksums:
        from galbatch.cutouts.preflight import verify_checksums

        findings += verify_checksums(inputs.survey)
    order = {"error": 0, "warn": 1, "info": 2}
    return sorted(findings, key=lambda f: order[f.level])


def _product(inputs: Any, root: Path) -> list:
    """Resolution, model and disk."""
    from galbatch.cutouts import check_resolution
    from galbatch.errors import GalbatchError
    from galbatch.run import prepare
    from galbatch.store import RunPaths
    from galbatch.types import Finding

    try:
        inputs.prior = prepare.open_model(inputs.settings, None)
        layout = prepare.layout_of(inputs)
        room = prepare.check_space(RunPaths(root), layout)
    except GalbatchError as error:
        remedy = "Choose another --model, --draws, --stamp-pix or --out."
        return [Finding("error", "run", "model and disk", str(error), remedy)]
    what = f"stamps of {layout.said_of_stamps}, {layout.n_batches} batches of {layout.batch}; {root}: {room}"
    return [
        *check_resolution(inputs.survey, prepare.target_fwhm_arcsec(layout)),
        Finding(
            "info", "run", "model and disk", what, "Nothing to do; --samples regenerate takes less room."
        ),
    ]


def show(findings: list) -> None:
    """The findings as a table; what was found many times has one line."""
    from rich.table import Table

    from galbatch.run.findings import said_once

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head, share in (("", None), ("where", 1), ("what was found", 3), ("what to do", 2)):
        table.add_column(head, overflow="fold", ratio=share, no_wrap=share is None)
    styles = {"error": "bold red", "warn": "yellow", "info": "dim"}
    for f in said_once(findings):
        table.add_row(f"[{styles[f.level]}]{f.level}[/]", _plain(f.subject), _plain(f.what), _plain(f.remedy))
    console = wide_console()
    console.print(table)
    counts = {level: sum(f.level == level for f in findings) for level in styles}
    verdict = "Fix the errors above before running." if counts["error"] else "A run can start."
    console.print(f"Errors: {counts['error']}, warnings: {counts['warn']}. {verdict}")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
