"""Integrators of the reverse diffusion: they see a denoiser D(x, sigma) and noise, never data.

Variance-exploding convention, x_sigma = x_0 + sigma e.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
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
    previous, h_previous = None, None
    for i, step in enumerate(steps):
        d = denoise(x, *step)
        if i == len(steps) - 1:
            return x + last * (d - x)
        sigma, following = step[0], steps[i + 1][0]
        q = (following / sigma)[:, None, None, None, None]
        h = -torch.log(q)
        extrapolated = d if previous is None else d + extrapolation * (d - previous) * (h / (2 * h_previous))
        spread = following[:, None, None, None, None] * torch.sqrt(1 - q**2)
        x = q**2 * x + (1 - q**2) * extrapolated + spread * noise()
        previous, h_previous = d, h
    raise ValueError("steps is empty")
