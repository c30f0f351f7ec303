"""``galbatch report``: one self-contained HTML page of a run."""

from __future__ import annotations

import click

from galbatch.cli.options import KNOWN_RUN


@click.command("report")
@KNOWN_RUN
@click.option(
    "--out", type=click.Path(dir_okay=False), help="Where to write the page; RUN/report.html by default."
)
def command(run: str, out: str | None) -> None:
    """Make one HTML page of RUN that opens without a network.

    It says which sources can be used and why others cannot; then plots to select in, a table, a gallery with
    all of a source, how far to trust the intervals, and what the run was made from.
    """
    from pathlib import Path

    import galbatch
    from galbatch.cli.progress import counted
    from galbatch.report.gather import gather
    from galbatch.report.page import render_page
    from galbatch.store import record_file, write_atomic

    opened = galbatch.open_run(run)
    with counted(opened.layout.n_sources, "thumbnails") as done:
        page = render_page(gather(opened, done))
    path = opened.paths.report if out is None else Path(out)
    write_atomic(path, page.encode())
    record_file(opened.paths, path)
    click.echo(f"Report: {path} ({len(page) / 1e6:.1f} MB)")
