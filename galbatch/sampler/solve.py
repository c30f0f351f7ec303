"""Linear solves of the sampler: ((W v W)^-1 + Q) c = r, v diagonal in Fourier space, W in the image, and
Q = A^T N^-1 A: (1/v + W Q W) z = W r, c = W z. v is a number for each mode and band, or a matrix over
bands for each mode (``spectra.py``).

Preconditioned conjugate gradients in float32. The vectors live in Fourier space: 1/v costs no transform. A
draw that has converged is frozen, so that its result does not depend on what else is in the batch. Correlated
noise enters by its quick inverse in the guidance, whose own residuals are exact. Q must be the linear
operator: with one that wraps, a bright source near the edge of the stamp sends the draws astray.

The preconditioner is an approximate inverse at one pair of transforms. With one weight s for all pixels the
operator is diagonal in Fourier space: C = 1/v + s Q_0, Q_0 the stationary part of Q. Here s = W^2 p / p_0
differs from pixel to pixel, by a thousand and more: the envelope W falls from the core to the sky, and a
bright galaxy's own noise makes the precision p of its core much lower than the sky's. C^-1/2 2 / (1 + s /
s_0) C^-1/2, with C at s_0, the geometric mean of the extremes, is right there, and falls with s as the
inverse does (docs/decisions/0011).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from galbatch.forward.noise import conjugate_gradients
from galbatch.interfaces import Likelihood
from galbatch.sampler.spectra import (
    Covariance,
    inverse_root,
    parseval,
    precision_of,
    times,
    transposed,
    with_diagonal,
)

if TYPE_CHECKING:
    from torch import Tensor


NEARBY_PIX = 3.0  # standard deviation of the neighbourhood that a local precision is the mean of, fine pixels


def relative_precision(model: Likelihood) -> torch.Tensor:
    """(b, 1, c, H, W): mean of 1 / sigma^2 over the valid pixels nearby, over that of the stamp; the largest
    where there are none."""
    weight = model.noise.weight
    seen = _nearby(model.from_detector((weight > 0).float(), model.fine))
    mean = _nearby(model.from_detector(weight, model.fine)) / seen.clamp_min(1e-9)
    highest = mean.where(seen > 0.5, 0).amax((-1, -2), keepdim=True)
    local = torch.minimum(mean, highest).where(seen > 0.02, highest)
    return local.clamp_min(1e-30) / model.mean_weight().clamp_min(1e-30)


class Preconditioner:
    def __init__(self, model: Likelihood) -> None:
        self.grid = model.fine
        self.precision, self.local = model.circulant_precision(), relative_precision(model)

    def inverse_of(
        self, inverse: torch.Tensor, window: torch.Tensor | None = None
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """The approximate inverse for this 1/v and W, from half spectra to half spectra."""
        weight = self.local if window is None else window.square() * self.local
        middle = (weight.amin((-1, -2), keepdim=True) * weight.amax((-1, -2), keepdim=True)).sqrt()
        root, gain = inverse_root(with_diagonal(inverse, middle * self.precision)), 2 / (1 + weight / middle)
        back = transposed(root)
        return lambda r: times(back, torch.fft.rfft2(gain * torch.fft.irfft2(times(root, r), s=self.grid)))


def _nearby(image: Tensor) -> Tensor:
    """Mean with Gaussian weights, on a periodic grid."""
    y, x = (
        torch.exp(-0.5 * (torch.fft.fftfreq(n, device=image.device) * n / NEARBY_PIX) ** 2)
        for n in image.shape[-2:]
    )
    kernel = torch.fft.rfft2((y / y.sum())[:, None] * (x / x.sum()))
    return torch.fft.irfft2(torch.fft.rfft2(image) * kernel, s=image.shape[-2:])


# Where a solve ends, relative to its first residual:
ROUGH = 0.1  # one that only gives a direction
ROUGH_JOINT = 0.03  # the same for several bands, of which the faintest has a small share of the residual
EARLY = 0.01  # one whose error drowns in the noise of the next level
FLOAT_FLOOR = 1e-4  # what float32 can still gain
# Iterations of solves that do not look whether they have converged, because a look waits for the device: 99%
# of the rough ones and of the others need no more (2,100 solves of mocks of S/N 3-300, fast and default).
BOUND_ROUGH, BOUND = 6, 12
SHORT = 0.03  # standard deviations left: a bounded solve that was too short


@dataclass
class Solver:
    """Solves for one observation.

    An error e of a solution is measured against the spread that the solve itself implies, sqrt(e^T (1/v + Q)
    e / n), n the number of unknowns: ``tolerance`` is where iterations end, ``left`` (2, b, k) the largest
    that was left, and the largest of the solves that had not converged. ``bounded``: as many iterations
    whatever the residuals, so that nothing waits for the device.
    """

    model: Likelihood
    iterations: int = 60
    tolerance: float = 1e-2
    bounded: bool = False
    left: torch.Tensor | None = None
    iterations_done: int = 0
    _precondition: Preconditioner = field(init=False)

    def __post_init__(self) -> None:
        self._precondition = Preconditioner(self.model)
        otf = self.model.otf_fine
        self._unknowns = otf.shape[2] * self.model.fine[0] * self.model.fine[1]
        self._parseval = parseval(self.model.fine, otf.device)

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of two images by their half spectra (b, k, 1, 1, 1): bands are one vector."""
        a, b = (torch.view_as_real(u).flatten(2) for u in (a * self._parseval, b))
        return torch.linalg.vecdot(a, b)[..., None, None, None]

    def correction(
        self,
        v: Covariance,
        r: torch.Tensor,
        window: torch.Tensor | None = None,
        exact: bool = False,
        relative: float | torch.Tensor = FLOAT_FLOOR,
        bound: int = BOUND,
    ) -> torch.Tensor:
        """The image c (b, k, c, H, W), for the covariance v of its modes and images r and W, ``window``, like
        c.

        ``exact``: with the exact inverse of correlated noise. ``window`` None: one everywhere. ``relative``:
        iterations also end where the residual is this share of the first (a number, or one for each source,
        (b, 1, 1, 1, 1)). ``bound``: iterations of a bounded solve.
        """
        normal: Callable[[Tensor], Tensor] = self.model.normal if exact else self.model.quick_normal
        if window is not None:
            full, r = normal, window * r
            normal = lambda z: window * full(window * z)  # noqa: E731
        inverse = precision_of(v)
        precondition = self._precondition.inverse_of(inverse, window)
        c, rz, end, done = conjugate_gradients(
            lambda p: times(inverse, p) + torch.fft.rfft2(normal(torch.fft.irfft2(p, s=self.model.fine))),
            precondition,
            torch.fft.rfft2(r),
            self._dot,
            lambda start: (relative**2 * start).clamp_min(self.tolerance**2 * self._unknowns),
            bound if self.bounded else self.iterations,
            0 if self.bounded else 1,
        )
        self.iterations_done += done
        left = (rz / self._unknowns).clamp_min(0).sqrt()
        left = torch.stack([left, torch.where(rz > end, left, 0)])[..., 0, 0, 0]
        self.left = left if self.left is None else torch.maximum(self.left, left)
        c = torch.fft.irfft2(c, s=self.model.fine)
        return c if window is None else window * c
