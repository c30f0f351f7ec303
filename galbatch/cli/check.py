"""``galbatch check``: preflight of a run; writes nothing."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import click

from galbatch.cli.options import BANDS, DRAWS, MODEL, OVERSAMPLE, SURVEY, band_names
from galbatch.cli.progress import wide_console

NOTHING_TO_DO = re.compile(r"Nothing to do[^;]*(; |$)")  # what a note says in front of what could be done


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
    from galbatch.config import ExecutionSettings, RunSettings
    from galbatch.cutouts.check.preflight import verify_checksums
    from galbatch.run.findings import ORDER
    from galbatch.run.prepare import preflight
    from galbatch.store import RunPaths
    from galbatch.types import Finding

    settings = RunSettings(
        catalog, survey or "", band_names(bands), draws, oversample=oversample, model=model
    )
    root = Path(out) if out else Path(catalog).with_suffix(".run")
    inputs = preflight(settings, ExecutionSettings(), out=RunPaths(root), noise=noise, checking=True)
    findings = inputs.findings
    if inputs.space:
        layout = inputs.layout
        batches = f"{layout.n_batches} batch{'es' * (layout.n_batches != 1)} of {layout.batch}"
        what = f"stamps of {layout.said_of_stamps}, {batches}; {root}: {inputs.space}"
        remedy = "Nothing to do; --samples regenerate takes less room."
        findings.append(Finding("info", "run", "model and disk", what, remedy))
    if checksums:
        findings += verify_checksums(inputs.survey)
    findings.sort(key=lambda f: ORDER[f.level])
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        words = [("", catalog), ("--survey", survey), ("--bands", bands), ("--out", out)]
        given = [w for option, value in words if value for w in (option, value) if w]
        show(findings, shlex.join(["galbatch", "process", *given]))
    return 1 if any(f.level == "error" for f in findings) else 0


def show(findings: list, then: str) -> None:
    """The findings, the gravest first: where and what, and below it what to do. What was found many times
    is said once, and a remedy once for all that it mends. ``then``: the command of the run."""
    from itertools import groupby

    from rich.table import Table
    from rich.text import Text

    from galbatch.run.findings import said_once

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    styles = {"error": "bold red", "warn": "bold yellow", "info": "dim"}
    once = said_once(findings)
    kinds = list(dict.fromkeys((f.level, f.code, f.remedy) for f in once))
    once.sort(key=lambda f: kinds.index((f.level, f.code, f.remedy)))
    for (level, _, remedy), group in groupby(once, key=lambda f: (f.level, f.code, f.remedy)):
        for n, f in enumerate(group):
            table.add_row(
                Text("" if n else level, styles[level]), Text.assemble((f.subject, "bold"), ": ", f.what)
            )
        if todo := NOTHING_TO_DO.sub("", remedy):
            table.add_row("", Text(f"-> {todo[0].upper()}{todo[1:]}", styles[level]))
    console = wide_console()
    console.print(table)
    counts = {level: sum(f.level == level for f in once) for level in styles}
    verdict = "Fix the errors above before running." if counts["error"] else "A run can start:"
    console.print(f"Errors: {counts['error']}, warnings: {counts['warn']}. {verdict}")
    if not counts["error"]:
        console.print(f"  {then}", markup=False, highlight=False, soft_wrap=True)
