"""The kernels of a run, one row each: network by backend, operators, solves, a whole draw, morphology, roofline.

Every kernel is compared with a slower or independent form first; a row that is wrong is reported as such and not timed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from galbatch.bench.timing import repeat
from galbatch.forward import forward_model
from galbatch.morphology import measure
from galbatch.prior.compile import BACKENDS, compile_denoiser
from galbatch.sampler import sample_posterior
from galbatch.types import Observation

STAMP, DRAWS = 64, 16


def kernel_table(prior, backends=BACKENDS, seconds: float = 0.5) -> Iterator[dict]:
    """Rows: kernel, unit, rate per second, correct (bool), and the timing. ``prior``: a loaded ``Prior``."""
    device = prior.device
    roofline = list(_roofline(device, seconds))
    yield from roofline
    obs = example(np.random.default_rng(0))
    yield from _network(prior, backends, seconds, roofline[0]["rate"])
    yield from _operators(obs, prior, seconds)
    yield from _draw(obs, prior, seconds)
    yield _morphology(obs, seconds)


def example(rng) -> Observation:
    """One disc with a bar-like core, S/N of some tens, heteroscedastic noise, one bad pixel in a hundred."""
    y, x = np.mgrid[:STAMP, :STAMP] - STAMP / 2
    image = np.exp(-np.hypot(y, x / 0.6) / 6) + 2 * np.exp(-(y**2 + (x / 2) ** 2) / 4)
    grid = np.arange(41) - 20
    psf = np.exp(-0.5 * (grid[:, None] ** 2 + grid[None, :] ** 2) / 1.5**2)
    sigma = 0.02 * np.exp(0.2 * y / STAMP)
    data = image + sigma * rng.standard_normal(image.shape)
    mask = rng.random(image.shape) < 0.01
    return Observation(*(a[None, None] for a in (data, sigma)), psf[None] / psf.sum(), mask[None, None])


def _row(kernel, unit, count, timing, correct, **more) -> dict:
    return {"kernel": kernel, "unit": unit, "rate": count / timing["median_s"], "correct": bool(correct), **timing, **more}


def _roofline(device, seconds):
    n = 1024 if device.type == "cpu" else 8192
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    check = torch.allclose((a @ b)[:8].double(), a[:8].double() @ b.double(), rtol=0.1, atol=0.02 * n)
    yield _row("matrix product", "GFLOP", 2e-9 * n**3, repeat(lambda: a @ b, seconds, device=device), check)
    source = torch.randn(64 << 20, device=device)
    target = torch.empty_like(source)
    timing = repeat(lambda: target.copy_(source), seconds, device=device)
    yield _row("copy", "GB", 2e-9 * source.nbytes, timing, torch.equal(source, target))


def flops_per_evaluation(prior, size: int = STAMP) -> float:
    """Floating-point operations of one network evaluation of a size x size image, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        prior.model.float()(torch.ones(1, 1, size, size, device=prior.device), torch.ones(1, device=prior.device))
    return float(counter.get_total_flops())


def _network(prior, backends, seconds, peak_gflops):
    flops = flops_per_evaluation(prior)
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(DRAWS, 1, STAMP, STAMP, generator=gen).to(prior.device)
    sigma = torch.linspace(0.01, 1, DRAWS, device=prior.device)
    with torch.inference_mode():
        expected = prior.model(x, sigma)
        tolerance = 1e-4 if prior.device.type == "cpu" else 0.05
        for name in backends:
            try:
                _, forward = compile_denoiser(prior.model, prior.device, name)
                error = float((forward(x, sigma) - expected).norm() / expected.norm())
            except Exception as err:  # a backend that is not available here is a result too
                yield {"kernel": f"network, {name}", "unit": "image", "rate": 0.0, "correct": False, "note": str(err)[:120]}
                continue
            timing = repeat(lambda f=forward: f(x, sigma), seconds, device=prior.device)
            row = _row(f"network, {name}", "image", DRAWS, timing, error < tolerance, error=error)
            gflops = row["rate"] * flops * 1e-9
            yield {**row, "gflop_per_image": flops * 1e-9, "gflops": gflops, "roofline": gflops / peak_gflops}


def _operators(obs, prior, seconds):
    _, model = forward_model(obs, 1, prior.margin_pix, prior.multiple_of, prior.target_fwhm_pix, device=prior.device)
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(1, DRAWS, 1, *model.fine, generator=gen).to(prior.device)
    u = torch.randn(1, DRAWS, 1, *model.stamp, generator=gen).to(prior.device)
    left, right = (model.apply(x) * u).sum(dtype=torch.float64), (x * model.adjoint(u)).sum(dtype=torch.float64)
    adjoint = abs(left - right) < 1e-5 * x.norm() * u.norm()
    yield _row("A^T N^-1 A", "image", DRAWS, repeat(lambda: model.normal(x), seconds, device=prior.device), adjoint)


class _Timed:
    """A prior whose share of the time is taken."""

    def __init__(self, prior):
        self.prior, self.seconds = prior, 0.0

    def __getattr__(self, name):
        return getattr(self.prior, name)

    def denoise(self, x, sigma):
        import time

        start = time.perf_counter()
        out = self.prior.denoise(x, sigma)
        if self.prior.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - start
        return out


def _draw(obs, prior, seconds):
    for mode in ("fast", "default", "accurate"):
        timed = _Timed(prior)
        post = sample_posterior(timed, obs, draws=DRAWS, mode=mode)
        timed.seconds, calls = 0.0, 0

        def work(mode=mode, timed=timed):
            nonlocal calls
            calls += 1
            sample_posterior(timed, obs, draws=DRAWS, mode=mode)

        timing = repeat(work, seconds, 2, prior.device)
        total = timing["median_s"]
        yield _row(f"posterior draw, {mode}", "draw", DRAWS, timing, 0.8 < post.chi2[0, 0] < 1.2,
                   evaluations=float(post.n_evaluations[0]), network_share=timed.seconds / calls / total)


def _morphology(obs, seconds):
    image = np.repeat(obs.data[:, 0].clip(-1), DRAWS, axis=0)
    table = measure(image, 0.03)
    timing = repeat(lambda: measure(image, 0.03, threads=1), seconds)
    return _row("morphology, everything", "image", DRAWS, timing, np.isfinite(table["gini"]).all())
