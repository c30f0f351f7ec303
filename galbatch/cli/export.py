"""``galbatch export``: sources of a run for other tools."""

from __future__ import annotations

import click


@click.command("export")
@click.argument("run", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--to",
    "form",
    type=click.Choice(["fits", "hats", "galfit"]),
    required=True,
    help="fits: one file a source (DS9); hats: the catalogue, partitioned (LSDB); galfit: GALFIT inputs.",
)
@click.option("--ids", help="Comma-separated source ids; all that did not fail by default. Not for hats.")
@click.option(
    "--out", type=click.Path(file_okay=False), help="Folder to write; RUN/export-FORM beside RUN by default."
)
def command(run: str, form: str, ids: str | None, out: str | None) -> None:
    """Write sources of RUN as FITS images, as a HATS catalogue, or as inputs of GALFIT."""
    from pathlib import Path

    import galbatch
    from galbatch.errors import ConfigError

    opened = galbatch.open_run(run)
    folder = Path(out) if out else opened.paths.root.with_name(f"{opened.paths.root.name}-{form}")
    if form == "hats":
        if ids:
            raise ConfigError(
                "--ids is given with --to hats, which writes the whole catalogue: leave --ids out."
            )
        from galbatch.store import write_hats

        count = write_hats(opened.paths, folder)
        click.echo(f"HATS catalogue: {folder} ({count} partitions)")
        return
    chosen = [i.strip() for i in ids.split(",") if i.strip()] if ids else _finished(opened)
    if form == "fits":
        from galbatch.report.export_fits import export_fits as write
    else:
        from galbatch.report.export_galfit import export_galfit as write
    paths = []
    with click.progressbar(chosen, label=form) as bar:
        for source_id in bar:
            paths += write(opened, [source_id], folder)
    click.echo(
        f"{len(paths)} {'file' if form == 'fits' else 'start file'}{'s' * (len(paths) != 1)} in {folder}"
    )


def _finished(run) -> list:
    return [i for i in run.catalog["source_id"].tolist() if run.status(i) != "failed"]
