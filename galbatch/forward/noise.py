"""The inverse noise covariance: white with a sigma map, or stationary correlation modulated by the sigma map.

``N = S (F C F + 1 - F^2) S`` restricted to valid pixels, S = diag(sigma), C a Toeplitz matrix of the
autocorrelation ``noise_acf``, F = diag(the fraction of sigma that is correlated). Masked pixels are left out
of N, which is not the same as leaving them out of its inverse (that would be over-confident): correlated
noise is solved by conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

Operator = Callable[[torch.Tensor], torch.Tensor]


def waits(device: torch.device) -> bool:
    """Whether a look at a value makes a device wait: then solves run a bounded number of iterations."""
    return device.type != "cpu"


def conjugate_gradients(
    operator: Operator,
    precondition: Operator,
    r: torch.Tensor,
    dot: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    limit: Callable[[torch.Tensor], torch.Tensor],
    iterations: int,
    look_every: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """x with operator(x) = r from x = 0, the last r . precondition(r), the limit of it, and the iterations
    done.

    ``dot``: inner product of each system, of a shape that broadcasts to r. ``limit(start)``: the value of r .
    precondition(r) at which a system is solved, from its first value; a solved system is frozen, so that its
    result does not depend on what else is in the batch. ``look_every``: iterations between looks at whether
    all are solved (0: never; a look makes a GPU wait).
    """
    x = torch.zeros_like(r)
    z = precondition(r)
    p, rz = z, dot(r, z)
    end = limit(rz.clamp_min(1e-30))
    done = 0
    while done < iterations:
        active = rz > end
        if look_every and done % look_every == 0 and not active.any():
            break
        q = operator(p)
        a = torch.where(active, rz / dot(p, q).clamp_min(1e-30), 0.0)
        x = torch.addcmul(x, a, p)
        r = torch.addcmul(r, -a, q)
        z = precondition(r)
        new = dot(r, z)
        p, rz = torch.addcmul(z, new / rz.clamp_min(1e-30), p), torch.where(active, new, rz)
        done += 1
    return x, rz, end, done


# Of the mean noise power: an autocorrelation cut at a few lags may have a negative spectrum.
POWER_FLOOR = 1e-3
SOLVE_ITERATIONS = 12
SOLVE_TOLERANCE = 3e-3


@dataclass(frozen=True)
class WhiteNoise:
    """Independent pixels. ``weight`` (b, 1, c, h, w): 1 / sigma^2, zero where masked."""

    weight: torch.Tensor

    def precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u for u (b, k, c, h, w)."""
        return u * self.weight

    quick_precision = exact_precision = precision

    inflation = 1.0
    sum_inflation = 1.0
    modes = None
    owed = 1.0

    def coloured(self, correlated: torch.Tensor, fy: np.ndarray, fx: np.ndarray) -> torch.Tensor:
        """No noise is correlated: as it is."""
        return correlated

    @property
    def precisions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The correlated and the white part of ``weight``."""
        return torch.zeros_like(self.weight), self.weight

    def corrected(self, u: torch.Tensor) -> torch.Tensor:
        """The PSF is exact: as it is."""
        return u

    def take(self, rows: np.ndarray) -> WhiteNoise:
        """Of these sources."""
        return WhiteNoise(self.weight[rows])

    def with_white(self, variance: torch.Tensor) -> WhiteNoise:
        """With a further variance (b, 1, c, h, w) of independent pixels."""
        return WhiteNoise(self.weight / (1 + self.weight * variance))

    def sample(self, normal: Callable) -> torch.Tensor:
        """Noise (b, k, c, h, w) of this covariance, zero where masked; ``normal(c, h, w)`` draws standard
        normals."""
        return normal(*self.weight.shape[2:]) * torch.where(self.weight > 0, self.weight, torch.inf).rsqrt()


@dataclass(frozen=True)
class CorrelatedNoise:
    """Stationary correlation under a sigma map. ``power`` (1, 1, c, P, Q): DFT of the autocorrelation on a
    padded ``grid``; ``fraction`` (b, 1, c, h, w) or one: F, the fraction of sigma that is correlated."""

    weight: torch.Tensor
    power: torch.Tensor
    grid: tuple[int, int]
    fraction: torch.Tensor

    modes = None
    owed = 1.0

    @cached_property
    def _isigma(self) -> Tensor:
        return self.weight.sqrt()

    @cached_property
    def _valid(self) -> Tensor:
        return (self.weight > 0).to(self.weight.dtype)

    @cached_property
    def _inverse(self) -> Tensor:
        return 1 / self.power

    @cached_property
    def _white(self) -> Tensor:
        return 1 - self.fraction**2

    def _filter(self, u: Tensor, spectrum: Tensor) -> Tensor:
        h, w = u.shape[-2:]
        mixed = self.fraction.ndim > 0  # a scalar is one: all of the noise is correlated
        part = torch.fft.rfft2(u * self.fraction if mixed else u, s=self.grid)
        filtered = torch.fft.irfft2(part * spectrum, s=self.grid)[..., :h, :w]
        return torch.addcmul(self._white * u, self.fraction, filtered) if mixed else filtered

    def precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u by conjugate gradients in the whitened variable, preconditioned by the inverse noise
        power."""
        x, *_ = conjugate_gradients(
            lambda p: self._filter(p, self.power) * self._valid,
            lambda r: self._filter(r, self._inverse) * self._valid,
            u * self._isigma,
            lambda a, b: (a * b).sum((-1, -2), keepdim=True),
            lambda start: SOLVE_TOLERANCE**2 * start,
            SOLVE_ITERATIONS,
            0 if waits(u.device) else 1,
        )
        return x * self._isigma

    exact_precision = precision

    def corrected(self, u: torch.Tensor) -> torch.Tensor:
        """The PSF is exact: as it is."""
        return u

    def take(self, rows: np.ndarray) -> CorrelatedNoise:
        """Of these sources."""
        fraction = self.fraction[rows] if self.fraction.ndim else self.fraction
        return CorrelatedNoise(self.weight[rows], self.power, self.grid, fraction)

    def with_white(self, variance: torch.Tensor) -> CorrelatedNoise:
        """With a further variance (b, 1, c, h, w) of independent pixels: a larger sigma, of which a smaller
        fraction is correlated."""
        share = 1 / (1 + self.weight * variance)
        return CorrelatedNoise(self.weight * share, self.power, self.grid, self.fraction * share.sqrt())

    def quick_precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u as if no pixel were masked and no edge near: S^-1 (F C^-1 F + 1 - F^2) S^-1 u."""
        return self._filter(u * self._isigma, self._inverse) * self._isigma

    @property
    def precisions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The correlated and the white part of ``weight``."""
        return self.weight * self.fraction**2, self.weight * self._white

    @cached_property
    def inflation(self) -> float:
        """Sum of the squared autocorrelation: so many times fewer are the independent pixels."""
        acf = torch.fft.irfft2(self.power, s=self.grid)
        return float((acf / acf[..., :1, :1]).square().sum((-1, -2)).max())

    @property
    def sum_inflation(self) -> torch.Tensor:
        """(1, 1, c) sum of the autocorrelation, at least 1: by so much a sum over many pixels varies more."""
        return self.power[..., 0, 0].clamp_min(1)

    def coloured(self, correlated: torch.Tensor, fy: np.ndarray, fx: np.ndarray) -> torch.Tensor:
        """``correlated`` over the noise power at the nearest frequencies of its grid."""
        iy = np.rint(np.abs((fy + 0.5) % 1 - 0.5) * self.grid[0]).astype(int) % self.grid[0]
        ix = np.rint(np.abs((fx + 0.5) % 1 - 0.5) * self.grid[1]).astype(int)
        return correlated / self.power[..., iy, :][..., np.minimum(ix, self.power.shape[-1] - 1)]

    def sample(self, normal: Callable) -> torch.Tensor:
        """Noise (b, k, c, h, w) of this covariance, zero where masked; ``normal(c, h, w)`` draws standard
        normals."""
        c, h, w = self.weight.shape[2:]
        spectrum = torch.fft.rfft2(normal(c, *self.grid)) * self.power.sqrt()
        noise = self.fraction * torch.fft.irfft2(spectrum, s=self.grid)[..., :h, :w]
        if self.fraction.ndim:
            noise = noise + self._white.sqrt() * normal(c, h, w)
        return noise * torch.where(self.weight > 0, self.weight, torch.inf).rsqrt()


