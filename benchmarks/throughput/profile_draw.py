"""Where the CPU time of a draw goes: its parts, or with ``--operations`` torch's profiler, over one call of
``sample_posterior``.

A part's time is its own, without the parts within it. On a GPU the parts are taken with a synchronisation
around each, which the sampler itself does not have.

python benchmarks/throughput/profile_draw.py [--device cpu] [--mode default] [--precision auto]
    [--noise white] [--repeat 3]
"""

from __future__ import annotations

import functools
import json
import time
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from galbatch.bench.kernels import DRAWS, example
from galbatch.bench.timing import arguments, environment
from galbatch.forward import ForwardModel
from galbatch.forward.noise import CorrelatedNoise
from galbatch.prior import Prior, load_prior
from galbatch.sampler import draw, sample_posterior
from galbatch.sampler.random import Normals
from galbatch.sampler.solve import Solver

PARTS = {
    "network": [(Prior, "denoise")],
    "solves, without the operator": [(Solver, "correction")],
    "A": [(ForwardModel, "apply")],
    "A^T": [(ForwardModel, "adjoint")],
    "inverse of correlated noise": [(CorrelatedNoise, "precision")],
    "its quick inverse": [(CorrelatedNoise, "quick_precision")],
    "random numbers": [(Normals, "draw")],
    "making ready": [(draw, n) for n in ("smoothed_peak_scale", "joint_model", "noise_level")],
    "what is said of the draws": [(draw, "summary"), (draw, "chi2_of_draws")],
}


class Clock:
    """CPU seconds of nested parts, each without those within it."""

    def __init__(self, device):
        self.device, self.seconds, self.calls = device, dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0)
        self._inner = [0.0]

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def timed(self, part, work):
        @functools.wraps(work)
        def call(*args, **choice):
            start = self.now()
            self._inner.append(0.0)
            try:
                return work(*args, **choice)
            finally:
                took = self.now() - start
                self.seconds[part] += took - self._inner.pop()
                self._inner[-1] += took
                self.calls[part] += 1

        return call


@contextmanager
def watched(clock):
    """The parts' functions replaced by timed ones."""
    patches = [
        patch.object(place, name, clock.timed(part, getattr(place, name)))
        for part, places in PARTS.items()
        for place, name in places
    ]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def shares(prior, noise: str, mode: str) -> dict:
    """One line of the table: CPU seconds a draw, in all and by part, and the network's share."""
    obs = example(np.random.default_rng(0), noise == "correlated")
    clock = Clock(prior.device)
    with watched(clock):
        start = clock.now()
        post = sample_posterior(prior, obs, draws=DRAWS, mode=mode)
        total = clock.now() - start
    parts = clock.seconds | {"rest": total - sum(clock.seconds.values())}
    return {
        "noise": noise,
        "mode": mode,
        "evaluations": float(post.n_evaluations[0]),
        "chi2": float(post.chi2[0, 0]),
        "s_a_draw": total / DRAWS,
        "outside_the_network": (total - parts["network"]) / DRAWS,
        "network_share": parts["network"] / total,
        "shares": {part: seconds / total for part, seconds in parts.items()},
        "calls": clock.calls,
    }


def show(line: dict) -> None:
    print(
        f"{line['noise']} noise, {line['mode']}: {line['evaluations']:.0f} evaluations, chi2 "
        f"{line['chi2']:.2f}; a draw {line['s_a_draw']:.3f} s, {line['outside_the_network']:.4f} outside of "
        f"the network ({100 * line['network_share']:.1f}% in it)"
    )
    for part, share in sorted(line["shares"].items(), key=lambda item: -item[1]):
        if share > 0:
            print(f"  {100 * share:5.1f}%  {part} ({line['calls'].get(part, '-')} calls)")


def operations(prior, noise: str, mode: str, rows: int) -> None:
    """torch's own table, by operation."""
    obs = example(np.random.default_rng(0), noise == "correlated")
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (prior.device.type == "cuda")
    with profile(activities=kinds) as watch:
        sample_posterior(prior, obs, draws=DRAWS, mode=mode)
        if prior.device.type == "cuda":
            torch.cuda.synchronize()
    by = "self_cuda_time_total" if prior.device.type == "cuda" else "self_cpu_time_total"
    print(watch.key_averages().table(sort_by=by, row_limit=rows, max_name_column_width=50))


def main() -> None:
    # repeat: the median by network share is shown; operations: by operation, not by part, in so many rows
    options = arguments(
        __doc__, device="auto", mode="default", precision="auto", noise=["white", "correlated"], repeat=3,
        operations=False, rows=25, json=False,
    )  # fmt: skip
    torch.set_num_threads(1)
    prior = load_prior(device=options.device, precision=options.precision)
    for noise in options.noise:
        sample_posterior(
            prior, example(np.random.default_rng(0), noise == "correlated"), draws=DRAWS, mode="fast"
        )
        if options.operations:
            operations(prior, noise, options.mode, options.rows)
            continue
        lines = [shares(prior, noise, options.mode) for _ in range(options.repeat)]
        line = sorted(lines, key=lambda one: one["network_share"])[len(lines) // 2]
        print(json.dumps(line | environment(prior.device))) if options.json else show(line)


if __name__ == "__main__":
    main()
