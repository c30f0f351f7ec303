"""The store on this disk: Zarr shards and Parquet tables, written and read through the run's own
functions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.bench.timing import repeat, row
from galbatch.columns import columns_of
from galbatch.pipeline.measurement import empty_columns
from galbatch.store import PlanWriter, RunPaths, StoreLayout, create_store, iter_plan, merge_catalogue
from galbatch.store.parts import write_part
from galbatch.store.posterior import read_sums, write_shards

BATCH, DRAWS, STAMP, PARTS = 64, 16, 64, 200


def storage_table(seconds: float, folder: Path | None = None) -> Iterator[dict]:
    """Rows: MB/s of samples written (rounded, compressed, read back and compared), read; rows/s of the merge;
    parts/s.

    ``folder``: where to write, the temporary directory when None.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        yield from _shards(Path(scratch), seconds)
        yield from _tables(Path(scratch), seconds)


def _shards(folder: Path, seconds: float) -> Iterator[dict]:
    layout = StoreLayout(BATCH, BATCH, DRAWS, ("f200w",), STAMP)
    rng = np.random.default_rng(0)
    smooth = np.exp(-np.hypot(*(np.mgrid[:STAMP, :STAMP] - STAMP / 2)) / 6)
    samples = smooth + 0.02 * rng.standard_normal((BATCH, DRAWS, 1, STAMP, STAMP))
    arrays = {"samples": samples.astype(np.float32), "source_id": np.arange(BATCH)}
    for name in ("mean", "std", "prior_driven", "observed", "sigma", "model"):
        arrays[name] = samples[:, 0].astype(np.float32)
    path, size = folder / "posterior.zarr", 1e-6 * sum(a.nbytes for a in arrays.values())
    create_store(path, layout)
    sums, _ = write_shards(path, layout, 0, arrays)
    timing = repeat(lambda: write_shards(path, layout, 0, arrays), seconds)
    disk = 1e-6 * sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    correct = read_sums(path, layout, 0) == sums
    yield row("Zarr, write and read back", "MB", size, timing, correct, megabytes=size, on_disk=disk)
    timing = repeat(lambda: read_sums(path, layout, 0), seconds)
    yield row("Zarr, read", "MB", size, timing, correct)


def _tables(folder: Path, seconds: float) -> Iterator[dict]:
    paths, rng, n = RunPaths(folder / "merge.run"), np.random.default_rng(1), PARTS * BATCH
    paths.parts.mkdir(parents=True)
    with PlanWriter(paths.plan, BATCH) as plan:
        known = {"source_id": np.arange(n), "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-90, 90, n)}
        plan.add(known | {"tile": np.full(n, "0"), "prescreen_flags": np.zeros(n, np.int64)}, {})
    parts = [(b.batch, part_columns(b.columns["source_id"], rng)) for b in iter_plan(paths.plan)]

    def write() -> None:
        for number, columns in parts:
            write_part(paths, number, columns, {})

    timing = repeat(write, seconds)
    yield row(
        "Arrow, parts written", "row", n, timing, len(paths.committed()) == PARTS, columns=len(parts[0][1])
    )
    counts: dict = {}

    def merge() -> Any:
        counts.update(merge_catalogue(paths, columns_of(["f200w"])))

    timing = repeat(merge, seconds)
    yield row("Parquet, catalogue merged", "row", n, timing, counts == {"ok": n}, columns=len(parts[0][1]))


def part_columns(
    ids: np.ndarray, rng: np.random.Generator, bands: tuple[str, ...] = ("f200w",)
) -> dict[str, np.ndarray]:
    """Columns of a part of a run of ``bands``, filled with noise."""
    columns = {
        k: rng.normal(size=len(ids)).astype(v.dtype) for k, v in empty_columns(bands, len(ids)).items()
    }
    columns |= {
        "source_id": ids,
        "status": np.full(len(ids), "ok", object),
        "flags": np.zeros(len(ids), np.int64),
    }
    return columns | {f"failure_{k}": np.full(len(ids), "", object) for k in ("stage", "code", "message")}
