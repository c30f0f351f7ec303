"""``show``: the figure of one source of a run, and its PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from galbatch.store import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(run: Run, source_id: int | str, png: str | Path | None = None, band: str | None = None) -> Figure:
    """The figure of one source in one band (the run's first by default), written to ``png`` where given.

    Raises ``InputError`` for an unknown source or band, ``RunError`` for a source that failed.
    """
    from galbatch.report.figure import figure_source
    from galbatch.report.read import RunReader

    figure = figure_source(RunReader(run).view(source_id, band))
    if png is not None:
        figure.savefig(png)
    return figure
