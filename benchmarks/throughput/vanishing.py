"""A run whose workers are killed at random while new ones join, against the same run left in peace.

    python benchmarks/throughput/vanishing.py [CATALOG] [--sources 24] [--bands f200w] [--every 20]

Workers are processes of a LocalCluster with nannies. Every ``--every`` seconds one of them, chosen at random,
gets SIGKILL; its nanny starts another, and every third time the cluster grows or shrinks by one. Says whether
every source is there once with the same bytes, how many were killed, at what rate, and the time of both runs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import dask
from distributed import LocalCluster

from galbatch.run import process, verify
from galbatch.run.cluster import DASK_SETTINGS

PRODUCT = ("posterior.zarr/**/*", "parts/*.arrow", "catalog.parquet", "statistics.parquet", "plan.parquet")


class Chaos(threading.Thread):
    """Kills a worker of ``cluster`` every ``every_s`` seconds, once the first batch is there, until it is
    stopped; ``killed``: their process ids."""

    def __init__(self, cluster: LocalCluster, out: Path, every_s: float, seed: int = 0) -> None:
        super().__init__(daemon=True)
        self.cluster, self.out, self.every_s = cluster, out, every_s
        self.random, self.killed, self.ended = random.Random(seed), [], threading.Event()
        self.size = len(cluster.workers)
        self.worker_s = 0.0  # time that workers were wanted for, in all

    def run(self) -> None:
        while not self.ended.wait(self.every_s):
            self.worker_s += self.size * self.every_s
            if not any(self.out.glob("parts/*.arrow")):
                continue
            alive = [n.process.pid for n in self.cluster.workers.values() if n.process and n.process.pid]
            if alive:
                pid = self.random.choice(alive)
                with suppress(ProcessLookupError):  # it is being started again
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(pid)
            if len(self.killed) % 3 == 0:
                self.size += 1 if self.size < 3 else -1
                self.cluster.scale(self.size)

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.join()

    def __enter__(self) -> Chaos:
        self.start()
        return self


def disturbed(catalog: Path, out: Path, workers: int, every_s: float, **options: object) -> Chaos:
    """A run on ``workers`` that vanish; returns who made them."""
    dask.config.set(DASK_SETTINGS | {"distributed.scheduler.allowed-failures": 20})
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Chaos(cluster, out, every_s) as chaos,
    ):
        process(catalog, out=out, scheduler=cluster.scheduler_address, workers=1, report=False, **options)
    return chaos


def product(run: Path) -> dict[str, bytes]:
    """Every byte that must not depend on how a run was carried out."""
    files = [path for pattern in PRODUCT for path in run.glob(pattern) if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog", nargs="?", type=Path, default=Path("catalogs/demo.parquet"))
    parser.add_argument("--sources", type=int, default=24)
    parser.add_argument("--bands", default="f200w")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between kills")
    options = parser.parse_args()
    how = dict(
        bands=options.bands.split(","), limit=options.sources, batch=2, mode="fast", precision="float32"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        chaos = disturbed(options.catalog, folder / "a.run", options.workers, options.every, **how)
        middle = time.monotonic()
        calm = process(options.catalog, out=folder / "b.run", cluster="none", **how)
        ended = time.monotonic()
        same = product(folder / "a.run") == product(folder / "b.run")
        rate = 60 * len(chaos.killed) / max(chaos.worker_s, 1e-9)
        print(
            f"{calm.summary['planned']} sources, {len(chaos.killed)} workers killed ({rate:.0%} per minute): "
            f"{'same bytes' if same else 'OTHER BYTES'}, verify: {verify(folder / 'a.run') or 'sound'}; "
            f"{middle - began:.0f} s, serial and undisturbed {ended - middle:.0f} s"
        )


if __name__ == "__main__":
    main()
