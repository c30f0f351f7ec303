"""How a run scales beyond this machine, measured with stubs: planning, scheduler load, commits, final merge.

    python benchmarks/throughput/scale.py [--rows 1000000] [--batch 64] [--stubs 1000] [--out RESULTS.jsonl]

- plan: ``--rows`` rows over 100 tiles through the real plan writer and reader, in a process of its own:
  seconds and peak memory;
- scheduler: every batch of that plan through the real ``Dispatcher`` (window, records, retries) to
  ``--stubs`` workers that answer at once, on one real scheduler process: CPU seconds a batch of scheduler and
  client, peak memory of both, batches a second. On another machine each of them would be a GPU;
- merge: a real part file a batch at the real number of columns (all batches have the same source ids, so
  that a thousand files of noise serve for all), merged by the real merge in a process of its own.

Prints one table and appends one JSON line. What follows for 10^8 sources is in docs/guide/scale.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
from stubs import answer, outside_cluster

from galbatch.bench.kernels import part_columns
from galbatch.bench.timing import arguments, environment, keep
from galbatch.config import ExecutionSettings
from galbatch.pipeline.measurement import column_info
from galbatch.run.cluster import open_cluster
from galbatch.run.dispatcher import Dispatcher
from galbatch.run.events import Reporter, StopRequest
from galbatch.store import PlanWriter, RunPaths, iter_plan, merge_catalog
from galbatch.store.checksums import digest_file, seal
from galbatch.store.parts import write_part

TILES, DISTINCT = 100, 1_000


def alone(work, *arguments):
    """Result of ``work`` in a fresh process, and that process's peak memory and CPU time."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # which may start processes, unlike a Pool's
        return pool.submit(_measured, work, arguments).result()


def _measured(work, arguments):
    start, cpu, before = time.perf_counter(), time.process_time(), peak_of(os.getpid())
    found = work(*arguments)
    return found, {
        "s": time.perf_counter() - start,
        "cpu_s": time.process_time() - cpu,
        "start_mb": before,
        "peak_mb": peak_of(os.getpid()),
    }


def write_plan(path: Path, rows: int, batch: int, same_ids: bool = False) -> int:
    """A plan of ``rows`` rows over 100 tiles with ten columns that pass through."""
    rng = np.random.default_rng(0)
    with PlanWriter(path, batch) as writer:
        for first in range(0, rows, 65_536):
            n = min(65_536, rows - first)
            row = np.arange(first, first + n)
            tile = (
                np.full(n, "0") if same_ids else np.char.add("tile-", rng.integers(0, TILES, n).astype(str))
            )
            core = {
                "source_id": row % batch if same_ids else row,
                "ra": rng.uniform(0, 360, n),
                "dec": rng.uniform(-90, 90, n),
                "tile": tile,
                "x": rng.uniform(0, 1e4, n),
                "y": rng.uniform(0, 1e4, n),
                "prescreen_flags": np.zeros(n, np.int64),
                "_healpix_29": np.zeros(n, np.int64),
            }
            writer.add(core, {f"column_{i}": rng.normal(size=n) for i in range(10)})
    return sum(map(len, iter_plan(path)))


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_of(pid: int) -> float:
    """Peak memory of a process in MB, of itself alone: ``ru_maxrss`` begins with its parent's."""
    line = next(li for li in Path(f"/proc/{pid}/status").read_text().splitlines() if li.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def scheduler(folder: Path, plan: Path, workers: int) -> dict[str, float]:
    """Every batch of ``plan`` through the real dispatcher to stub workers."""
    with outside_cluster(folder, workers) as (file, (head, stubs, *_)):
        settings = ExecutionSettings(scheduler_file=str(file), workers=workers, report=False)
        start, reporter = time.perf_counter(), Reporter()
        cluster = open_cluster(settings, 1)
        ready = time.perf_counter() - start
        before, mine, start = cpu_seconds(head.pid), time.process_time(), time.perf_counter()
        Dispatcher(cluster, SimpleNamespace(root=folder), settings, reporter, StopRequest(), answer).run(
            iter_plan(plan)
        )
        wall, client = time.perf_counter() - start, time.process_time() - mine
        used = cpu_seconds(head.pid) - before
        peaks = {
            "scheduler_peak_mb": peak_of(head.pid),
            "client_peak_mb": peak_of(os.getpid()),
            "stub_host_peak_mb": peak_of(stubs.pid),
        }
        cluster.close()
    n = max(rows.batch for rows in iter_plan(plan)) + 1
    assert reporter.progress.done == pq.read_metadata(plan).num_rows
    return {
        "batches": n,
        "stub_workers": workers,
        "workers_join_s": ready,
        "scheduler_cpu_ms_a_batch": 1e3 * used / n,
        "client_cpu_ms_a_batch": 1e3 * client / n,
        "wall_ms_a_batch": 1e3 * wall / n,
        **peaks,
        "shortest_batch_of_1000_workers_s": 1000 * max(used, client) / n,
    }


def lay_parts(folder: Path, rows: int, batch: int) -> RunPaths:
    """A run folder whose every batch is committed: ``DISTINCT`` files, more than a row group of the catalogue
    holds, under many names."""
    paths = RunPaths(folder / "merge.run")
    paths.parts.mkdir(parents=True)
    write_plan(paths.plan, rows, batch, same_ids=True)
    rng, distinct = np.random.default_rng(1), min(DISTINCT, rows // batch)
    for number in range(distinct):
        write_part(paths, number, part_columns(np.arange(batch), rng))
    digests = [digest_file(paths.part(number)) for number in range(distinct)]
    for number in range(distinct, rows // batch):
        os.link(paths.part(number % distinct), paths.part(number))
        files = {f"parts/{paths.part(number).name}": digests[number % distinct]}
        paths.attempt(number).write_bytes(seal({"batch": number, "files": files}))
    return paths


def merge(paths: RunPaths) -> int:
    merge_catalog(paths, column_info(("f200w",)))
    return paths.catalog.stat().st_size + paths.statistics.stat().st_size


def measure(options) -> dict:
    found = {"benchmark": "scale", "rows": options.rows, "batch": options.batch, **environment("cpu")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count, cost = alone(write_plan, folder / "plan.parquet", options.rows, options.batch)
        assert count == options.rows
        found |= {f"plan_{k}": v for k, v in cost.items()} | {
            "plan_file_mb": (folder / "plan.parquet").stat().st_size / 1e6
        }
        if options.stubs:
            found |= scheduler(folder, folder / "plan.parquet", options.stubs)
        if options.merge:
            paths = lay_parts(folder, options.rows // options.batch * options.batch, options.batch)
            size, cost = alone(merge, paths)
            found |= {f"merge_{k}": v for k, v in cost.items()} | {"catalogue_mb": size / 1e6}
            found["merge_rows_a_cpu_s"] = options.rows / cost["cpu_s"]
            found["merge_rows_a_s"] = options.rows / cost["s"]  # reading and writing are two threads
    return found


def main() -> None:
    options = arguments(__doc__, rows=1_000_000, batch=64, stubs=1000, merge=True)
    found = measure(options)
    keep(found, options.out)


if __name__ == "__main__":
    main()
