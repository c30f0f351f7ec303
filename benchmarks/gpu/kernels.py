"""The kernels of a draw by themselves, for whoever makes them faster: the network by batch, number format and
layout of its weights, against the roofline of the machine (``network``); A, its adjoint, A^T N^-1 A and the
solve (``operators``); and how the cores of a machine are best given to the network, as processes or as
threads (``processes``). Each is compared with a slower or independent form before it is timed.

python benchmarks/gpu/kernels.py [--only network operators] [--device cpu] [--model small] [--out FILE.jsonl]
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.signal import convolve2d
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from galbatch.bench.kernels import AT_ONCE, DRAWS, STAMP, example, network_row
from galbatch.bench.timing import arguments, environment, keep, repeat, row
from galbatch.forward import forward_model
from galbatch.prior import load_prior
from galbatch.prior.compile import BACKENDS, PRECISIONS
from galbatch.sampler.solve import Solver

BATCHES = (1, 2, 4, 8, 16, 32)
_PRODUCTS = ("convolution", "addmm", "mm", "linear")


@dataclass(frozen=True)
class Roof:
    """``gflops``: of the matrix product in the precision that the network computes in; ``gbytes``: of a copy,
    read plus written; a second, on a CPU a second of one core."""

    gflops: float
    gbytes: float

    def seconds(self, flops: float, nbytes: float) -> float:
        """Least time for so many operations and bytes: the slower of the two lines (Williams et al. 2009)."""
        return max(1e-9 * flops / self.gflops, 1e-9 * nbytes / self.gbytes)


def machine_table(device: torch.device, seconds: float, dtype: torch.dtype = torch.float32) -> Iterator[dict]:
    """Rows 'matrix product' (GFLOP) and 'copy' (GB, read plus written); the product in ``dtype``."""
    n = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    check = torch.allclose((a @ b)[:8].double(), a[:8].double() @ b.double(), rtol=0.1, atol=0.02 * n)
    yield row("matrix product", "GFLOP", 2e-9 * n**3, repeat(lambda: a @ b, seconds, device=device), check)
    source = torch.randn(64 << 20, device=device)
    target = torch.empty_like(source)
    timing = repeat(lambda: target.copy_(source), seconds, device=device)
    yield row("copy", "GB", 2e-9 * source.nbytes, timing, torch.equal(source, target))


def roof_of(rows: list[dict], device: torch.device) -> Roof:
    """The roof that ``machine_table`` measured."""
    best = {r["kernel"]: r[speed(device)] for r in rows}
    return Roof(best["matrix product"], best["copy"])


def speed(device: torch.device) -> str:
    """The rate that fractions are made of: a second of CPU time on a CPU, the fastest call on a GPU."""
    return "per_core" if device.type == "cpu" else "best"


@dataclass(frozen=True)
class Work:
    """One evaluation of one image: operations of its products; bytes that the products read and write (what
    is left when all else is fused into them), and bytes that every operation reads and writes (nothing
    fused)."""

    flops: float
    nbytes: float
    nbytes_unfused: float


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations take and give."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.all = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [a for a in (*args, out) if isinstance(a, torch.Tensor)]
            tensors += [
                t for a in args if isinstance(a, list | tuple) for t in a if isinstance(t, torch.Tensor)
            ]
            size = sum(t.nbytes for t in tensors)
            self.all += size
            self.products += size * any(name in str(function) for name in _PRODUCTS)
        return out


def work_of(prior, size: int = STAMP, batch: int = AT_ONCE) -> Work:
    """Counted, not estimated: one pass of ``batch`` images of size x size through the network, in float32."""
    x = torch.ones(batch, 1, size, size, device=prior.device)
    sigma = torch.ones(batch, device=prior.device)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        prior.model(x, sigma)
    with _Traffic() as traffic, torch.no_grad():
        prior.model(x, sigma)
    return Work(counter.get_total_flops() / batch, traffic.products / batch, traffic.all / batch)


def network_table(prior, roof: Roof, backends=BACKENDS, seconds: float = 0.5) -> Iterator[dict]:
    """One row a variant: first the backends, then the winner by batch, number format and layout of the
    weights.

    ``roofline``: the least time that operations and bytes need here, in the precision of the prior, over the
    time taken.
    """
    work, fast, best = work_of(prior), speed(prior.device), prior.backend
    plain = copy.deepcopy(prior.model).to(memory_format=torch.contiguous_format)
    variants = [(f"network, {name}", {"backend": name}) for name in backends]
    variants += [(f"network, batch {n}", {"backend": best, "batch": n}) for n in BATCHES]
    if prior.device.type == "cpu":
        variants += [(f"network, {p}", {"backend": best, "precision": p}) for p in PRECISIONS]
        variants.append(("network, weights not channels-last", {"backend": best, "model": plain}))
    else:
        variants.append(("network, batch 256", {"backend": best, "batch": 256}))
    for label, how in variants:
        found = network_row(prior, label, seconds, **how)
        yield found | {
            "gflop_per_image": 1e-9 * work.flops,
            "mb_per_image": 1e-6 * work.nbytes,
            "mb_per_image_unfused": 1e-6 * work.nbytes_unfused,
            "gflops": found[fast] * work.flops * 1e-9,
            "roofline": roof.seconds(work.flops, work.nbytes) * found[fast],
        }


def operator_table(prior, seconds: float) -> Iterator[dict]:
    """Rows: A, its adjoint, A^T N^-1 A, and the solve (1/v + Q) c = r, for white and for correlated noise;
    unit: one image."""
    device, spec = prior.device, prior.spec
    for noise in ("white", "correlated"):
        obs = example(np.random.default_rng(0), noise == "correlated")
        _, model = forward_model(
            obs, 1, spec.margin_pix, spec.multiple_of, spec.target_fwhm_pix, device=device
        )
        gen = torch.Generator().manual_seed(0)
        x = torch.randn(1, DRAWS, 1, *model.fine, generator=gen).to(device)
        u = torch.randn(1, DRAWS, 1, *model.stamp, generator=gen).to(device)
        left, right = (
            (model.apply(x) * u).sum(dtype=torch.float64),
            (x * model.adjoint(u)).sum(dtype=torch.float64),
        )
        adjoint = abs(left - right) < 1e-5 * x.norm() * u.norm()
        if noise == "white":
            yield row(
                "A",
                "image",
                DRAWS,
                repeat(partial(model.apply, x), seconds, device=device),
                _direct(obs, model, x),
            )
            yield row(
                "A^T", "image", DRAWS, repeat(partial(model.adjoint, u), seconds, device=device), adjoint
            )
        work = repeat(partial(model.normal, x), seconds, device=device)
        yield row(f"A^T N^-1 A, {noise} noise", "image", DRAWS, work, adjoint)
        yield _solve(model, x, noise, seconds, device)


def _direct(obs, model, x) -> bool:
    """A against a convolution in real space, in one draw, on a grid where it needs no other PSF than the one
    given."""
    _, plain = forward_model(obs, 1, 0, 1, 0.0, device=x.device)
    image = x[:, :1, :, : plain.fine[0], : plain.fine[1]]
    seen = plain.apply(image)[0, 0, 0].cpu().numpy()
    return bool(
        np.allclose(seen, convolve2d(image[0, 0, 0].cpu().numpy(), obs.psf[0, 0], mode="same"), atol=1e-3)
    )


def _solve(model, x, noise: str, seconds: float, device) -> dict:
    v = torch.full_like(model.circulant_precision(), 0.05)
    r = model.normal(x)
    solver = Solver(model)
    c = solver.correction(v, r)
    back = c / 0.05 + model.quick_normal(c)
    correct = (back - r).norm() < 0.05 * r.norm()
    count = solver.iterations_done
    timing = repeat(lambda: Solver(model).correction(v, r), seconds, device=device)
    return row(f"solve, {noise} noise", "image", DRAWS, timing, correct, iterations=count)


_CODE = """
import sys, time
model, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
import torch
torch.set_num_threads(threads)
from galbatch.prior import load_prior
prior = load_prior(model, device="cpu")
x, sigma = torch.randn(16, 1, 72, 72), torch.linspace(0.01, 1, 16)
prior.denoise(x, sigma)
print("ready", flush=True)
sys.stdin.readline()
done, start = 0, time.perf_counter()
while time.perf_counter() - start < seconds:
    prior.denoise(x, sigma)
    done += len(x)
