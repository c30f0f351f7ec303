"""Linear solves of the sampler: ((W v W)^-1 + Q) c = r, v diagonal in Fourier space, W in the image, and
Q = A^T N^-1 A: (1/v + W Q W) z = W r, c = W z. v is a number for each mode and band, or a matrix over
bands for each mode (``covariance.py``).

Preconditioned conjugate gradients in float32. The vectors live in Fourier space: 1/v costs no transform. A
draw that has converged is frozen, so that its result does not depend on what else is in the batch. Correlated
noise enters by its quick inverse in the guidance, whose own residuals are exact. Q must be the linear
operator: with one that wraps, a bright source near the edge of the stamp sends the draws astray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from galbatch.forward import ForwardModel
from galbatch.forward.noise import conjugate_gradients
from galbatch.sampler.covariance import Covariance, precision_of, times
from galbatch.sampler.precondition import Preconditioner
from galbatch.sampler.spectra import parseval

if TYPE_CHECKING:
    from torch import Tensor

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

    model: ForwardModel
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
