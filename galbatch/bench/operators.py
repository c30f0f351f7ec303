"""The sampler's own work beside the network: Fourier operators and linear solves, each against a slower
form."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from galbatch.bench.timing import repeat, row
from galbatch.forward import forward_model
from galbatch.sampler.solve import Solver
from galbatch.types import Observation

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.forward import ForwardModel
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


def operator_table(prior: Prior, seconds: float) -> Iterator[dict]:
    """Rows: A, its adjoint, A^T N^-1 A, and the solve (1/v + Q) c = r, for white and for correlated noise;
    unit: one image."""
    device = prior.device
    for noise in ("white", "correlated"):
        obs = example(np.random.default_rng(0), noise == "correlated")
        _, model = forward_model(
            obs, 1, prior.margin_pix, prior.multiple_of, prior.target_fwhm_pix, device=device
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
                "A^T",
                "image",
                DRAWS,
                repeat(partial(model.adjoint, u), seconds, device=device),
                adjoint,
            )
        work = repeat(partial(model.normal, x), seconds, device=device)
        yield row(f"A^T N^-1 A, {noise} noise", "image", DRAWS, work, adjoint)
        yield _solve(model, x, noise, seconds, device)


def _direct(obs: Observation, model: ForwardModel, x: Tensor) -> bool:
    """A against a convolution in real space, in one draw, on a grid where it needs no other PSF than the one
    given."""
    from scipy.signal import convolve2d

    _, plain = forward_model(obs, 1, 0, 1, 0.0, device=x.device)
    image = x[:, :1, :, : plain.fine[0], : plain.fine[1]]
    seen = plain.apply(image)[0, 0, 0].cpu().numpy()
    return bool(
        np.allclose(seen, convolve2d(image[0, 0, 0].cpu().numpy(), obs.psf[0, 0], mode="same"), atol=1e-3)
    )


def _solve(model: ForwardModel, x: Tensor, noise: str, seconds: float, device: torch.device | str) -> dict:
    v = torch.full_like(model.circulant_precision(), 0.05)
    r = model.normal(x)
    solver = Solver(model)
    c = solver.correction(v, r)
    back = c / 0.05 + model.quick_normal(c)
    correct = (back - r).norm() < 0.05 * r.norm()
    count = solver.iterations_done
    timing = repeat(lambda: Solver(model).correction(v, r), seconds, device=device)
    return row(f"solve, {noise} noise", "image", DRAWS, timing, correct, iterations=count)
