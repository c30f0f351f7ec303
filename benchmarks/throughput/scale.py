"""How a run scales beyond this machine, measured with stubs: planning, scheduler load, commits, final merge.

    python benchmarks/throughput/scale.py [--rows 1000000] [--tasks 16000] [--stubs 1000] [--out
    RESULTS.jsonl]

- plan: 10^6 rows over 100 tiles through the real plan writer and reader; seconds and peak memory;
- scheduler: ``--tasks`` no-op batches with the real window and result records on one scheduler whose
``--stubs`` workers
  are in-process threads: CPU seconds a task, hence how many workers one scheduler feeds;
- parts and merge: real part files of ``--parts`` batches at the real number of columns, merged by the real
merge.

Prints one table and appends one JSON line. Numbers for 10^8 sources are these, multiplied, and say so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from galbatch.measurement import empty_columns
from galbatch.store import PlanBatch, PlanWriter, RunPaths, iter_plan, merge_catalogue
from galbatch.store.parts import write_part

BATCH = 64


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plan(folder: Path, rows: int) -> dict[str, float]:
    """Write and read a plan of ``rows`` rows."""
    rng, start, cpu = np.random.default_rng(0), time.perf_counter(), time.process_time()
    with PlanWriter(folder / "plan.parquet", BATCH) as writer:
        for first in range(0, rows, 65_536):
            n = min(65_536, rows - first)
            tile = np.char.add("tile-", rng.integers(0, 100, n).astype(str))
            writer.add(
                {
                    "source_id": np.arange(first, first + n),
                    "ra": rng.uniform(0, 360, n),
                    "dec": rng.uniform(-90, 90, n),
                    "tile": tile,
                    "x": rng.uniform(0, 1e4, n),
                    "y": rng.uniform(0, 1e4, n),
                    "prescreen_flags": np.zeros(n, np.int64),
                    "_healpix_29": np.zeros(n, np.int64),
                },
                {f"column_{i}": rng.normal(size=n) for i in range(10)},
            )
    written = time.perf_counter() - start
    start = time.perf_counter()
    count = sum(len(b) for b in iter_plan(folder / "plan.parquet"))
    assert count == rows
    return {
        "plan_write_s": written,
        "plan_read_s": time.perf_counter() - start,
        "plan_cpu_s": time.process_time() - cpu,
        "plan_mb": (folder / "plan.parquet").stat().st_size / 1e6,
        "plan_peak_mb": peak_mb(),
    }


async def scheduler(tasks: int, stubs: int) -> dict[str, float]:
    """Feed ``tasks`` no-op batches to ``stubs`` in-process workers in a sliding window of two a worker."""
    from distributed import Client, Scheduler, Worker

    logging.getLogger("distributed").setLevel(logging.ERROR)
    columns = {
        "source_id": np.arange(BATCH),
        "ra": np.zeros(BATCH),
        "dec": np.zeros(BATCH),
        "x": np.zeros(BATCH),
        "y": np.zeros(BATCH),
        "prescreen_flags": np.zeros(BATCH, np.int64),
    }
    async with Scheduler(port=0, dashboard=False) as head:
        workers = [Worker(head.address, nthreads=1, dashboard=False, memory_limit=0) for _ in range(stubs)]
        await asyncio.gather(*(w.start() for w in workers))
        async with Client(head.address, asynchronous=True) as client:
            cpu, start, flying, sent = time.process_time(), time.perf_counter(), set(), 0
            while flying or sent < tasks:
                while sent < tasks and len(flying) < 2 * stubs:
                    flying.add(
                        client.submit(
                            stub, PlanBatch(sent, columns), key=f"galbatch-batch-{sent:06d}", pure=False
                        )
                    )
                    sent += 1
                done = {f for f in flying if f.done()}
                for future in done:
                    future.release()
                flying -= done
                await asyncio.sleep(0.002)
            used = time.process_time() - cpu, time.perf_counter() - start
        await asyncio.gather(*(w.close() for w in workers))
    return {
        "tasks": tasks,
        "stub_workers": stubs,
        "cpu_ms_a_task": 1e3 * used[0] / tasks,
        "wall_ms_a_task": 1e3 * used[1] / tasks,
    }


def stub(rows: PlanBatch) -> dict:
    """The record that a batch returns."""
    return {
        "batch": rows.batch,
        "sources": len(rows),
        "ok": len(rows),
        "flagged": 0,
        "failed": 0,
        "attempt": 1,
        "host": "stub",
        "pid": 1,
        "time": 0.0,
        "seconds": {"cut": 0.1, "sample": 1.0},
        "counters": {"draws": 1024},
    }


def merge(folder: Path, parts: int) -> dict[str, float]:
    """Write and merge ``parts`` part files."""
    paths = RunPaths(folder / "merge.run")
    paths.parts.mkdir(parents=True)
    n, rng = parts * BATCH, np.random.default_rng(1)
    with PlanWriter(paths.plan, BATCH) as writer:
        writer.add(
            {
                "source_id": np.arange(n),
                "ra": rng.uniform(0, 360, n),
                "dec": rng.uniform(-90, 90, n),
                "tile": np.full(n, "0"),
                "prescreen_flags": np.zeros(n, np.int64),
            },
            {},
        )
    start = time.perf_counter()
    for batch in iter_plan(paths.plan):
        columns = {
            k: rng.normal(size=len(batch)).astype(v.dtype)
            for k, v in empty_columns(("f200w",), len(batch)).items()
        }
        columns |= {
            "source_id": batch.columns["source_id"],
            "status": np.full(len(batch), "ok", object),
            "flags": np.zeros(len(batch), np.int64),
        }
        columns |= {f"failure_{k}": np.full(len(batch), "", object) for k in ("stage", "code", "message")}
        write_part(paths, batch.batch, columns, {})
    written, start = time.perf_counter() - start, time.perf_counter()
    merge_catalogue(paths, {})
    took = time.perf_counter() - start
    return {
        "parts": parts,
        "part_write_ms": 1e3 * written / parts,
        "merge_rows_per_s": n / took,
        "merge_peak_mb": peak_mb(),
        "columns": len(columns),
        "catalogue_mb": paths.catalogue.stat().st_size / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=16_000)
    parser.add_argument("--stubs", type=int, default=1_000)
    parser.add_argument("--parts", type=int, default=500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    result = {
        "benchmark": "scale",
        "commit": commit,
        "machine": platform.processor() or platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "rows": options.rows,
    }
    with tempfile.TemporaryDirectory() as folder:
        result |= plan(Path(folder), options.rows) | merge(Path(folder), options.parts)
    if options.tasks:
        result |= asyncio.run(scheduler(options.tasks, options.stubs))
        result["workers_fed_by_one_scheduler_at_2_s_a_batch"] = round(2e3 / result["cpu_ms_a_task"])
    for key, value in result.items():
        print(f"{key:>45}  {value:.4g}" if isinstance(value, float) else f"{key:>45}  {value}")
    if options.out:
        with open(options.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
