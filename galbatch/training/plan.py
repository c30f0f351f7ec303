"""How a training goes: its sizes, rates and noise levels (``[training]`` of a configuration)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from galbatch.errors import ConfigError

SIGMA_RANGE = (0.002, 80.0)
LIGHT_RANGE = (1e-3, 0.3)
N_SIGMA_BINS, N_LIGHT_BINS = 24, 12
N_BINS = N_SIGMA_BINS + N_LIGHT_BINS


@dataclass(frozen=True)
class TrainConfig:
    """``batch`` stamps of 72 px a step over all processes (fewer when larger); ``sizes`` and their shares.

    The learning rate warms up over ``warmup`` steps, stays, and falls to zero over the last ``decay`` of
    the training, which ends after ``steps`` or, if given, ``hours`` of work, whichever is first. Noise
    levels are log-uniform within ``sigma_core`` with share ``core_fraction`` and within ``sigma_wide``
    else. ``start``: a model folder of the same network whose weights training begins with ("small" or
    "shipped", "base": the package's own). ``compile``: compile the loss (by itself on a
    card alone, where it is faster).

    ``bands``: numbers of bands of a galaxy, and their shares, for what lets the network of ``start`` see
    bands together; nothing else of it is trained then. ``batch`` counts bands. Bands of a galaxy have one
    noise level in ``one_sigma`` of the cases, else levels that scatter about it by ``sigma_spread`` (rms of
    ln(sigma)).
    """

    steps: int = 12000
    hours: float | None = None
    batch: int = 64
    sizes: tuple[int, ...] = (72, 64, 80, 96)
    size_shares: tuple[float, ...] = (0.55, 0.25, 0.1, 0.1)
    learning_rate: float = 2e-3
    warmup: int = 200
    decay: float = 0.6
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    muon: bool = True
    sigma_core: tuple[float, float] = (0.004, 6.0)
    sigma_wide: tuple[float, float] = (0.002, 60.0)
    core_fraction: float = 0.8
    ema: tuple[float, ...] = (0.05, 0.10)
    seed: int = 1
    checkpoint_every_s: float = 120.0
    validate_every: int = 500
    start: str | None = None
    compile: bool | None = None
    bands: tuple[int, ...] = ()
    band_shares: tuple[float, ...] = ()
    one_sigma: float = 0.5
    sigma_spread: float = 0.7

    def __post_init__(self) -> None:
        if len(self.bands) != len(self.band_shares) or (self.bands and not self.start):
            raise ConfigError(
                f"[training] bands {list(self.bands)} with shares {list(self.band_shares)} and start "
                f"{self.start!r}: give one share for each number of bands, and the model to start from."
            )
        for name in "bands band_shares sizes size_shares betas sigma_core sigma_wide ema".split():
            object.__setattr__(self, name, tuple(getattr(self, name)))


def draw_sigma(n: int, config: TrainConfig, seed: tuple[int, ...]) -> Tensor:
    """(n,) noise levels, stratified so that every batch covers the range evenly."""
    rng = np.random.default_rng(seed)
    u = (rng.permutation(n) + rng.random(n)) / n
    (a, b), (c, d) = config.sigma_core, config.sigma_wide
    core, f = u < config.core_fraction, config.core_fraction
    sigma = np.where(core, a * (b / a) ** (u / f), c * (d / c) ** ((u - f) / max(1 - f, 1e-9)))
    return torch.from_numpy(sigma.astype(np.float32))


def bins_of(sigma: Tensor, images: Tensor) -> Tensor:
    """(2, n) indices among ``N_BINS``: logarithmic bins of the noise level (n,), and of the mean brightness
    of images (n, 1, H, W): of their size, where peaks are about one."""
    light = images.abs().mean((1, 2, 3)).clamp_min(1e-9)
    return torch.stack(
        [_bin(sigma, SIGMA_RANGE, N_SIGMA_BINS), N_SIGMA_BINS + _bin(light, LIGHT_RANGE, N_LIGHT_BINS)]
    )


def _bin(values: Tensor, limits: tuple[float, float], n: int) -> Tensor:
    low, high = (math.log(v) for v in limits)
    return ((values.log() - low) / (high - low) * n).long().clamp(0, n - 1)
