"""``galbatch process``: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from galbatch.cli.main import OK, SOME_FAILED
from galbatch.cli.options import (
    BANDS,
    DRAWS,
    JOINT,
    MODE,
    MODEL,
    OVERSAMPLE,
    PRECISION,
    SAMPLES,
    SURVEY,
    band_names,
    execution_options,
)

if TYPE_CHECKING:
    from galbatch.store import Run


@click.command("process")
@click.argument("catalog", type=click.Path(dir_okay=True))
@SURVEY
@click.option(
    "--out",
    metavar="RUN",
    type=click.Path(),
    help="Run folder, or s3://, gs://, az://BUCKET/NAME  [default: the catalogue's name + .run].",
)
@BANDS
@DRAWS
@MODE
@OVERSAMPLE
@click.option("--stamp-arcsec", type=float, metavar="X", help="Side of the stamps in arcsec.")
@click.option("--stamp-pix", type=int, metavar="N", help="Side of the stamps in pixels of the finest band.")
@MODEL
@click.option("--seed", type=int, default=0, help="Seed of all random numbers.")
@click.option("--limit", type=int, metavar="N", help="Only the first N rows of the catalogue.")
@click.option(
    "--batch", type=int, metavar="N", help="Sources per batch, one file each  [default: 1 to 64 by size]."
)
@PRECISION
@SAMPLES
@JOINT
@click.option("--draw-columns", is_flag=True, help="The statistics of every draw in list columns too.")
@click.option("--resume", "resuming", is_flag=True, help="Go on with the run in the folder, if there is one.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder once this one is finished.")
@click.option(
    "--force",
    is_flag=True,
    help="Resume although settings or inputs changed, if the results are stored as before.",
)
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be done; write nothing.")
@execution_options
def command(
    catalog: str,
    survey: str | None,
    out: str | None,
    bands: str | None,
    resuming: bool,
    overwrite: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Sample the posterior of every source of CATALOG and measure it.

    CATALOG has columns source_id, ra, dec (Parquet, HATS, FITS, ECSV, VOTable or CSV). The survey file names
    the images. The run folder holds catalog.parquet (one row per source, with error bars) and posterior.zarr
    (the draws).

    \b
    galbatch process catalogs/demo.parquet
    galbatch process sources.parquet --survey ceers.toml --bands f200w,f444w --draws 32 --out ceers.run
    """
    chosen: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    chosen["bands"] = band_names(bands)
    if resuming and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other: keep the run or replace it.")
    if dry_run:
        return _dry_run(catalog, survey, out, chosen)
    from galbatch.cli.progress import View
    from galbatch.run import process

    with View("json" if as_json else "plain" if quiet else None) as view:
        run = process(
            catalog,
            survey,
            out,
            resume=resuming,
            overwrite=overwrite,
            force=force,
            on_progress=view.progress,
            on_message=view.message,
            **chosen,
        )
    return finish(run)


def finish(run: Run) -> int:
    """Say where the run is and what comes next; the exit code."""
    click.echo(f"{run.paths.root}")
    click.echo(f"Look at it: galbatch report {run.paths.quoted}", err=True)
    return SOME_FAILED if run.summary["failed"] else OK


def _dry_run(catalog: str, survey: str | None, out: str | None, chosen: dict[str, Any]) -> int:
    from dataclasses import fields

    from galbatch.config import ExecutionSettings, RunSettings
    from galbatch.run import preview

    how = {f.name: chosen.pop(f.name) for f in fields(ExecutionSettings) if f.name in chosen}
    settings = RunSettings(catalog, survey or "", **chosen)
    for line in preview(settings, ExecutionSettings(**how), out):
        click.echo(line)
    return 0
