"""Stamps of mosaics in a bucket: requests and bytes per source, of a HATS catalogue and of a shuffled one.

    python benchmarks/throughput/remote_cutouts.py [--rows 4000] [--spacing 64] [--cache-mb 64] [--workers 1]
        [--node-cache-mb 0] [--hats-only] [--out OUT]

Three planes (science, error, mask) lie in a bucket of moto's S3 server on this machine. Every source is cut
once, in the batches of its plan, each by the worker process that is free; the stamps of each tenth batch are
held to those of the local files. ``--node-cache-mb``: of the blocks that all workers share on disk, empty at
first. ``read``: bytes over those of the planes, 1 where each block came once.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats_run import PLANES, SCALE, STAMP, SURVEY, make_inputs

from galbatch.bench.timing import arguments, environment, keep
from galbatch.catalog import open_catalog
from galbatch.cutouts import open_survey, take_traffic
from galbatch.cutouts.fits import remote
from galbatch.run.lay_out import write_plan
from galbatch.store import PlanBatch, RunPaths, iter_plan, place_of

SURVEYS: list[Any] = []  # of this process: in the bucket, and the same on disk


def begin(folder: Path, local: Path, cache_mb: int) -> None:
    """Make this process a worker."""
    remote._CACHE.limit = cache_mb << 20
    SURVEYS[:] = [open_survey(folder / "s.toml"), open_survey(local)]
    take_traffic()


def cut_one(batch: PlanBatch) -> dict[str, int]:
    """The stamps of a batch from the bucket; what it cost."""
    survey, here = SURVEYS
    sources = {name: batch.columns[name] for name in ("source_id", "ra", "dec")}
    found = survey.cut(sources, STAMP)
    assert not found.failures
    if batch.batch % 10 == 0:
        same = here.cut(sources, STAMP)
        for name in ("data", "sigma", "mask"):
            a, b = getattr(found.bands[0], name), getattr(same.bands[0], name)
            assert np.array_equal(a, b, equal_nan=name != "mask"), name
    return take_traffic()


def cut(catalog: Path, folder: Path, local: Path, cache_mb: int, workers: int) -> dict[str, float]:
    """Every batch of the plan of ``catalog`` cut from the bucket."""
    paths = RunPaths(folder / catalog.stem)
    paths.parts.mkdir(parents=True)
    rows = write_plan(paths, open_catalog(catalog), open_survey(folder / "s.toml"), 64)
    spent: Counter[str] = Counter()
    start = time.perf_counter()
    with get_context("spawn").Pool(workers, begin, (folder, local, cache_mb)) as pool:
        for cost in pool.imap(cut_one, iter_plan(paths.plan)):
            spent.update(cost)
    return {
        "requests_per_source": spent["requests"] / rows,
        "kb_per_source": spent["bytes"] / rows / 1e3,
        "bytes": spent["bytes"],
        "s": time.perf_counter() - start,
    }


def measure(
    rows: int, spacing: int, cache_mb: int, workers: int, node_mb: int, orders: dict[str, str]
) -> dict[str, object]:
    """One line of results."""
    from bucket import environment as keys
    from bucket import s3_server

    with tempfile.TemporaryDirectory() as name, s3_server() as port:
        folder = Path(name)
        make_inputs(folder, rows, spacing)
        os.environ.update(keys(port) | {"GALBATCH_NODE_CACHE_MB": str(node_mb)})
        size = sum((folder / plane).stat().st_size for plane in PLANES)
        for plane in PLANES:
            place_of(f"s3://bucket/mosaics/{plane}").take_file(folder / plane)
        for toml, where in (("s.toml", "s3://bucket/mosaics"), ("local.toml", name)):
            (folder / toml).write_text(SURVEY.format(where=where, stamp=STAMP, scale=SCALE))
        table = pa.concat_tables(open_catalog(folder / "cat.hats").tables())
        order = np.random.default_rng(5).permutation(len(table))
        pq.write_table(table.take(pa.array(order)), folder / "flat.parquet")
        found: dict[str, object] = {"benchmark": "remote_cutouts", "rows": rows, "stamp_pix": STAMP}
        found |= {"planes_mb": size / 1e6, "side_pix": int(np.sqrt(size / 10)), "cache_mb": cache_mb}
        found |= {"workers": workers, "node_cache_mb": node_mb}
        for label, catalog in orders.items():
            os.environ["GALBATCH_CACHE"] = str(folder / f"{label}-cache")
            cost = cut(folder / catalog, folder, folder / "local.toml", cache_mb, workers)
            found |= {f"{label}_{key}": value for key, value in cost.items() if key != "bytes"}
            found[f"{label}_read"] = cost["bytes"] / size
    return found | environment("cpu")


def main() -> None:
    """Measure, print, append."""
    options = arguments(
        __doc__, rows=4000, spacing=64, cache_mb=64, workers=1, node_cache_mb=0, hats_only=False
    )
    orders = {"hats": "cat.hats"} | ({} if options.hats_only else {"shuffled": "flat.parquet"})
    caches = options.cache_mb, options.workers, options.node_cache_mb
    found = measure(options.rows, options.spacing, *caches, orders)
    keep(found, options.out)


if __name__ == "__main__":
    main()
