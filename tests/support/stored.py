"""A run folder with a plan, parts and a catalogue, made without a run: for the tests of tables and parts."""

import numpy as np

from galbatch.columns import Column, columns_of
from galbatch.store.layout import StoreLayout
from galbatch.store.parts import BatchResult, commit_batch
from galbatch.store.paths import RunPaths, write_atomic
from galbatch.store.plan import PlanWriter, iter_plan
from galbatch.store.posterior import create_store

INFO = {
    "gini_p50_f200w": columns_of(["f200w"])["gini_p50_f200w"],
    "flux_njy_p50_f200w": Column("nJy", "phot.flux.density", "flux", table="catalog"),
    "gini_obs_f200w": columns_of(["f200w"])["gini_obs_f200w"],
}


def make_run(tmp_path, n=10, batch=4, spill=500_000):
    """A run folder with a plan over two tiles and every batch committed."""
    paths = RunPaths(tmp_path)
    paths.parts.mkdir(parents=True)
    tiles = np.array(["b", "a"])[np.arange(n) % 2]
    with PlanWriter(paths.plan, batch, spill) as plan:
        for start in range(0, n, 3):
            s = slice(start, min(start + 3, n))
            ids = np.arange(n)[s] + 2**60
            place = {"ra": np.linspace(150, 151, n)[s], "dec": np.full(len(ids), 2.0), "tile": tiles[s]}
            own = {"source_id": ids, "prescreen_flags": np.zeros(len(ids), np.int64)} | place
            names = np.array([f"g{i}" for i in range(n)], object)[s]
            plan.add(own, {"redshift": np.linspace(0, 1, n)[s], "name": names})
    layout = StoreLayout(n, batch, 2, ("f200w",), 4)
    create_store(paths.posterior, layout)
    for rows in iter_plan(paths.plan):
        commit_batch(paths, layout, result(rows))
    write_atomic(paths.manifest, b"{}")
    return paths, layout


def result(rows):
    n, ids = len(rows), rows.columns["source_id"]
    status = np.full(n, "ok", object)
    status[rows.columns["source_row"] == 3] = "failed"
    failed = status == "failed"
    code = np.array([{"ok": 1, "flagged": 2, "failed": 3}[s] for s in status], np.uint8)
    mean = np.where(failed[:, None, None, None], np.nan, np.ones((n, 1, 4, 4))).astype("f4")
    columns = {
        "source_id": ids,
        "status": status,
        "flags": np.where(failed, 2, 0),
        "gini_p50_f200w": np.where(failed, np.nan, 0.5).astype("f4"),
        "gini_obs_f200w": (ids - 2**60 + 0.5).astype("f4"),
        "flux_njy_p50_f200w": (ids - 2**60).astype("f4"),
        "failure_stage": np.where(failed, "cutout", ""),
        "failure_code": np.where(failed, "OFF_IMAGE", ""),
        "failure_message": np.where(failed, "off", ""),
    }
    return BatchResult(rows.batch, {"source_id": ids, "status": code, "mean": mean}, columns)
