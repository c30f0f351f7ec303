"""The statistics of one source as a table: calibrated interval, draws, observed pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from galbatch.report.run_plots import column, interval
from galbatch.store import Run

if TYPE_CHECKING:
    from astropy.table import Table

_HEADS = ("low", "value", "high", "draws_p16", "draws_p50", "draws_p84", "pixels")


def statistics_table(run: Run, source_id: int | str, band: str | None = None) -> Table:
    """One row per statistic of a source in a band: ``low``, ``value``, ``high`` of the 68% interval
    (calibrated where ``calibrated`` is True), percentiles of the draws, the classical value on the observed
    pixels."""
    from astropy.table import Table

    band = band or run.bands[0]
    one = run.catalog[np.asarray(run.catalog["source_id"]).astype(str) == str(source_id)]
    ending = f"_p50_{band}"
    rows = []
    for name in (n.removesuffix(ending) for n in one.colnames if n.endswith(ending)):
        draws = [column(one, f"{name}_{p}_{band}")[0] for p in ("p16", "p50", "p84")]
        best = [float(v[0]) for v in interval(one, name, band)]
        seen = column(one, f"{name}_obs_{band}")[0] if f"{name}_obs_{band}" in one.colnames else np.nan
        unit = str(getattr(one[name + ending], "unit", "") or "")
        rows.append((name, unit, best != draws, *best, *draws, seen))
    table = Table(rows=rows, names=("statistic", "unit", "calibrated", *_HEADS))
    for head in _HEADS:
        table[head].format = ".6g"
    table.meta["source_id"], table.meta["band"] = str(source_id), band
    return table
