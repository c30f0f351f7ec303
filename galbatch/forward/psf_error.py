"""What an error of the PSF does to the noise: N + sum_m u_m u_m^T + diag((rest A x)^2), u_m = a_m P_m x.

The light seen, A x, changes by u_m when the PSF is wrong by one standard deviation of a mode: its width, its
position along two axes, its ellipticity along two axes, its wings. Each mode multiplies the transfer function
by 1 + g_m(f) and leaves the flux as it is (g_m(0) = 0), so u_m follows from the light seen. ``rest`` is what
errors of other shapes leave, as a fraction of the light, independent from pixel to pixel. x is a reference,
one for all draws of a source: the law of the noise is the same for each of them and the chi2 has its meaning.

The inverse is Woodbury's: K - K U (1 + U^T K U)^-1 U^T K with K = N^-1. It is the chi2's. The sampler does
not use it: each of its draws has a PSF of its own, drawn from what is known of the PSF, whose transfer
function is that of the given one times ``transfers``, and fits the data with it under the base noise
(docs/decisions/0012, 0047).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from galbatch.forward.noise import CorrelatedNoise, WhiteNoise
from galbatch.forward.psf import DIVISION_FLOOR, FWHM_TO_SIGMA
from galbatch.types import PSF_ERROR_PARTS

if TYPE_CHECKING:
    from galbatch.forward.operator import ForwardModel

HALO_FWHM = 3.0  # width of the halo that light of the core goes to, over the FWHM of the PSF
MODES = 6
NARROWEST = 0.5  # of the FWHM given: no PSF of a draw is narrower


@dataclass(frozen=True)
class PsfErrorNoise:
    """The noise ``base`` and that of the PSF. ``modes`` (b, m, c, h, w): what each does to the data at one
    standard deviation, zero where masked. ``rest`` (b, 1, c, h, w): variance, within that of the base.
    ``error`` (c, 5): ``PSF_ERROR_PARTS``, lengths in fine pixels; ``fwhm`` (b, c) of the PSF given, too."""

    base: WhiteNoise | CorrelatedNoise
    modes: torch.Tensor
    rest: torch.Tensor
    error: np.ndarray
    fwhm: np.ndarray

    def take(self, rows: np.ndarray) -> PsfErrorNoise:
        """Of these sources."""
        rest = (self.modes[rows], self.rest[rows], self.error, self.fwhm[rows])
        return PsfErrorNoise(self.base.take(rows), *rest)

    @property
    def weight(self) -> torch.Tensor:
        """(b, 1, c, h, w): 1 / sigma^2 without the modes, zero where masked."""
        return self.base.weight

    @property
    def owed(self) -> torch.Tensor:
        """(b, 1, c, h, w): the share of the base's variance that is there though the PSF be exact."""
        return (1 - self.rest * self.weight).clamp(0, 1)

    @property
    def precisions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The correlated and the white part of ``weight``."""
        return self.base.precisions

    @property
    def sum_inflation(self) -> torch.Tensor | float:
        """Of the base."""
        return self.base.sum_inflation

    @property
    def inflation(self) -> float:
        """Of the base."""
        return self.base.inflation

    def coloured(self, correlated: torch.Tensor, fy: np.ndarray, fx: np.ndarray) -> torch.Tensor:
        """Of the base."""
        return self.base.coloured(correlated, fy, fx)

    @cached_property
    def _exact(self) -> tuple[torch.Tensor, torch.Tensor]:
        return _woodbury(self.base.precision(self.modes), self.modes)

    @cached_property
    def _quick(self) -> tuple[torch.Tensor, torch.Tensor]:
        return _woodbury(self.base.quick_precision(self.modes), self.modes)

    def precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u for u (b, k, c, h, w)."""
        return _less(self.base.precision(u), u, *self._exact)

    def quick_precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u with the quick inverse of the base."""
        return _less(self.base.quick_precision(u), u, *self._quick)

    def exact_precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u of the base."""
        return self.base.precision(u)

    def corrected(self, u: torch.Tensor) -> torch.Tensor:
        """u less the expected error of the PSF in it: U (1 + U^T K U)^-1 U^T K u."""
        weighted, inner = self._exact
        found = torch.einsum("bcmn,bkcn->bkcm", inner, torch.einsum("bmcij,bkcij->bkcm", weighted, u))
        return u - torch.einsum("bkcm,bmcij->bkcij", found, self.modes)

    def sample(self, normal: Callable) -> torch.Tensor:
        """Noise (b, k, c, h, w) of this covariance, zero where masked."""
        found = normal(self.modes.shape[2], self.modes.shape[1])
        return self.base.sample(normal) + torch.einsum("bkcm,bmcij->bkcij", found, self.modes)

    def transfers(self, found: torch.Tensor, psf: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """See ``transfers``."""
        return transfers(found, self.error, self.fwhm, psf, grid)

    @property
    def significance(self) -> torch.Tensor:
        """(b, c): squared, of the largest mode, in standard deviations of the base noise."""
        return (self.base.quick_precision(self.modes) * self.modes).sum((-1, -2)).amax(1)


def _woodbury(weighted: torch.Tensor, modes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    gram = torch.einsum("bmcij,bncij->bcmn", weighted.double(), modes.double())
    one = torch.eye(modes.shape[1], dtype=torch.float64, device=modes.device)
    return weighted, torch.linalg.inv(one + 0.5 * (gram + gram.mT)).to(modes.dtype)


def _less(ku: torch.Tensor, u: torch.Tensor, weighted: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """K u - K U (1 + U^T K U)^-1 U^T K u."""
    found = torch.einsum("bcmn,bkcn->bkcm", inner, torch.einsum("bmcij,bkcij->bkcm", weighted, u))
    return ku - torch.einsum("bkcm,bmcij->bkcij", found, weighted)


def full_width(psf: np.ndarray) -> np.ndarray:
    """FWHM (...) in pixels of PSF images (..., p, p): of a disc with the area above half of the peak."""
    return 2 * np.sqrt((psf > 0.5 * psf.max((-1, -2), keepdims=True)).sum((-1, -2)) / np.pi)


def transfers(
    found: torch.Tensor, error: np.ndarray, fwhm: np.ndarray, psf: torch.Tensor, grid: tuple[int, int]
) -> torch.Tensor:
    """(b, k, c, M, L // 2 + 1): the transfer functions of PSFs that are ``found`` (b, k, c, m) standard
    deviations of each mode off the given one, over its own, whose absolute values are ``psf``
    (b, 1, c, M, L // 2 + 1), one at 0.

    ``error`` (c, 5): ``PSF_ERROR_PARTS``, lengths in fine pixels; ``fwhm`` (b, c) of the PSF in fine pixels.
    The width is a power of the transfer function, which broadens or sharpens core and wings alike: exact for
    Gaussians down to ``DIVISION_FLOOR``, and never above one. The ellipticity is that of a Gaussian, no
    sharper than such a power.
    """
    fy = torch.from_numpy(np.fft.fftfreq(grid[0])[:, None]).to(found)
    fx = torch.from_numpy(np.fft.rfftfreq(grid[1])).to(found)
    f2, odd = fy**2 + fx**2, (fy.abs() < 0.5) & (fx < 0.5)  # a shift's: none at the Nyquist frequency
    wide = torch.from_numpy(fwhm).to(found)[:, None, :, None, None]
    width, shift, ellipticity, wings, _ = torch.from_numpy(error).to(found)[..., None, None].unbind(1)
    c = found[..., None, None, :].unbind(-1)
    # below the floor a transfer function is the noise of a PSF image: that is left as it is
    log = psf.clamp(1e-6, 1).log() / (1 + (DIVISION_FLOOR / psf.clamp_min(1e-6)) ** 2)
    squared = 2 * np.pi**2 * (wide * FWHM_TO_SIGMA) ** 2
    power = (1 + c[0] * width / wide).clamp_min(NARROWEST) ** 2 - 1
    stretched = -ellipticity * squared * (c[3] * (fx**2 - fy**2) + c[4] * 2 * fx * fy)
    stretched = torch.minimum(stretched, -ellipticity * torch.hypot(c[3], c[4]) * log)
    halo = torch.exp(-(HALO_FWHM**2) * squared * f2) - 1
    size = torch.exp(power * log + stretched) * (1 + wings * c[5] * halo)
    return torch.polar(size, -2 * np.pi * shift * (c[1] * fy + c[2] * fx) * odd)


def with_psf_error(model: ForwardModel, x: torch.Tensor, error: np.ndarray, fwhm: np.ndarray) -> ForwardModel:
    """The model with the noise of a PSF in error.

    ``x`` (b, 1, c, H, W): the reference; ``error`` (c, 5) in detector pixels and ``fwhm`` (b, c) of the PSF
    in fine pixels.
    """
    lengths = np.array(
        [model.oversample if unit.startswith("detector") else 1 for unit in PSF_ERROR_PARTS.values()]
    )
    error = error * lengths
    one = torch.eye(MODES, device=model.otf.device)[None, :, None]
    g = transfers(one, error, fwhm, model.psf_transfer(model.otf, model.grid), model.grid) - 1
    seen = (model.noise.weight > 0).float()
    modes = replace(model, otf=model.otf * g).apply(x) * seen
    light = model.apply(x).clamp_min(0)
    rest = torch.as_tensor(error[:, 4], dtype=light.dtype, device=light.device)[:, None, None]
    variance = (rest * light).square()
    base = cast(WhiteNoise | CorrelatedNoise, model.noise).with_white(variance)
    return replace(model, noise=PsfErrorNoise(base, modes, variance, error, fwhm))
