"""``galbatch export``: sources of a run for other tools."""

from __future__ import annotations

import click


@click.command("export")
@click.argument("run", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--to",
    "form",
    type=click.Choice(["fits", "galfit", "hats", "votable"]),
    required=True,
    help="fits: images, one file a source (DS9); galfit: GALFIT inputs; hats: the catalogue, partitioned "
    "(LSDB); votable: the catalogue for a TOPCAT or STILTS without Parquet.",
)
@click.option("--ids", help="Comma-separated source ids; all that did not fail by default. For images only.")
@click.option(
    "--out", type=click.Path(file_okay=False), help="Folder to write; RUN-FORM beside RUN by default."
)
def command(run: str, form: str, ids: str | None, out: str | None) -> None:
    """Write sources of RUN as FITS images or inputs of GALFIT, or its catalogue as HATS or VOTable."""
    from pathlib import Path

    import galbatch
    from galbatch.cli.progress import counted
    from galbatch.errors import ConfigError

    opened = galbatch.open_run(run)
    folder = Path(out) if out else opened.paths.root.with_name(f"{opened.paths.root.name}-{form}")
    if form in ("hats", "votable"):
        if ids:
            raise ConfigError(
                f"--ids is given with --to {form}, which writes the whole catalogue: leave --ids out."
            )
        click.echo(_catalogue(opened, form, folder))
        return
    chosen = [i.strip() for i in ids.split(",") if i.strip()] if ids else _finished(opened)
    if form == "fits":
        from galbatch.report.export_fits import export_fits as write
    else:
        from galbatch.report.export_galfit import export_galfit as write
    paths = []
    with counted(len(chosen), "sources") as done:
        for source_id in chosen:
            paths += write(opened, [source_id], folder)
            done()
    click.echo(
        f"{len(paths)} {'file' if form == 'fits' else 'start file'}{'s' * (len(paths) != 1)} in {folder}"
    )


def _catalogue(run, form: str, folder) -> str:
    """Write the whole catalogue; returns the line that says where."""
    if form == "hats":
        from galbatch.store import write_hats

        return f"HATS catalogue: {folder} ({write_hats(run.paths, folder)} partitions)"
    table, path = run.catalog, folder / "catalog.vot"
    folder.mkdir(parents=True, exist_ok=True)
    table.write(path, format="votable", tabledata_format="binary2", overwrite=True)
    return f"VOTable: {path}"


def _finished(run) -> list:
    return [i for i in run.catalog["source_id"].tolist() if run.status(i) != "failed"]
