"""Whole runs with the real prior: several workers against one, what Dask costs, and the peak memory of a
worker.

    python benchmarks/throughput/whole_run.py [--catalog catalogs/demo.parquet] [--workers 1 2]
        [--sources 24 48] [--draws 8] [--mode fast] [--batch 4] [--out RESULTS.jsonl]

Correctness first: every run must leave the same catalogue, byte for byte, as the first one of its length. For
each number of workers and of sources:

- ``busy``: seconds that batches took over workers x wall seconds, from the end of each worker's first batch
  (which loads and compiles) to the end of the last; 1 - busy is what Dask, waiting and the merge's
  bookkeeping cost;
- ``sources_per_s`` over the same span; ``cores``: CPU seconds of the workers over the span's wall seconds,
  which says how many cores they really had: on a machine that others use too, quote sources per core-second;
- ``peak_mb``: the largest resident memory of any worker. It must not grow with the number of sources.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

from distributed import default_client

from galbatch.bench.timing import arguments, environment, keep
from galbatch.run import process


def peak_and_cpu() -> tuple[float, float]:
    """On a worker: peak resident memory in MB, and CPU seconds so far."""
    line = next(li for li in Path("/proc/self/status").read_text().splitlines() if li.startswith("VmHWM"))
    return int(line.split()[1]) / 1024, time.process_time()


def measure(options, workers: int, sources: int) -> dict:
    """One run in a folder of its own."""
    seen: list[tuple[int, float, float]] = []  # sources done, wall, CPU seconds of all workers
    peaks: list[float] = []

    def look(progress):
        if progress.done > (seen[-1][0] if seen else 0):
            found = list(default_client().run(peak_and_cpu).values())
            peaks.append(max(p for p, _ in found))
            seen.append((progress.done, time.perf_counter(), sum(c for _, c in found)))

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "whole.run"
        process(
            options.catalog,
            out=out,
            cluster="local",
            workers=workers,
            batch=options.batch,
            limit=sources,
            draws=options.draws,
            mode=options.mode,
            on_progress=look,
            report=False,
        )
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        digest = hashlib.sha256((out / "catalog.parquet").read_bytes()).hexdigest()
        summary = json.loads((out / "summary.json").read_text())
    batches = [r for r in records if r["event"] == "batch"]
    first = seen[workers - 1]
    span, fresh = seen[-1][1] - first[1], seen[-1][0] - first[0]
    work = sum(sum(r["seconds"].values()) for r in batches[workers:])
    return {
        "workers": workers,
        "sources": sources,
        "batches": len(batches),
        "catalogue": digest[:12],
        "busy": work / (workers * span),
        "sources_per_s": fresh / span,
        "cores": (seen[-1][2] - first[2]) / span,
        "sources_per_core_s": fresh / max(seen[-1][2] - first[2], 1e-9),
        "peak_mb": max(peaks),
        "stage_seconds": summary["stage_seconds"],
        "draws": options.draws,
        "mode": options.mode,
    }


def main() -> None:
    demo = Path(__file__).parents[2] / "catalogs" / "demo.parquet"
    options = arguments(
        __doc__, catalog=demo, workers=[1, 2], sources=[24, 48], draws=8, mode="fast", batch=4
    )
    same: dict[int, str] = {}
    for sources in options.sources:
        for workers in options.workers:
            row = {"benchmark": "whole_run", "load_before": os.getloadavg()[0]} | measure(
                options, workers, sources
            )
            if same.setdefault(sources, row["catalogue"]) != row["catalogue"]:
                raise SystemExit(
                    f"{workers} workers made another catalogue than the first run of {sources} sources"
                )
            keep(row | environment("cpu"), options.out)


if __name__ == "__main__":
    main()
