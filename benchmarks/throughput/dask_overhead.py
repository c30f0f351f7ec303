"""What Dask costs: batches that sleep, through the real cluster choice, window and records.

    python benchmarks/throughput/dask_overhead.py [--seconds 1.5] [--batches 40] [--workers 2] [--out
    RESULTS.jsonl]

Overhead = workers x elapsed / sum of the batches' own seconds - 1, from the first submission to the last
answer. Also: one worker against several, and what starting the cluster takes.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
from stubs import Sleep

from galbatch.bench.timing import arguments, environment, keep
from galbatch.config import ExecutionSettings
from galbatch.run.cluster import open_cluster
from galbatch.run.events import Reporter, StopRequest
from galbatch.run.farm import Farm
from galbatch.store import PlanBatch


def measure(workers: int, batches: int, seconds: float) -> dict[str, float]:
    """Elapsed and overhead of ``batches`` sleeping batches on ``workers`` processes."""
    columns = {
        "source_id": np.arange(64),
        "ra": np.zeros(64),
        "dec": np.zeros(64),
        "prescreen_flags": np.zeros(64, np.int64),
    }
    settings, reporter, start = (
        ExecutionSettings(cluster="local", workers=workers),
        Reporter(),
        time.perf_counter(),
    )
    cluster = open_cluster(settings, batches)
    try:
        cluster.client.wait_for_workers(workers)
        started = time.perf_counter() - start
        Farm(cluster, SimpleNamespace(root="none"), settings, reporter, StopRequest(), Sleep(0.01)).run(
            PlanBatch(10**6 + i, columns) for i in range(workers)
        )
        reporter, start = Reporter(), time.perf_counter()
        Farm(cluster, SimpleNamespace(root="none"), settings, reporter, StopRequest(), Sleep(seconds)).run(
            PlanBatch(i, columns) for i in range(batches)
        )
        elapsed = time.perf_counter() - start
    finally:
        cluster.close()
    work = reporter.progress.seconds["sample"]
    return {
        "elapsed_s": elapsed,
        "work_s": work,
        "overhead": workers * elapsed / work - 1,
        "cluster_start_s": started,
    }


def main() -> None:
    options = arguments(__doc__, seconds=1.5, batches=40, workers=2)
    one = measure(1, options.batches // options.workers, options.seconds)
    many = measure(options.workers, options.batches, options.seconds)
    result = {
        "benchmark": "dask_overhead",
        "batch_s": options.seconds,
        "workers": options.workers,
        "overhead_one": one["overhead"],
        "overhead": many["overhead"],
        "cluster_start_s": many["cluster_start_s"],
        "speedup": (one["elapsed_s"] / one["work_s"]) / (many["elapsed_s"] / many["work_s"]),
    }
    keep(result | environment("cpu"), options.out)


if __name__ == "__main__":
    main()
