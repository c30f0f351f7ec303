"""Power spectra of the prior and of what its denoiser leaves, on the grid of a stamp.

``p(k)`` = mean |FFT(x0 - mean)|^2 / npix and ``v(k; sigma)`` = mean |FFT(x0 - D(x0 + sigma e))|^2 / npix. A
model card has both as radial tables. For a prior without a card they are measured from its own unconditional
draws, on the grid asked for. They only precondition solves, start the sampler and set its schedule: the
posterior does not depend on them.

The covariance of a Fourier mode: one number for each band, or a small matrix over bands.

Bands are independent where a covariance is a tensor (b, 1, c, H, W // 2 + 1), its power. Else it is a
``BandCovariance``, the inverse of a matrix for each mode. With the correlation R of the prior between bands
and v the power of what a denoiser of one band leaves at sigma, the law of one band is that of a Gaussian of
power p seen with noise, 1/v = 1/p + 1/sigma^2, and that of all bands together

    V^-1 = p^-1/2 R^-1 p^-1/2 + 1 / sigma^2.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from galbatch.interfaces import Denoiser, JointDenoiser, PriorSpec
from galbatch.prior.integrate import log_levels, plain_steps, sde_dpmpp_2m
from galbatch.sampler.prior import DrawsDenoiser, WrappedPrior

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BandCovariance:
    """``precision`` (b, 1, c, c, H, W // 2 + 1): its inverse."""

    precision: Tensor


Covariance = torch.Tensor | BandCovariance


def mixed(v: Tensor, mixing: Tensor | None, sigma: Tensor | None = None) -> Covariance:
    """The covariance of modes of power ``v`` (b, 1, c, H, W // 2 + 1) of one band each, ``mixing``
    (c, c, H, W // 2 + 1) the inverse of their correlation between bands, and ``sigma`` (b, 1, 1, 1, 1) what
    they are seen with (None: nothing). ``mixing`` None: bands are independent."""
    if mixing is None:
        return v
    seen = torch.zeros_like(v) if sigma is None else (1 / sigma**2).expand(v.shape)
    root = (1 / v - seen).clamp_min(0).sqrt()
    matrix = mixing * root.unsqueeze(-3) * root.unsqueeze(-4)
    return BandCovariance(with_diagonal(matrix, seen))


def with_diagonal(precision: Tensor, more: Tensor) -> Tensor:
    """A precision with ``more`` (b, k, c, H, W // 2 + 1) of that of each band."""
    if precision.ndim == more.ndim:
        return precision + more
    one = torch.eye(precision.shape[-3], dtype=more.dtype, device=more.device)
    return precision + one[:, :, None, None] * more.unsqueeze(-3)


def precision_of(v: Covariance) -> Tensor:
    """Its inverse, for ``times``, ``with_diagonal`` and ``inverse_root``."""
    return v.precision if isinstance(v, BandCovariance) else 1 / v


def coloured(v: Covariance, z: Tensor) -> Tensor:
    """Half spectra of covariance v from those of unit variance, z (b, k, c, H, W // 2 + 1)."""
    if isinstance(v, BandCovariance):
        return times(inverse_root(v.precision).transpose(-3, -4), z)
    return z * v.sqrt()


def times(m: Tensor, z: Tensor) -> Tensor:
    """m z for a number or a matrix for each mode, z (b, k, c, H, W // 2 + 1) complex."""
    if m.ndim == z.ndim:
        return m * z
    z, m = torch.view_as_real(z).flatten(-2), m.repeat_interleave(2, -1)  # products of real numbers are half
    found = m[..., 0, :, :] * z[..., :1, :, :]
    for j in range(1, z.shape[-3]):
        found.addcmul_(m[..., j, :, :], z[..., j : j + 1, :, :])
    return torch.view_as_complex(found.unflatten(-1, (-1, 2)).contiguous())


def transposed(m: Tensor) -> Tensor:
    """Of the matrix over bands; a number as it is."""
    return m.transpose(-3, -4) if m.ndim > 5 else m


def inverse_root(m: Tensor) -> Tensor:
    """T with T^T T = m^-1: 1 / sqrt(m) of a number, the inverse of the Cholesky factor of a matrix. Written
    out by bands, because all modes do the same."""
    if m.ndim == 5:
        return m.rsqrt()
    n = m.shape[-3]
    factor: list[list[Tensor]] = [[] for _ in range(n)]
    inverse: list[list[Tensor]] = [[] for _ in range(n)]
    for i in range(n):
        for j in range(i):
            known = sum((factor[i][l] * factor[j][l] for l in range(j)), torch.zeros_like(m[..., i, j, :, :]))
            factor[i].append((m[..., i, j, :, :] - known) * inverse[j][j])
        left = m[..., i, i, :, :] - sum((f.square() for f in factor[i]), torch.zeros_like(m[..., i, i, :, :]))
        scale = left.clamp_min(1e-6 * m[..., i, i, :, :]).rsqrt()
        factor[i].append(1 / scale)
        for j in range(i):
            terms = (factor[i][l] * inverse[l][j] for l in range(j, i))
            inverse[i].append(-scale * sum(terms, torch.zeros_like(scale)))
        inverse[i].append(scale)
    empty = torch.zeros_like(inverse[0][0])
    rows = [torch.stack([*row, *[empty] * (n - len(row))], -3) for row in inverse]
    return torch.stack(rows, -4)


MEASURED_DRAWS = 48
MEASURED_LEVELS = 24
LARGEST_CORRELATION = 0.995  # between bands: of a galaxy, some light in one is seen in no other
_KEPT: weakref.WeakKeyDictionary[Any, dict] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Spectra:
    """``prior`` (c, H, W // 2 + 1), ``residual`` (n, c, H, W // 2 + 1) at ``sigma`` (n,), ``max_sd``,
    ``mean`` (c, H, W), of each band by itself. ``mixing`` (c, c, H, W // 2 + 1): inverse of the
    correlation of the prior between bands; None: they are independent."""

    prior: torch.Tensor
    sigma: torch.Tensor
    residual: torch.Tensor
    max_sd: float
    mean: torch.Tensor
    mixing: torch.Tensor | None = None

    def residual_at(self, sigma: torch.Tensor) -> torch.Tensor:
        """(b, 1, c, H, W // 2 + 1) at sigma (b,): log-log interpolation, never above sigma^2."""
        position = torch.log(sigma.clamp(self.sigma[0], self.sigma[-1]) / self.sigma[0])
        step = torch.log(self.sigma[1] / self.sigma[0])
        low = (position / step).floor().clamp(0, len(self.sigma) - 2).long()
        w = (position / step - low)[:, None, None, None]
        return torch.exp((1 - w) * self._log[low] + w * self._log[low + 1])[:, None]

    def left_at(self, sigma: torch.Tensor) -> Covariance:
        """Covariance of what the denoiser leaves at sigma (b,)."""
        wide = sigma[:, None, None, None, None]
        return mixed(torch.minimum(self.residual_at(sigma), wide**2), self.mixing, wide)

    @property
    def law(self) -> Covariance:
        """Covariance of the modes of the prior."""
        return mixed(self.prior[None, None], self.mixing)

    @cached_property
    def _log(self) -> torch.Tensor:
        return self.residual.log()


def parseval(shape: tuple[int, int], device: torch.device) -> torch.Tensor:
    """(W // 2 + 1,) weights that make a sum over half spectra of images (H, W) a sum over their pixels."""
    h, w = shape
    twice = torch.full((w // 2 + 1,), 2.0, device=device)
    twice[0] = 1
    if w % 2 == 0:
        twice[-1] = 1
    return twice / (h * w)


def spectra_of(
    prior: Denoiser, channels: int, shape: tuple[int, int], bands: torch.Tensor | None = None
) -> Spectra:
    """Spectra of a prior on a grid, from its spec or measured; once per prior and grid. ``bands`` (c,): log
    wavelengths of bands that are seen together; the spectra are then those of one band, for each."""
    if bands is not None:
        one = spectra_of(prior, 1, shape)
        prior_power, mean = (a.expand(channels, -1, -1) for a in (one.prior, one.mean))
        residual = one.residual.expand(-1, channels, -1, -1)
        return Spectra(prior_power, one.sigma, residual, one.max_sd, mean, _mixing(prior, bands, shape))
    origin = prior.prior if isinstance(prior, WrappedPrior) else prior
    try:
        kept = _KEPT.setdefault(origin, {})
    except TypeError:  # an object that cannot be a key
        kept = {}
    key = (channels, shape)
    if key not in kept:
        kept[key] = card_spectra(prior.spec, channels, shape) or measure_spectra(prior, channels, shape)
    return kept[key]


def _mixing(prior: Denoiser, bands: torch.Tensor, shape: tuple[int, int]) -> Tensor:
    """Inverse (c, c, H, W // 2 + 1) of the correlation of a prior between bands, which is kept off one."""
    assert isinstance(prior, JointDenoiser)
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    correlation = prior.cross_correlation(bands.cpu().numpy(), k)
    inverse = np.linalg.inv(
        LARGEST_CORRELATION * correlation + (1 - LARGEST_CORRELATION) * np.eye(len(bands))
    )
    inverse = np.ascontiguousarray(np.moveaxis(inverse, (0, 1), (2, 3)), np.float32)
    return torch.from_numpy(inverse).to(prior.spec.device)


def card_spectra(spec: PriorSpec, channels: int, shape: tuple[int, int]) -> Spectra | None:
    """The tables of a prior's spec on a grid, or None when it has none."""
    spectrum, residual = spec.spectrum, spec.residual_spectrum
    if spectrum is None or residual is None:
        return None
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    k = np.hypot(fy[:, None], fx[None, :])

    def on_grid(radii: np.ndarray, power: np.ndarray) -> np.ndarray:
        power = np.maximum(np.asarray(power, float), 1e-12)
        return np.exp(np.interp(k, np.asarray(radii, float), np.log(power)))

    p = on_grid(spectrum["k"], spectrum["power"])
    sigma = np.asarray(residual["sigma"], float)
    even = np.geomspace(sigma[0], sigma[-1], len(sigma))
    tables = np.stack([on_grid(residual["k"], row) for row in residual["power"]])
    logs = np.log(tables).reshape(len(sigma), -1)
    place = np.interp(np.log(even), np.log(sigma), np.arange(len(sigma)))
    low = np.minimum(place.astype(int), len(sigma) - 2)
    w = (place - low)[:, None]
    tables = np.exp((1 - w) * logs[low] + w * logs[low + 1]).reshape(tables.shape)
    tables = np.minimum(tables, even[:, None, None] ** 2)

    def tensor(a: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(a), dtype=torch.float32, device=spec.device)

    max_sd = float(spec.max_sd or math.sqrt(p.max()))
    ones = torch.ones(channels, 1, 1, device=spec.device)
    return Spectra(
        tensor(p) * ones,
        tensor(even),
        tensor(tables)[:, None] * ones,
        max_sd,
        torch.zeros(channels, *shape, device=spec.device),
    )


@torch.no_grad()
def measure_spectra(prior: Denoiser, channels: int, shape: tuple[int, int], seed: int = 0) -> Spectra:
    """Spectra from the prior's own unconditional draws (``MEASURED_DRAWS`` of them, stochastic second
    order)."""
    device = prior.spec.device
    gen = torch.Generator().manual_seed(seed)

    def normal(*size: Any) -> Tensor:
        return torch.randn(*size, generator=gen).to(device)

    low, high = prior.spec.sigma_min, prior.spec.sigma_max
    denoise = DrawsDenoiser(prior)
    levels = log_levels(torch.full((1,), high), torch.full((1,), low), 40).to(device)
    size = (1, MEASURED_DRAWS, channels, *shape)
    x0 = sde_dpmpp_2m(denoise, high * normal(*size), plain_steps(levels), lambda: normal(*size))
    mean = x0.mean((0, 1))
    npix = shape[0] * shape[1]

    def power(residual: Tensor) -> Tensor:
        p = (torch.fft.rfft2(residual).abs() ** 2 / npix).mean((0, 1))
        p = torch.fft.fftshift(p, dim=-2)[None]  # smooth: a mean over a few neighbours
        p = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(p, (1, 1, 1, 1), mode="reflect"), 3, 1)[0]
        return torch.fft.ifftshift(p, dim=-2).clamp_min(1e-12)

    p = power((x0 - mean) * math.sqrt(MEASURED_DRAWS / (MEASURED_DRAWS - 1)))
    max_sd = math.sqrt(float((torch.fft.rfft2(x0 - mean).abs() ** 2 / npix).mean((0, 1)).max()))
    sigma = torch.exp(
        torch.linspace(math.log(max(low, 1e-4 * max_sd)), math.log(2 * max_sd), MEASURED_LEVELS)
    )
    rows = []
    for s in sigma:
        d = denoise(x0 + float(s) * normal(*size), s.reshape(1).to(device))
        rows.append(power(x0 - d).clamp_max(float(s) ** 2))
    return Spectra(p, sigma.to(device), torch.stack(rows), max_sd, mean)
