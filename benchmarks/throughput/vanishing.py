"""A run whose workers are killed at random while new ones join, against the same run left in peace.

    python benchmarks/throughput/vanishing.py [CATALOG] [--sources 24] [--per-minute 0.1] [--redraw 0]

Workers are processes of a LocalCluster with nannies. At the rate ``--per-minute``, of the workers there are,
one chosen at random gets SIGKILL; its nanny starts another, and every third time the cluster grows or
shrinks by one. Says whether every source is there once with the same bytes, how many were killed, at what
rate, and the time of both runs. ``--compare``: so many sources of the undisturbed run alone, in batches of
the same rows; ``--redraw``: so many of them are drawn again.
More ``--sources`` than the catalogue has are its positions again, some pixels beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import dask
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import LocalCluster

from galbatch.run import process, verify
from galbatch.run.cluster import DASK_SETTINGS
from galbatch.store import open_run

BATCHES = ("posterior.zarr/*/c/**/*", "parts/*.arrow")
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
        process(catalog, out=out, scheduler=cluster.scheduler_address, workers=1, **options)
    return chaos


def spread(catalog: Path, folder: Path, sources: int, within_arcsec: float = 0.2) -> Path:
    """A catalogue of ``sources`` rows in ``folder``: those of ``catalog`` again and again, a little aside."""
    table = pq.read_table(catalog)
    table = table.take(pa.array(np.arange(sources) % len(table))).replace_schema_metadata(None)
    offsets = np.random.default_rng(0).uniform(-within_arcsec, within_arcsec, (2, sources)) / 3600
    dec = table["dec"].to_numpy() + offsets[1]
    moved = {"source_id": np.arange(sources), "dec": dec}
    moved["ra"] = table["ra"].to_numpy() + offsets[0] / np.cos(np.radians(dec))
    for name, values in moved.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, folder / "spread.parquet")
    return folder / "spread.parquet"


def unequal(run: Path, calm: Path, whole: bool) -> list[str]:
    """Files of the undisturbed run whose bytes are others in ``run``: those of its batches alone, where
    it is not of the whole catalogue."""
    patterns = PRODUCT if whole else BATCHES
    files = [path.relative_to(calm) for pattern in patterns for path in calm.glob(pattern) if path.is_file()]
    assert files
    print(f"{len(files)} files compared", flush=True)
    return [
        str(f) for f in files if not (run / f).is_file() or (run / f).read_bytes() != (calm / f).read_bytes()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog", nargs="?", type=Path, default=Path("catalogs/demo.parquet"))
    parser.add_argument("--sources", type=int, default=24)
    parser.add_argument("--compare", type=int, default=0, help="first sources of the undisturbed run; 0: all")
    parser.add_argument("--bands", default="f200w")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--per-minute", type=float, default=0.1, help="share of the workers that is killed")
    parser.add_argument("--mode", default="fast")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--stamp-pix", type=int, default=0)
    parser.add_argument("--redraw", type=int, default=0)
    options = parser.parse_args()
    how = {name: getattr(options, name) for name in ("mode", "draws", "batch", "stamp_pix")}
    how |= {"bands": options.bands.split(","), "samples": "regenerate", "report": False}
    how["survey"] = options.catalog.with_suffix(".toml")
    compared = options.compare or options.sources
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalog, out = spread(options.catalog, folder, options.sources), folder / "a.run"
        every_s = 60 / (options.per_minute * options.workers)
        began = time.monotonic()
        chaos = disturbed(catalog, out, options.workers, every_s, **how)
        took = time.monotonic() - began
        rate = 60 * len(chaos.killed) / max(chaos.worker_s, 1e-9)
        once = Counter(open_run(out).values("source_id")["source_id"].tolist())
        print(
            f"{options.sources} sources, {len(once)} there, the most often one {max(once.values())} times; "
            f"{len(chaos.killed)} workers killed ({rate:.0%} per minute), verify: {verify(out) or 'sound'}; "
            f"{took:.0f} s, {json.dumps(open_run(out).summary)}",
            flush=True,
        )
        began = time.monotonic()
        calm = process(catalog, out=folder / "b.run", cluster="none", limit=compared % options.sources, **how)
        print(f"the first {compared} serial and undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        other = unequal(out, folder / "b.run", compared == options.sources)
        print(f"OTHER BYTES: {other}" if other else "same bytes", flush=True)
        ids = calm.finished_ids()
        chosen = ids[:: max(1, len(ids) // max(1, options.redraw))][: options.redraw]
        equal = sum(calm.redraw(source_id).equal for source_id in chosen)
        print(f"{equal} of {len(chosen)} sources drawn again are bit for bit those measured", flush=True)


if __name__ == "__main__":
    main()
