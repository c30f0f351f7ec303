"""The kernels of a run, one row each: machine, network, operators, solves, a whole draw, morphology, storage.

Every kernel is compared with a slower or independent form first; a row that is wrong is reported as such.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from galbatch.bench.network import network_table
from galbatch.bench.operators import DRAWS, example, operator_table
from galbatch.bench.storage import storage_table
from galbatch.bench.timing import machine_table, repeat, roof_of, row
from galbatch.morphology import measure
from galbatch.prior.compile import BACKENDS
from galbatch.sampler import sample_posterior

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.interfaces import Denoiser
    from galbatch.prior import Prior
    from galbatch.types import Observation


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


def _draws(prior: Denoiser, seconds: float) -> Iterator[dict]:
    for mode in ("fast", "default", "accurate"):
        for noise in ("white", "correlated"):
            yield _draw(prior, example(np.random.default_rng(0), noise == "correlated"), mode, noise, seconds)


def _draw(prior: Denoiser, obs: Observation, mode: str, noise: str, seconds: float) -> dict:
    timed, post = TimedPrior(prior), None

    def work() -> Any:
        nonlocal post
        post = sample_posterior(timed, obs, draws=DRAWS, mode=mode)

    start = time.perf_counter()
    timing = repeat(work, seconds, 2, prior.device)
    share = timed.seconds / (time.perf_counter() - start)
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
