"""One source of a run: ``show``, its figure and PNG, and its statistics as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from galbatch.columns import INTERVAL
from galbatch.flags import Flag
from galbatch.morphology import all_quantities
from galbatch.report.read import RunReader
from galbatch.store import Run

if TYPE_CHECKING:
    from astropy.table import Table
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


_KEPT = (*INTERVAL, "raw16", "raw50", "raw84", "obs")
_HEADS = ("low", "value", "high", "raw16", "raw50", "raw84", "pixels")


def statistics_table(run: Run, source_id: int | str, band: str | None = None) -> Table:
    """One row per statistic of a source in a band: ``low``, ``value``, ``high`` of the 68% interval
    (``calibrated``: or that of the draws), percentiles of the draws, the classical value on the observed
    pixels. NaN where there is none."""
    from astropy.table import Table

    band = band or run.bands[0]
    quantities, row = all_quantities(), RunReader(run).row_of[str(source_id)]
    values = run.values(f"flags_{band}", *(f"{name}_{s}_{band}" for name in quantities for s in _KEPT))
    reached = not int(values[f"flags_{band}"][row]) & Flag.UNCALIBRATED
    rows = []
    for name, about in quantities.items():
        keys = [f"{name}_{s}_{band}" for s in _KEPT]
        numbers = [float(values[key][row]) if key in values else np.nan for key in keys]
        rows.append((name, about.unit, reached and bool(np.isfinite(numbers[1])), *numbers))
    table = Table(rows=rows, names=("statistic", "unit", "calibrated", *_HEADS))
    for head in _HEADS:
        table[head].format = ".6g"
    table.meta["source_id"], table.meta["band"] = str(source_id), band
    return table
