"""``galbatch export``: sources of a run for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from galbatch.cli.options import KNOWN_RUN
from galbatch.display import count

if TYPE_CHECKING:
    from galbatch.store.reader import Run


@click.command("export")
@KNOWN_RUN
@click.option(
    "--to",
    "form",
    type=click.Choice(["fits", "galfit", "hats", "votable"]),
    required=True,
    help="fits: images, one file per source (DS9); galfit: GALFIT inputs; hats: the tables, partitioned "
    "(LSDB), also while the run goes on; votable: the catalogue for a TOPCAT or STILTS without Parquet.",
)
@click.option(
    "--ids",
    help='Comma-separated source ids, one with a comma in "double quotes"; all that did not fail by default. '
    "For images only.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    help="New folder or s3://, gs:// or az:// address to write, or one of an earlier export of RUN; RUN-FORM "
    "beside RUN by default.",
)
def command(run: str, form: str, ids: str | None, out: str | None) -> None:
    """Write sources of RUN as FITS images or inputs of GALFIT, or its catalogue as HATS or VOTable."""
    import galbatch
    from galbatch.cli.progress import counted
    from galbatch.errors import ConfigError
    from galbatch.report.export import export_sources
    from galbatch.store import place_of

    opened = galbatch.open_run(run)
    root = opened.paths.root if "://" not in run else Path(opened.paths.root.name)
    folder = place_of(out) if out else root.with_name(f"{root.name}-{form}")
    if form in ("hats", "votable"):
        if ids:
            raise ConfigError(
                f"--ids is given with --to {form}, which writes the whole catalogue: leave --ids out."
            )
        click.echo(_catalog(opened, form, folder))
        return
    chosen = _split(ids) if ids else opened.finished_ids()
    with counted(len(chosen), "sources") as done:
        paths = export_sources(opened, form, chosen, folder, done)
    click.echo(f"{count(len(paths), 'file' if form == 'fits' else 'start file')} in {folder}")


def _split(ids: str) -> list[str]:
    """Ids of a comma-separated list, each once; one in double quotes may hold commas."""
    import csv

    from galbatch.errors import ConfigError

    try:
        rows = list(csv.reader([ids], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ConfigError(
            f'--ids {ids}: {error}. Separate ids by commas; put one that holds a comma in "double quotes".'
        ) from error
    return list(dict.fromkeys(i.strip() for row in rows for i in row if i.strip()))


def _catalog(run: Run, form: str, folder: Path) -> str:
    """Write the whole catalogue; returns the line that says where."""
    from galbatch.cli.progress import counted
    from galbatch.run.findings import column_info_of
    from galbatch.store import open_export, write_hats, write_votable

    if form == "hats":
        with counted(run.layout.n_sources, "rows") as done:
            found = write_hats(run.paths, folder, on_rows=done, info=column_info_of(run.manifest))
        left, said = found.partitions.left_out, count(len(found.partitions), "partition")
        said += f"; {left} rows without a position are left out" * bool(left)
        if found.waiting:
            said += f"; {found.waiting} wait for sources that are not done: export again to add them"
        return f"HATS collection: {folder} ({said})"
    place = open_export(folder, "votable", run.paths).place
    return f"VOTable: {place('catalog.vot', lambda path: write_votable(run.paths, path))}"
