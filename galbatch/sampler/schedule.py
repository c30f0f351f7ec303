"""How many evaluations are spent at which noise levels, per mode.

``rho`` = sqrt(0.9 / largest eigenvalue of A^T N^-1 A): the noise level of the data as seen from the image. Guided levels run
log-uniformly from the prior's largest standard deviation to rho / 2, tail levels from there to rho / 20.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from galbatch.sampler.integrate import log_levels


@dataclass(frozen=True)
class Mode:
    """``guided`` steps of 1 + ``products`` evaluations, ``tail`` steps of one; ``rerun``: repeat draws the chi2 gate flags."""

    guided: int
    products: int
    tail: int
    iterations: int
    rerun: bool = False

    @property
    def evaluations(self) -> int:
        return self.guided * (1 + self.products) + self.tail


MODES = {
    "fast": Mode(guided=5, products=2, tail=3, iterations=20),
    "default": Mode(guided=8, products=2, tail=6, iterations=20),
    "accurate": Mode(guided=12, products=2, tail=6, iterations=30, rerun=True),
    "rerun": Mode(guided=16, products=3, tail=8, iterations=40),
}


def levels_of(mode: Mode, rho: torch.Tensor, max_sd: float, sigma_min: float) -> torch.Tensor:
    """(guided + tail, b) noise levels for sources with noise levels ``rho`` (b,)."""
    high = torch.full_like(rho, max_sd)
    switch = torch.minimum(0.5 * rho, high / 4)
    low = torch.minimum(torch.clamp(0.05 * rho, min=sigma_min), switch / 2)
    return torch.cat([log_levels(high, switch, mode.guided + 1)[:-1], log_levels(switch, low, mode.tail)])
