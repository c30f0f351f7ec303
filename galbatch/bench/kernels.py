"""The kernels of a run, one row each: machine, network, operators, solves, a whole draw, morphology, and the
store on this disk, written and read through the run's own functions.

Every kernel is compared with a slower or independent form first; a row that is wrong is reported as such.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from galbatch.bench.network import network_table
from galbatch.bench.operators import DRAWS, STAMP, example, operator_table
from galbatch.bench.timing import machine_table, repeat, roof_of, row
from galbatch.columns import columns_of
from galbatch.morphology import measure
from galbatch.pipeline.measurement import empty_columns
from galbatch.prior.compile import BACKENDS
from galbatch.sampler import sample_posterior
from galbatch.store import PlanWriter, RunPaths, StoreLayout, create_store, iter_plan, merge_catalogue
from galbatch.store.parts import write_part
from galbatch.store.posterior import read_sums, write_shards

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.prior import Prior
    from galbatch.types import Observation


BATCH, PARTS = 64, 200


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


GROUPS = ("network", "operators", "draws", "morphology", "storage")


def kernel_table(
    prior: Prior, backends: Sequence[str] = BACKENDS, seconds: float = 0.5, groups: Sequence[str] = GROUPS
) -> Iterator[dict]:
    """Rows: kernel, unit, rate per second, correct (bool), and the timing. ``prior``: a loaded ``Prior``;
    ``groups``: which of ``GROUPS``; the machine's own rates always come first."""
    roofline = list(machine_table(prior.device, seconds, getattr(torch, prior.precision)))
    yield from roofline
    if "network" in groups:
        yield from network_table(prior, roof_of(roofline, prior.device), backends, seconds)
    if "operators" in groups:
        yield from operator_table(prior, seconds)
    if "draws" in groups:
        yield from _draws(prior, seconds)
    if "morphology" in groups:
        yield _morphology(seconds)
    if "storage" in groups:
        yield from storage_table(seconds)


class TimedPrior:
    """A prior whose share of the time is taken."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.seconds = prior, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prior, name)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        start = time.perf_counter()
        out = self.prior.denoise(x, sigma)
        if self.prior.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - start
        return out


def _draws(prior: Prior, seconds: float) -> Iterator[dict]:
    for mode in ("fast", "default", "accurate"):
        for noise in ("white", "correlated"):
            yield _draw(prior, example(np.random.default_rng(0), noise == "correlated"), mode, noise, seconds)


def _draw(prior: Prior, obs: Observation, mode: str, noise: str, seconds: float) -> dict:
    timed, posts = TimedPrior(prior), []

    def work() -> None:
        posts.append(sample_posterior(timed, obs, draws=DRAWS, mode=mode))

    start = time.perf_counter()
    timing = repeat(work, seconds, 2, prior.device)
    share = timed.seconds / (time.perf_counter() - start)
    post = posts[-1]
    fits = 0.8 < post.chi2[0, 0] < 1.2
    return row(
        f"posterior draw, {mode}, {noise} noise",
        "draw",
        DRAWS,
        timing,
        fits,
        evaluations=float(post.n_evaluations[0]),
        network_share=share,
    )


def _morphology(seconds: float) -> dict:
    image = np.repeat(example(np.random.default_rng(0)).data[:, 0].clip(-1), DRAWS, axis=0)
    table = measure(image, 0.03)
    timing = repeat(lambda: measure(image, 0.03, threads=1), seconds)
    return row("morphology, everything", "image", DRAWS, timing, np.isfinite(table["gini"]).all())
