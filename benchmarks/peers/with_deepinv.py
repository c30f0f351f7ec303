"""deepinv's DPS, DiffPIR and moment matching on galbatch's network."""

from __future__ import annotations

import torch
from problem import Problem


def _deepinv():
    """deepinv; torchvision, which it imports, is built for CUDA on PyPI: beside a CPU torch its operators are
    declared, unused."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        import sys

        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "qroi_align", "deform_conv2d"):
            for full in (name, f"_{name}_backward"):
                library.define(f"{full}(Tensor x) -> Tensor")
        _KEPT.append(library)
    import deepinv

    return deepinv


_KEPT: list = []


def _physics(problem: Problem, draws: int, gain: float = 1.0):
    """(physics, y (k, D)) with the whitened operator divided by ``gain``: noise of 1 / gain."""
    dinv = _deepinv()
    physics = dinv.physics.LinearPhysics(
        A=lambda x, **_: problem.forward(x.float()) / gain,
        A_adjoint=lambda u, **_: problem.adjoint(u.float()) / gain,
        noise_model=dinv.physics.GaussianNoise(1.0 / gain),
    )
    return physics, (problem.y / gain).expand(draws, -1)


def _deepinv_sample(problem, fidelity, steps, draws, seed, gain=1.0):
    dinv = _deepinv()
    sde = dinv.sampling.VarianceExplodingDiffusion(
        sigma_min=problem.sigma_min, sigma_max=problem.sigma_max, alpha=1.0
    )
    solver = dinv.sampling.DDPMSolver(
        timesteps=torch.linspace(1, 0, steps + 1, dtype=torch.float64), rng=torch.Generator()
    )
    model = dinv.sampling.PosteriorDiffusion(fidelity, problem.network, sde, solver, minus_one_one=False)
    physics, y = _physics(problem, draws, gain)
    return model(y, physics, x_init=(draws, 1, *problem.grid), seed=seed, denoise_output=False)


def deepinv_dps(problem, budget, knob, draws, seed):
    """Chung et al. 2022 with deepinv's annealed guidance; ``knob``: its weight. With its SDE the network is
    asked once a step."""
    fidelity = _deepinv().sampling.DPSDataFidelity(weight=knob, guidance="annealed")
    steps = max(2, budget // 2)
    return problem.images(_deepinv_sample(problem, fidelity, steps, draws, seed, problem.gain))


def deepinv_moments(problem, budget, knob, draws, seed):
    """Moment matching; ``knob``: conjugate-gradient iterations."""
    fidelity = _deepinv().sampling.MomentMatchingDataFidelity(cg_max_iter=int(knob))
    steps = max(2, budget // (2 + int(knob)))
    x = _deepinv_sample(problem, fidelity, steps, draws, seed)
    problem.network.counts["vjp"] = steps * (1 + int(knob))  # functorch's products pass the counter by
    return problem.images(x)


def deepinv_diffpir(problem, budget, knob, draws, seed):
    """Zhu et al. 2023; ``knob``: lambda. It clips images to [0, 1]: it is told a range that holds the truth
    (``reach``)."""
    dinv = _deepinv()
    reach = problem.reach

    def denoise(v, sigma):
        return problem.network((v - 0.5) * 2 * reach, float(sigma) * 2 * reach) / (2 * reach) + 0.5

    physics, y = _physics(problem, draws, problem.gain)
    half = physics.A(torch.full((1, 1, *problem.grid), 0.5))
    physics.noise_model = dinv.physics.GaussianNoise(1 / (problem.gain * 2 * reach))
    sampler = dinv.sampling.DiffPIR(
        denoise,
        dinv.optim.data_fidelity.L2(),
        sigma=1 / (problem.gain * 2 * reach),
        max_iter=budget,
        lambda_=knob,
    )
    torch.manual_seed(seed)
    grey = torch.full((draws, 1, *problem.grid), 0.5)
    return problem.images((sampler(y / (2 * reach) + half, physics, x_init=grey) - 0.5) * 2 * reach)
