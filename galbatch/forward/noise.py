"""Inverse noise covariance: white with a sigma map, or stationary correlation modulated by the sigma map.

``N = S C S`` restricted to valid pixels, S = diag(sigma), C a Toeplitz matrix of the autocorrelation ``noise_acf``.
Masked pixels are left out of N, which is not the same as leaving them out of its inverse (that would be over-confident).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import next_fast_len

POWER_FLOOR = 1e-3  # of the mean noise power: an autocorrelation cut at a few lags may have a negative spectrum
SOLVE_ITERATIONS = 12
SOLVE_TOLERANCE = 3e-3


@dataclass(frozen=True)
class WhiteNoise:
    """Independent pixels. ``weight`` (b, 1, c, h, w): 1 / sigma^2, zero where masked."""

    weight: torch.Tensor

    def precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u for u (b, k, c, h, w)."""
        return u * self.weight

    quick_precision = precision

    @property
    def mean_precision(self) -> torch.Tensor:
        """(b, 1, c, 1, 1) mean over all pixels of the stamp, masked ones counting zero."""
        return self.weight.mean((-1, -2), keepdim=True)

    def sample(self, normal: torch.Tensor) -> torch.Tensor:
        """Noise of this covariance from standard normals (b, k, c, h, w); zero where masked."""
        return normal * torch.where(self.weight > 0, self.weight, torch.inf).rsqrt()


@dataclass(frozen=True)
class CorrelatedNoise:
    """Stationary correlation under a sigma map. ``power`` (1, 1, c, P, Q): DFT of the autocorrelation on a padded grid."""

    weight: torch.Tensor
    power: torch.Tensor
    grid: tuple[int, int]

    @property
    def _isigma(self):
        return self.weight.sqrt()

    def _filter(self, u, spectrum):
        h, w = u.shape[-2:]
        return torch.fft.irfft2(torch.fft.rfft2(u, s=self.grid) * spectrum, s=self.grid)[..., :h, :w]

    def precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u by conjugate gradients in the whitened variable, preconditioned by the inverse noise power."""
        valid = (self.weight > 0).to(u.dtype)
        r = u * self._isigma
        inverse = 1 / self.power
        x = torch.zeros_like(r)
        z = self._filter(r, inverse) * valid
        p, rz = z, (r * z).sum((-1, -2), keepdim=True)
        start = rz.clamp_min(1e-30)
        for _ in range(SOLVE_ITERATIONS):
            active = rz > SOLVE_TOLERANCE**2 * start
            if not active.any():
                break
            q = self._filter(p, self.power) * valid
            a = torch.where(active, rz / (p * q).sum((-1, -2), keepdim=True).clamp_min(1e-30), 0.0)
            x = x + a * p
            r = r - a * q
            z = self._filter(r, inverse) * valid
            new = (r * z).sum((-1, -2), keepdim=True)
            p, rz = z + (new / rz.clamp_min(1e-30)) * p, torch.where(active, new, rz)
        return x * self._isigma

    def quick_precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u as if no pixel were masked and no edge near: S^-1 C^-1 S^-1 u."""
        return self._filter(u * self._isigma, 1 / self.power) * self._isigma

    @property
    def mean_precision(self) -> torch.Tensor:
        """(b, 1, c, 1, 1): of the white part; the frequency dependence is in ``power``."""
        return self.weight.mean((-1, -2), keepdim=True)

    def sample(self, normal: torch.Tensor) -> torch.Tensor:
        """Noise of this covariance from standard normals on the padded grid (b, k, c, P, Q'), cropped to the stamp."""
        h, w = self.weight.shape[-2:]
        coloured = torch.fft.irfft2(torch.fft.rfft2(normal) * self.power.sqrt(), s=normal.shape[-2:])[..., :h, :w]
        return coloured * torch.where(self.weight > 0, self.weight, torch.inf).rsqrt()


def acf_power(acf: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """DFT (c, P, Q // 2 + 1) of the autocorrelation (c, r, r) on a grid, floored at ``POWER_FLOOR`` of its mean."""
    r = acf.shape[-1] // 2
    padded = np.zeros((len(acf), *grid))
    padded[:, : acf.shape[1], : acf.shape[2]] = acf
    padded = np.roll(padded, (-r, -r), axis=(1, 2))
    power = np.fft.rfft2(padded).real
    return np.maximum(power, POWER_FLOOR * acf[:, r, r][:, None, None])


def noise_model(weight: torch.Tensor, noise_acf: np.ndarray | None = None):
    """The noise of stamps with ``weight`` (b, 1, c, h, w) = 1 / sigma^2 (zero where masked) and autocorrelation (c, r, r)."""
    if noise_acf is None:
        return WhiteNoise(weight)
    r = noise_acf.shape[-1] // 2
    grid = tuple(next_fast_len(n + r, real=True) for n in weight.shape[-2:])
    power = torch.from_numpy(acf_power(noise_acf.astype(np.float64), grid)).to(weight.device, weight.dtype)
    return CorrelatedNoise(weight, power[None, None], grid)
