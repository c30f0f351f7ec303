"""The stages of a run, one row each: the network by backend, a whole draw, morphology, and the store on this
disk, written and read through the run's own functions.

Each is held to what is known of its result first; a row that is wrong is reported as such.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from galbatch.bench.timing import repeat, row
from galbatch.columns import columns_of
from galbatch.morphology import measure
from galbatch.pipeline.measurement import empty_columns
from galbatch.prior.compile import BACKENDS, compile_denoiser
from galbatch.sampler import sample_posterior
from galbatch.store import PlanWriter, RunPaths, StoreLayout, create_store, iter_plan, merge_catalog
from galbatch.store.parts import write_part
from galbatch.store.posterior import open_store, round_mantissa, write_shards
from galbatch.types import Observation

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.prior import Prior


STAMP, DRAWS = 64, 16
ACF = np.outer([0.08, 0.36, 1, 0.36, 0.08], [0.08, 0.36, 1, 0.36, 0.08])


def example(rng: np.random.Generator, correlated: bool = False) -> Observation:
    """One disc with a bar-like core, S/N of some tens, heteroscedastic noise (correlated as ``ACF`` if asked
    for), one bad pixel in a hundred."""
    y, x = np.mgrid[:STAMP, :STAMP] - STAMP / 2
    image = np.exp(-np.hypot(y, x / 0.6) / 6) + 2 * np.exp(-(y**2 + (x / 2) ** 2) / 4)
    grid = np.arange(41) - 20
    psf = np.exp(-0.5 * (grid[:, None] ** 2 + grid[None, :] ** 2) / 1.5**2)
    sigma = 0.02 * np.exp(0.2 * y / STAMP)
    noise = rng.standard_normal(image.shape)
    if correlated:
        around_zero = np.roll(np.pad(ACF, (0, STAMP - len(ACF))), (-2, -2), (0, 1))
        noise = np.fft.irfft2(np.fft.rfft2(noise) * np.sqrt(np.fft.rfft2(around_zero).real), s=noise.shape)
    data = image + sigma * noise
    mask = rng.random(image.shape) < 0.01
    acf = ACF[None] if correlated else None
    psf = psf[None] / psf.sum()
    return Observation(data[None, None], sigma[None, None], psf, mask[None, None], noise_acf=acf)


BATCH, PARTS, AT_ONCE = 64, 200, 8


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
    group = open_store(path)

    def read() -> dict[str, np.ndarray]:
        return {name: np.asarray(group[name][layout.rows(0)]) for name in layout.arrays()}

    timing = repeat(lambda: write_shards(path, layout, 0, arrays), seconds)
    disk = 1e-6 * sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    correct = np.array_equal(read()["samples"], round_mantissa(arrays["samples"]))
    yield row("Zarr, write and read back", "MB", size, timing, correct, megabytes=size, on_disk=disk)
    timing = repeat(read, seconds)
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
            write_part(paths, number, columns)

    timing = repeat(write, seconds)
    yield row(
        "Arrow, parts written", "row", n, timing, len(paths.committed()) == PARTS, columns=len(parts[0][1])
    )
    counts: dict = {}

    def merge() -> Any:
        counts.update(merge_catalog(paths, columns_of(["f200w"])))

    timing = repeat(merge, seconds)
    yield row("Parquet, catalogue merged", "row", n, timing, counts == {"ok": n}, columns=len(parts[0][1]))


def part_columns(ids: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Columns of a part of a run of one band, filled with noise."""
    empty = empty_columns(("f200w",), len(ids))
    columns = {k: rng.normal(size=len(ids)).astype(v.dtype) for k, v in empty.items()}
    columns |= {
        "source_id": ids,
        "status": np.full(len(ids), "ok", object),
        "flags": np.zeros(len(ids), np.int64),
    }
    return columns | {f"failure_{k}": np.full(len(ids), "", object) for k in ("stage", "code", "message")}


GROUPS = ("network", "draws", "morphology", "storage")


def kernel_table(
    prior: Prior, backends: Sequence[str] = BACKENDS, seconds: float = 0.5, groups: Sequence[str] = GROUPS
) -> Iterator[dict]:
    """Rows: kernel, unit, rate per second, correct (bool), and the timing. ``prior``: a loaded ``Prior``;
    ``groups``: which of ``GROUPS``."""
    if "network" in groups:
        yield from (network_row(prior, f"network, {name}", seconds, name) for name in backends)
    if "draws" in groups:
        yield from _draws(prior, seconds)
    if "morphology" in groups:
        yield _morphology(seconds)
    if "storage" in groups:
        yield from storage_table(seconds)


def network_row(
    prior: Prior,
    label: str,
    seconds: float,
    backend: str,
    batch: int = AT_ONCE,
    precision: str = "",
    model: torch.nn.Module | None = None,
) -> dict:
    """One way to evaluate the network (``model``: its weights in another layout), held to what it gives in
    float32; one that is not available on this machine is a row with a ``note``."""
    x = torch.randn(batch, 1, STAMP, STAMP, generator=torch.Generator().manual_seed(0)).to(prior.device)
    sigma = torch.linspace(0.01, 1, batch, device=prior.device)
    precision = precision or prior.precision
    with torch.inference_mode():
        expected = prior.model(x, sigma)
        try:
            _, forward = compile_denoiser(model or prior.model, prior.device, backend, precision)
            error = float((forward(x, sigma) - expected).norm() / expected.norm())
        except Exception as err:
            nothing = {"rate": 0.0, "best": 0.0, "per_core": 0.0, "correct": False}
            return {"kernel": label, "unit": "image", **nothing, "note": str(err).splitlines()[0][:120]}
        timing = repeat(lambda: forward(x, sigma), seconds, device=prior.device)
    limit = 0.05 if precision == "bfloat16" else 1e-4
    return row(label, "image", batch, timing, error < limit, error=error)


class TimedPrior:
    """A prior whose share of the time is taken."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.seconds = prior, 0.0
        self.spec = replace(prior.spec, recordable=False)  # it waits for the card

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
