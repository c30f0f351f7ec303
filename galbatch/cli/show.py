"""``galbatch show``: one source of a run, on the terminal and as a picture."""

from __future__ import annotations

import click

from galbatch.cli.options import KNOWN_RUN


@click.command("show")
@KNOWN_RUN
@click.argument("source_id", metavar="[ID]", required=False)
@click.option(
    "--png", type=click.Path(dir_okay=False), help="Write the figure to this file (.png, .pdf or .svg)."
)
@click.option(
    "--rgb",
    type=click.Path(dir_okay=False),
    help="Write a figure in colour of a run of several bands: data, mean, draws, colour with its error.",
)
@click.option("--band", help="The band to show; the run's first by default.")
@click.option(
    "--worst",
    type=click.IntRange(min=1),
    metavar="N",
    help="List the N worst sources with the reasons, in place of one source; with --png a figure of each, "
    "its id added to the file's name.",
)
def command(
    run: str, source_id: str | None, png: str | None, rgb: str | None, band: str | None, worst: int | None
) -> None:
    """Show source ID of RUN: observed pixels, posterior mean, spread, residual, prior-dominated light,
    draws, truth where it is known, and the numbers with their error bars. The ID may be left out where RUN
    has one source.

    \b
    galbatch show demo.run 1001 --png source.png
    galbatch show demo.run --worst 10
    """
    if worst is not None and source_id is None:
        _worst(run, worst, png, band)
        return
    if worst is not None:
        raise click.UsageError("Give the ID of a source, or --worst N.")
    from rich.console import Console

    import galbatch
    from galbatch.report.colour import figure_colours
    from galbatch.report.figure import figure_source
    from galbatch.report.read import RunReader
    from galbatch.report.small import print_source

    opened = galbatch.open_run(run)
    if source_id is None:
        ids = opened.catalog["source_id"][:4].tolist()
        if len(ids) != 1:
            some = ", ".join(map(str, ids[:3])) + (", ..." if len(ids) > 3 else "")
            raise click.UsageError(f"Give the ID of a source (of {some or 'none yet'}), or --worst N.")
        source_id = str(ids[0])
    view = RunReader(opened).view(source_id, band)
    print_source(view, Console())
    if png is not None:
        figure_source(view).savefig(png)
        click.echo(f"Figure: {png}")
    if rgb is not None:
        figure_colours(opened, source_id).savefig(rgb)
        click.echo(f"Figure: {rgb}")


def _worst(folder: str, n: int, png: str | None, band: str | None) -> None:
    """List the worst sources of a run with their reasons, and write their figures."""
    from pathlib import Path

    import galbatch
    from galbatch.flags import Level, names_of
    from galbatch.report.figure import figure_source
    from galbatch.report.read import RunReader
    from galbatch.store import file_names
    from galbatch.store.selection import GRADES, quality_column

    run = galbatch.open_run(folder)
    ids = run.worst(n)
    quality = dict(zip(run.catalog["source_id"].tolist(), quality_column(run.catalog).tolist(), strict=True))
    reader, names = RunReader(run), file_names(ids)
    for source_id in ids:
        reasons = ", ".join(names_of(run.flags(source_id), Level.CAUTION)) or "no reason for caution"
        chi2 = ", ".join(f"{b} {reader.number(f'chi2_{b}', source_id):.2f}" for b in run.bands)
        grade = quality[source_id]
        click.echo(f"{source_id}  {grade} ({GRADES[grade]})  chi2 {chi2}  {reasons}")
        if png is not None:
            path = Path(png)
            path = path.with_name(f"{path.stem}-{names[str(source_id)]}{path.suffix or '.png'}")
            figure_source(reader.view(source_id, band)).savefig(path)
            click.echo(f"Figure: {path}")
