"""The covariance of a Fourier mode: one number for each band, or a small matrix over bands.

Bands are independent where a covariance is a tensor (b, 1, c, H, W // 2 + 1), its power. Else it is a
``BandCovariance``, the inverse of a matrix for each mode. With the correlation R of the prior between bands
and v the power of what a denoiser of one band leaves at sigma, the law of one band is that of a Gaussian of
power p seen with noise, 1/v = 1/p + 1/sigma^2, and that of all bands together

    V^-1 = p^-1/2 R^-1 p^-1/2 + 1 / sigma^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

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
    """m z for a number or a matrix for each mode, z (b, k, c, H, W // 2 + 1)."""
    return m * z if m.ndim == z.ndim else (m * z.unsqueeze(-4)).sum(-3)


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
