"""Published samplers, for comparison only: DPS, DiffPIR and MMPS in the same interface as ours.

Each is a denoiser E[x0 | x_sigma, y] made from a prior denoiser and a forward model, called as D(x, sigma);
the integrators, the operators, the noise and the random numbers are those of ``sample_posterior``, whose mode
is then an entry of ``PEERS``. They start from noise, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from galbatch.forward import ForwardModel
from galbatch.sampler.guidance import conjugate_residuals, jacobian_product
from galbatch.sampler.integrate import EXTRAPOLATION
from galbatch.sampler.schedule import Mode
from galbatch.sampler.solve import Solver


@dataclass
class Dps:
    """Diffusion posterior sampling (Chung et al. 2023): a normalised gradient of the misfit through the
    denoiser.

    ``strength``: length of the step, in units of the gradient of ||y - A D||; the published value is 1.
    """

    denoise: object
    model: ForwardModel
    data: torch.Tensor
    step_share: float  # 1 - q^2: what the integrator does with a change of D
    strength: float = 1.0

    def __call__(self, x, sigma):
        d = self.denoise(x, sigma)
        residual = self.data - self.model.apply(d)
        weighted = self.model.noise.precision(residual)
        length = (residual * weighted).sum((-1, -2, -3), keepdim=True).sqrt().clamp_min(1e-30)
        sky = sum(self.model.noise.precisions).mean((-1, -2, -3), keepdim=True).clamp_min(1e-30).rsqrt()
        gradient = jacobian_product(self.denoise, x, sigma, d, self.model.adjoint(weighted))
        return d + self.strength / self.step_share * sky * gradient / length


@dataclass
class DiffPir:
    """DiffPIR (Zhu et al. 2023): the proximal point of the likelihood, as if Cov(x0 | x_sigma) were sigma^2 /
    ``balance``."""

    denoise: object
    model: ForwardModel
    data: torch.Tensor
    solver: Solver
    balance: float = 7.0

    def __call__(self, x, sigma):
        d = self.denoise(x, sigma)
        v = (sigma**2 / self.balance)[:, None, None, None, None].expand_as(self.model.circulant_precision())
        score = self.model.adjoint(self.model.noise.precision(self.data - self.model.apply(d)))
        return d + self.solver.correction(v, score)


@dataclass
class Mmps:
    """Moment matching posterior sampling (Rozet et al. 2024): Cov(x0 | x_sigma) = sigma^2 J by Tweedie's
    formula, with ``products`` steps of an unpreconditioned Krylov solver."""

    denoise: object
    model: ForwardModel
    data: torch.Tensor
    products: int = 3

    def __call__(self, x, sigma):
        d = self.denoise(x, sigma)
        score = self.model.adjoint(self.model.noise.precision(self.data - self.model.apply(d)))

        def covariance(u):
            return sigma[:, None, None, None, None] ** 2 * jacobian_product(self.denoise, x, sigma, d, u)

        vw, _ = conjugate_residuals(score, covariance, self.model.normal, lambda r: r, self.products)
        return d + vw


def dps(denoise, model, data, solver, steps):
    return Dps(denoise, model, data, float(1 - (steps[1][0][0] / steps[0][0][0]) ** 2)), 0.0


def diffpir(denoise, model, data, solver, steps):
    return DiffPir(denoise, model, data, solver), 0.0


def mmps(products: int):
    """Moment matching with a Krylov solver of so many steps."""
    return lambda denoise, model, data, solver, steps: (Mmps(denoise, model, data, products), EXTRAPOLATION)


PEERS = {
    "dps": Mode(ratio=1.1, fewest=50, most=50, tail=1, peer=dps),
    "diffpir": Mode(ratio=1.1, fewest=50, most=50, tail=1, peer=diffpir),
    "mmps": Mode(ratio=1.1, fewest=25, most=25, tail=1, peer=mmps(3)),
}
