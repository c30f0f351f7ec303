"""Linear solves of the sampler: ((W v W)^-1 + Q) c = r, v diagonal in Fourier space, W in the image, and
Q = A^T N^-1 A: (1/v + W Q W) z = W r, c = W z.

Preconditioned conjugate gradients in float32. The vectors live in Fourier space: 1/v costs no transform. A
draw that has converged is frozen, so that its result does not depend on what else is in the batch. Correlated
noise enters by its quick inverse in the guidance, whose own residuals are exact. Q must be the linear
operator: with one that wraps, a bright source near the edge of the stamp sends the draws astray.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from galbatch.forward import ForwardModel
from galbatch.forward.conjugate import conjugate_gradients
from galbatch.sampler.precondition import Preconditioner
from galbatch.sampler.spectra import parseval

if TYPE_CHECKING:
    from torch import Tensor


LOOK_EVERY = 4  # iterations between looks at the convergence on a GPU: each look waits for the device
FLOAT_FLOOR = 1e-4  # of the first residual: what float32 can still gain


@dataclass
class Solver:
    """Solves for one observation.

    An error e of a solution is measured against the spread that the solve itself implies, sqrt(e^T (1/v + Q)
    e / n), n the number of unknowns: ``tolerance`` is where iterations end, ``worst`` (b, k) the largest that
    was left.
    """

    model: ForwardModel
    iterations: int = 60
    tolerance: float = 1e-2
    worst: torch.Tensor | None = None
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
        v: torch.Tensor,
        r: torch.Tensor,
        window: torch.Tensor | None = None,
        exact: bool = False,
        relative: float = FLOAT_FLOOR,
    ) -> torch.Tensor:
        """The image c (b, k, c, H, W), for v (b, 1, c, H, W // 2 + 1) and images r and W, ``window``, like c.

        ``exact``: with the exact inverse of correlated noise. ``window`` None: one everywhere. ``relative``:
        iterations also end where the residual is this share of the first.
        """
        normal = self.model.normal if exact else self.model.quick_normal
        if window is not None:
            full, r = normal, window * r
            normal = lambda z: window * full(window * z)  # noqa: E731
        inverse = 1 / v
        precondition = self._precondition.inverse_of(inverse, window)
        c, rz, done = conjugate_gradients(
            lambda p: inverse * p + torch.fft.rfft2(normal(torch.fft.irfft2(p, s=self.model.fine))),
            precondition,
            torch.fft.rfft2(r),
            self._dot,
            lambda start: (relative**2 * start).clamp_min(self.tolerance**2 * self._unknowns),
            self.iterations,
            1 if r.device.type == "cpu" else LOOK_EVERY,
        )
        self.iterations_done += done
        left = (rz / self._unknowns).clamp_min(0).sqrt()[..., 0, 0, 0]
        self.worst = left if self.worst is None else torch.maximum(self.worst, left)
        c = torch.fft.irfft2(c, s=self.model.fine)
        return c if window is None else window * c