print(done / (time.perf_counter() - start), time.process_time(), flush=True)
"""


def process_table(model: str | None = None, cores: int = 2, seconds: float = 5.0) -> Iterator[dict]:
    """Images per second of ``p`` processes of ``t`` threads each, for every p * t = ``cores``, all at work at
    the same time; and of one process with one thread. ``model``: name or folder of a model."""
    splits = [
        (1, 1),
        *((p, cores // p) for p in range(1, cores + 1) if cores % p == 0 and (p, cores // p) != (1, 1)),
    ]
    alone = 0.0
    for processes, threads in splits:
        rates = _measure(processes, threads, str(model or "auto"), seconds)
        alone = alone or sum(rates)
        yield {
            "kernel": f"network, {processes} processes x {threads} threads",
            "unit": "image",
            "rate": sum(rates),
            "best": sum(rates),
            "correct": all(r > 0 for r in rates),
            "median_s": processes / sum(rates),
            "times_one": sum(rates) / alone,
        }


def _measure(processes: int, threads: int, model: str, seconds: float) -> list[float]:
    command = [sys.executable, "-c", _CODE, model, str(threads), str(seconds)]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(processes)]
    try:
        for child in children:
            if child.stdout.readline().strip() != "ready":
                raise RuntimeError(f"a benchmark process ended with code {child.wait()} before it began")
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        return [float(child.stdout.readline().split()[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()


def main() -> None:
    how = arguments(
        __doc__, only=["network", "operators", "processes"], device="auto", model="auto", seconds=0.5
    )
    prior = load_prior(how.model, device=how.device)
    tables = []
    if "network" in how.only:
        rows = list(machine_table(prior.device, how.seconds, getattr(torch, prior.precision)))
        tables += [rows, network_table(prior, roof_of(rows, prior.device), seconds=how.seconds)]
    if "operators" in how.only:
        tables.append(operator_table(prior, how.seconds))
    if "processes" in how.only:
        tables.append(process_table(how.model, os.cpu_count(), max(how.seconds, 2.0)))
    for found in (found for table in tables for found in table):
        keep(found | environment(prior.device), how.out)


if __name__ == "__main__":
    main()
