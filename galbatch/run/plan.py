"""From catalogue to plan: locate every source, streamed, and give it its batch and slot."""

from __future__ import annotations

from typing import Any

import numpy as np

from galbatch.catalog.columns import OPTIONAL, REQUIRED, to_numpy
from galbatch.run.columns import passing_names
from galbatch.run.cutter import CUT
from galbatch.store import PlanWriter, RunPaths, healpix_nested

CUT_COLUMNS = ("tile", "x", "y", "psf_index", "segmap_id", "psf_x", "psf_y", "stamp_arcsec")


def write_plan(
    paths: RunPaths,
    catalog: Any,
    survey: Any,
    batch: int,
    limit: int = 0,
    row_flags: np.ndarray | None = None,
) -> int:
    """Write ``plan.parquet`` for the rows of ``catalog`` (the first ``limit``, 0 for all); returns their
    number.

    ``row_flags`` (n_rows,): flags that the validation of the catalogue found. Rows are sorted by the tile of
    the finest band, then by row, so that a batch reads one part of one mosaic. Memory is bounded by a block
    of rows.
    """
    names = passing_names(catalog, survey.band_names)
    with PlanWriter(paths.plan, batch) as plan:
        for table in catalog.tables() if catalog.n_rows else [catalog.schema.empty_table()]:
            if limit:
                table = table.slice(0, limit - plan.n_rows)
            known = {
                n: to_numpy(str(catalog.path), n, table.column(n))
                for n in (*REQUIRED, *OPTIONAL)
                if n in table.column_names
            }
            core = locate_rows(known, survey)
            if row_flags is not None and len(row_flags):
                core["prescreen_flags"] |= row_flags[plan.n_rows : plan.n_rows + table.num_rows]
            plan.add(core, {new: table.column(old) for old, new in names.items()})
            if limit and plan.n_rows >= limit:
                break
        return plan.n_rows


def locate_rows(known: dict[str, np.ndarray], survey: Any) -> dict[str, np.ndarray]:
    """Galbatch's own columns of the plan: identity, located position, pre-screen flags, and what the cut
    needs."""
    n = len(known["source_id"])
    ra, dec = (known.get(name, np.full(n, np.nan)) for name in ("ra", "dec"))
    found = survey.locate(ra, dec, **{k: known[k] for k in ("tile", "x", "y") if k in known})
    core = {
        "source_id": known["source_id"],
        "ra": ra,
        "dec": dec,
        "tile": np.asarray(found.tile).astype(str),
        "x": found.x,
        "y": found.y,
        "prescreen_flags": np.asarray(found.flags, np.int64).copy(),
        "_healpix_29": healpix_nested(ra, dec),
    }
    cut = {CUT + name: known[name] for name in CUT_COLUMNS if name in known}
    if "stamp_arcsec" in known and not survey.config.stamp_auto:  # the survey's size, where a row has none
        scale, wanted = survey.geometry()[survey.finest()].scale_arcsec, known["stamp_arcsec"]
        own = np.isfinite(wanted) & (wanted > 0)
        cut[CUT + "stamp_arcsec"] = np.where(own, wanted, survey.stamp_pix() * scale)
    return core | cut
