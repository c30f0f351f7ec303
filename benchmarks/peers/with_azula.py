"""azula's DPS, DiffPIR and moment matching on galbatch's network."""

from __future__ import annotations

import torch
from problem import Problem


def _azula(problem: Problem):
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VESchedule

    class Wrapped(Denoiser):
        schedule = VESchedule(problem.sigma_min, problem.sigma_max)

        def forward(self, x_t, t, **_):
            return DiracPosterior(mean=problem.network(x_t, self.schedule(t)[1]))

    return Wrapped()


def _azula_start(sampler, problem, draws, seed):
    torch.manual_seed(seed)
    return sampler(sampler.init((draws, 1, *problem.grid)))


def azula_dps(problem, budget, knob, draws, seed):
    """Chung et al. 2022; ``knob``: the step zeta, for a residual in units of the mean noise times the
    gain."""
    from azula.guidance.dps import DPSSampler

    scaled = lambda x: problem.forward(x) / problem.gain  # noqa: E731
    sampler = DPSSampler(
        _azula(problem), problem.y / problem.gain, scaled, zeta=knob, steps=max(2, budget // 2), silent=True
    )
    return problem.images(_azula_start(sampler, problem, draws, seed))


def azula_diffpir(problem, budget, knob, draws, seed):
    """Zhu et al. 2023; ``knob``: lambda. Its linear solve needs no network, so it gets 16 iterations."""
    from azula.guidance.diffpir import DiffPIRDenoiser
    from azula.sample import DDPMSampler

    inner = _azula(problem)
    flat = _Flat(inner, problem)
    guided = DiffPIRDenoiser(flat, problem.y, lambda v: problem.forward(flat.image(v)), 1.0, knob, "cg", 16)
    return problem.images(flat.run(DDPMSampler(guided, steps=budget, silent=True), draws, seed))


def azula_mmps(problem, budget, knob, draws, seed):
    """Rozet et al. 2024; ``knob``: iterations of its solve, each of which costs a vector-Jacobian product."""
    from azula.guidance.mmps import MMPSDenoiser
    from azula.linalg.covariance import IsotropicCovariance
    from azula.sample import DDPMSampler

    guided = MMPSDenoiser(
        _azula(problem), problem.y, problem.forward, IsotropicCovariance(1.0), "gmres", int(knob)
    )
    sampler = DDPMSampler(guided, steps=max(2, budget // (2 + int(knob))), silent=True)
    return problem.images(_azula_start(sampler, problem, draws, seed))


class _Flat(torch.nn.Module):
    """azula's DiffPIR solves over the last axis: images as vectors."""

    def __init__(self, inner, problem):
        super().__init__()
        self.inner, self.problem, self.schedule = inner, problem, inner.schedule

    def image(self, v):
        return v.reshape(-1, 1, *self.problem.grid)

    def forward(self, x_t, t, **_):
        from azula.denoise import DiracPosterior

        return DiracPosterior(mean=self.inner(self.image(x_t), t).mean.flatten(1))

    def run(self, sampler, draws, seed):
        torch.manual_seed(seed)
        h, w = self.problem.grid
        return self.image(sampler(sampler.init((draws, h * w))))
