"""``galbatch show``: one source of a run, on the terminal and as a picture."""

from __future__ import annotations

import click


@click.command("show")
@click.argument("run", type=click.Path(exists=True, file_okay=False))
@click.argument("source_id", metavar="ID")
@click.option(
    "--png", type=click.Path(dir_okay=False), help="Write the figure to this file (.png, .pdf or .svg)."
)
@click.option("--band", help="The band to show; the run's first by default.")
def command(run: str, source_id: str, png: str | None, band: str | None) -> None:
    """Show source ID of RUN: observed pixels, posterior mean, spread, residual, what is owed to the prior,
    draws, truth where it is known, and the numbers with their error bars."""
    from rich.console import Console

    import galbatch
    from galbatch.report.figure import figure_source
    from galbatch.report.read import RunReader
    from galbatch.report.terminal import print_source

    view = RunReader(galbatch.open_run(run)).view(source_id, band)
    print_source(view, Console())
    if png is not None:
        figure_source(view).savefig(png)
        click.echo(f"Figure: {png}")