def acf_power(acf: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """DFT (c, P, Q // 2 + 1) of the autocorrelation (c, r, r) on a grid, floored at ``POWER_FLOOR`` of its
    mean."""
    r = acf.shape[-1] // 2
    padded = np.zeros((len(acf), *grid))
    padded[:, : acf.shape[1], : acf.shape[2]] = acf
    padded = np.roll(padded, (-r, -r), axis=(1, 2))
    power = np.fft.rfft2(padded).real
    return np.maximum(power, POWER_FLOOR * acf[:, r, r][:, None, None])


def resampled_variance(variance: np.ndarray, valid: np.ndarray, acf: np.ndarray) -> np.ndarray:
    """``variance`` (b, c, h, w) of noise with the autocorrelation (c, r, r), as smooth as it can be.

    White noise of variance v, resampled by a kernel K, has the variance K^2 * v and the autocorrelation of K:
    for a Gaussian K^2 is that to the fourth power. A noise map with steps (of a bad pixel of one exposure,
    say) asks for noise with steps, which it is not: in its model, S C S, they were significant by 10 to 30
    standard deviations (docs/decisions/0043).
    """
    kernel = acf.astype(np.float64) ** 4
    r = kernel.shape[-1] // 2
    h, w = variance.shape[-2:]
    grid = tuple(next_fast_len(n + r, real=True) for n in (h, w))
    padded = np.zeros((len(kernel), *grid))
    padded[:, : 2 * r + 1, : 2 * r + 1] = kernel
    transfer = np.fft.rfft2(np.roll(padded, (-r, -r), axis=(1, 2)))

    def smooth(image: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(np.fft.rfft2(image, grid) * transfer, grid)[..., :h, :w]

    near = smooth(valid.astype(np.float64))
    return np.where(valid, smooth(np.where(valid, variance, 0)) / np.where(valid, near, 1), 0).clip(min=0)


def noise_model(
    weight: torch.Tensor, noise_acf: np.ndarray | None = None, fraction: torch.Tensor | None = None
) -> WhiteNoise | CorrelatedNoise:
    """The noise of stamps with ``weight`` (b, 1, c, h, w) = 1 / sigma^2 (zero where masked) and
    autocorrelation (c, r, r), of which ``fraction`` of sigma (like ``weight``; None: all) is correlated."""
    if noise_acf is None:
        return WhiteNoise(weight)
    r = noise_acf.shape[-1] // 2
    grid = tuple(next_fast_len(n + r, real=True) for n in weight.shape[-2:])
    power = torch.from_numpy(acf_power(noise_acf.astype(np.float64), grid)).to(weight.device, weight.dtype)
    return CorrelatedNoise(
        weight, power[None, None], grid, weight.new_ones(()) if fraction is None else fraction
    )
