"""Integrators of the reverse diffusion: they see a denoiser D(x, sigma) and noise, never data.

Variance-exploding convention, x_sigma = x_0 + sigma e.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LAST_DENOISING = 0.85  # share of the way from x to D at the last level
# Share of the second-order term that makes the spread of Gaussian modes right to about 1%.
EXTRAPOLATION = 0.93

Step = tuple  # what a denoiser is called with besides the image: sigma (b,), and what else it asks for


def log_levels(high: torch.Tensor, low: torch.Tensor, n: int) -> torch.Tensor:
    """(n, b) log-uniform levels from ``high`` (b,) to ``low`` (b,), both included."""
    w = torch.linspace(0, 1, n, dtype=high.dtype, device=high.device)[:, None]
    return torch.exp((1 - w) * torch.log(high) + w * torch.log(low))


def plain_steps(levels: torch.Tensor) -> list[Step]:
    """The steps of a denoiser D(x, sigma) that asks for nothing else."""
    return [(sigma,) for sigma in levels]


def coefficients(
    levels: torch.Tensor, extrapolation: float = EXTRAPOLATION, last: float = LAST_DENOISING
) -> torch.Tensor:
    """(n, 4, b), for falling ``levels`` (n, b): what a step keeps of x, takes of the denoised image and adds
    of noise, and how far it extrapolates from the denoised image before. A level that comes again leaves x as
    it is, and the one after it does not extrapolate."""
    q = levels[1:] / levels[:-1]
    keep = torch.cat([q**2, torch.full_like(q[:1], 1 - last)])
    spread = torch.cat([levels[1:] * torch.sqrt(1 - q**2), torch.zeros_like(q[:1])])
    slope, h = torch.zeros_like(levels), -torch.log(q)
    slope[1:-1] = extrapolation * torch.where(h[:-1] > 0, h[1:] / (2 * h[:-1]), 0)
    return torch.stack([keep, 1 - keep, spread, slope], 1)


def advance(
    x: torch.Tensor, d: torch.Tensor, previous: torch.Tensor, step: torch.Tensor, noise: torch.Tensor | None
) -> torch.Tensor:
    """x (b, k, c, H, W) after a step of ``coefficients`` (4, b), from the denoised images d and the one
    before; ``noise`` None at the last."""
    keep, take, spread, slope = step[:, :, None, None, None, None]
    x = keep * x + take * (d + slope * (d - previous))
    return x if noise is None else x + spread * noise


def sde_dpmpp_2m(
    denoise: Callable[..., torch.Tensor],
    x: torch.Tensor,
    steps: Sequence[Step],
    noise: Callable[[], torch.Tensor],
    extrapolation: float = EXTRAPOLATION,
    last: float = LAST_DENOISING,
) -> Tensor:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022), data prediction.

    ``steps``: (sigma, ...) of falling sigma (b,), with which ``denoise(x, sigma, ...)`` is called in turn.
    ``x`` (b, k, c, H, W) at the first. The last step goes ``last`` of the way to the denoised image: half
    the way has the variance of wide modes right to fourth order in the last level, but leaves half of its
    noise where the prior allows none (blank sky, which aperture statistics add up); all of the way leaves
    none and is too narrow by second order. ``extrapolation`` 0 makes it first order (DDPM).
    """
    table, previous = coefficients(torch.stack([s[0] for s in steps]), extrapolation, last), x
    for i, step in enumerate(steps):
        d = denoise(x, *step)
        x, previous = advance(x, d, previous, table[i], noise() if i + 1 < len(steps) else None), d
    return x
