"""Stub batches and stub workers, to measure what a run costs beside its work.

python benchmarks/throughput/stubs.py SCHEDULER_FILE N       N workers in this process, until the scheduler
goes
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Worker

from galbatch.store import PlanBatch

CHILD = {
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "env": {**os.environ, "PYTHONPATH": str(Path(__file__).parent)},  # the scheduler unpickles ``answer`` too
}
# What a worker does for itself alone is turned down, for a thousand of them share this machine;
# what they send to the scheduler is not.
LIGHT = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "1h",
    "distributed.worker.profile.enabled": False,
}


def record(rows: PlanBatch, attempt: int, seconds: float) -> dict:
    """What a batch returns, ``seconds`` of it spent in sampling."""
    return {
        "batch": rows.batch,
        "sources": len(rows),
        "ok": len(rows),
        "flagged": 0,
        "failed": 0,
        "attempt": attempt,
        "host": "stub",
        "pid": os.getpid(),
        "time": time.time(),
        "seconds": {"cut": 0.0, "sample": seconds, "measure": 0.0, "store": 0.0},
        "counters": {"draws": 1024, "evaluations": 3e4},
        "tile": "0",
        "worker": "stub",
    }


class Sleep:
    """A batch that keeps its worker's thread for ``seconds``."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __call__(self, rows: PlanBatch, exclude: dict, attempt: int) -> dict:
        start = time.perf_counter()
        time.sleep(self.seconds)
        return record(rows, attempt, time.perf_counter() - start)


async def answer(rows: PlanBatch, exclude: dict, attempt: int) -> dict:
    """A batch that is done at once and needs no thread."""
    return record(rows, attempt, 0.0)


async def host(scheduler_file: str, n: int) -> None:
    """``n`` workers in this process, until the scheduler goes."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    dask.config.set(LIGHT)
    quiet = {"nthreads": 1, "dashboard": False, "memory_limit": 0, "executor": "offload"}
    quiet["local_directory"] = str(Path(scheduler_file).parent)  # no scratch stays when killed
    workers = [
        Worker(scheduler_file=scheduler_file, name=f"stub-{os.getpid()}-{i}", **quiet) for i in range(n)
    ]
    for first in range(0, n, 50):
        await asyncio.gather(*(w.start() for w in workers[first : first + 50]))
    await asyncio.gather(*(w.finished() for w in workers))


@contextmanager
def outside_cluster(
    folder: Path, workers: int, hosts: int = 4
) -> Iterator[tuple[Path, list[subprocess.Popen]]]:
    """A scheduler and ``workers`` stub workers in ``hosts`` processes: (scheduler file, processes, the
    scheduler first)."""
    file = folder / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    children = [subprocess.Popen([*command, "--scheduler-file", str(file)], **CHILD)]
    try:
        while not file.exists():
            time.sleep(0.1)
        here = [sys.executable, __file__, str(file), str(workers // hosts)]
        children += [subprocess.Popen(here, **CHILD) for _ in range(hosts)]
        yield file, children
    finally:
        for child in reversed(children):
            child.kill()
            child.wait()


if __name__ == "__main__":
    asyncio.run(host(sys.argv[1], int(sys.argv[2])))
