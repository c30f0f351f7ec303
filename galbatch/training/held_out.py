"""Loss of a denoiser on stamps that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from galbatch.prior.network import Denoiser


@dataclass
class HeldOutLoss:
    """Held-out stamps and noise, the same at every check; loss by noise level."""

    clean: Tensor
    sigmas: tuple[float, ...] = (0.005, 0.015, 0.05, 0.15, 0.5, 1.5, 5.0)
    batch: int = 32
    seed: int = 11

    @torch.no_grad()
    def __call__(self, denoise: Callable[..., Any] | Denoiser) -> dict[str, float]:
        """sigma -> mean square error in units of sigma^2."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.clean.shape, generator=generator)
        out = {}
        for sigma in self.sigmas:
            error = [
                (denoise(x + sigma * e, torch.full((len(x),), sigma)) - x).square().mean()
                for x, e in zip(self.clean.split(self.batch), noise.split(self.batch), strict=True)
            ]
            out[f"{sigma:g}"] = float(torch.stack(error).mean()) / sigma**2
        return out
