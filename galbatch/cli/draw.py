"""``galbatch draw``: the draws of a source, made again from their seeds."""

from __future__ import annotations

from pathlib import Path

import click

from galbatch.cli.options import KNOWN_RUN


@click.command("draw")
@KNOWN_RUN
@click.argument("source_ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write FOLDER/ID.fits with draws and images, as `galbatch export --to fits` does.",
)
def command(run: str, source_ids: tuple[str, ...], out: Path | None) -> None:
    """Make the draws of the sources ID of RUN again, and compare them with those that were measured.

    They follow from the seed of the run, the source's id, its pixels and the model: with whatever --samples
    the run was made, they come out bit for bit on the same kind of machine with the same versions, and within
    rounding elsewhere. Refused where the source's pixels or the model have changed.

    \b
    galbatch draw demo.run 1001
    galbatch draw demo.run 1001 1002 --out draws
    """
    import galbatch
    from galbatch.report.export import export_sources, refuse_failed

    opened = galbatch.open_run(run)
    refuse_failed(opened, list(source_ids))
    for source_id in source_ids:
        click.echo(opened.redraw(source_id).line)
        if out is not None:
            click.echo(export_sources(opened, "fits", [source_id], out)[0])
