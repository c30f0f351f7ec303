"""The posterior samplers of azula and deepinv on galbatch's network: the same prior, operator, noise and
data.

A peer sees the problem in the units of the prior and whitened, y = A x + e with e ~ N(0, I), which is what
both libraries assume; images are (k, 1, H, W) on galbatch's fine grid with its margin of unknown sky. Each
peer has one knob, which the caller tunes on other galaxies against the truth. ``PEERS``: name -> (values of
the knob, function(problem, budget, knob, draws, seed)).

    pip install "galbatch[bench]"
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from galbatch.forward import ForwardModel, forward_model, smoothed_peak_scale
from galbatch.sampler.prior import as_denoiser
from galbatch.types import Observation

START = 4.0  # first noise level, in units of the prior's largest standard deviation


class _CountBackward(torch.autograd.Function):
    """Identity that counts the vector-Jacobian products which pass it."""

    @staticmethod
    def forward(x, counts):
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.counts = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        ctx.counts["vjp"] += 1
        return grad, None


class Network(torch.nn.Module):
    """The prior's network, differentiable where a peer asks for it, compiled where not. Counts what it is
    asked for."""

    def __init__(self, prior):
        super().__init__()
        self.prior, self.counts = prior, {"forward": 0, "vjp": 0}

    def forward(self, x, sigma):
        """x (k, 1, H, W), sigma () or (k,) -> E[x0 | x], same shape."""
        self.counts["forward"] += 1
        sigma = torch.as_tensor(sigma, dtype=torch.float32).reshape(-1).expand(len(x))
        if (torch.is_grad_enabled() and x.requires_grad) or torch._C._functorch.is_gradtrackingtensor(x):
            return _CountBackward.apply(self.prior.model(x, self.prior._mapped(sigma)), self.counts)
        return self.prior.denoise(x, sigma).clone()

    @property
    def evaluations(self) -> int:
        """Forward passes and vector-Jacobian products, each counted as one (a product costs about two)."""
        return self.counts["forward"] + self.counts["vjp"]


@dataclass
class Problem:
    """One galaxy. ``y`` (D,) whitened data; ``gain``: mean of the whitening weights, 1 / noise in the prior's
    units; ``reach``: largest absolute pixel of the truth, for peers that clip."""

    network: Network
    model: ForwardModel
    weight: torch.Tensor
    y: torch.Tensor
    gain: float
    scale: float
    sigma_max: float
    sigma_min: float
    reach: float = 1.0

    @classmethod
    def of(cls, prior, obs: Observation) -> Problem:
        """From one source in one band with white noise."""
        spec = as_denoiser(prior).spec
        scale = smoothed_peak_scale(obs) if spec.flux_convention == "smoothed_peak" else np.ones((1, 1))
        sizes = spec.margin_pix, spec.multiple_of, spec.target_fwhm_pix
        data, model = forward_model(obs, 1, *sizes, scale)
        weight = model.noise.weight[0, 0].sqrt()
        gain = float(weight[weight > 0].mean())
        low, high = max(0.1 / gain, spec.sigma_min), START * spec.max_sd
        return cls(
            Network(prior),
            model,
            weight,
            (data[0, 0] * weight).flatten(),
            gain,
            float(scale[0, 0]),
            high,
            low,
        )

    @property
    def grid(self):
        return self.model.fine

    def forward(self, x):
        """(k, 1, H, W) -> (k, D)."""
        return (self.model.apply(x[None])[0] * self.weight).flatten(1)

    def adjoint(self, u):
        """(k, D) -> (k, 1, H, W)."""
        return self.model.adjoint((u.unflatten(1, self.weight.shape) * self.weight)[None])[0]

    def images(self, x):
        """Stamps (k, h, w) in the unit of the data."""
        return self.model.crop(x)[:, 0].detach().double().numpy() * self.scale


# ---- azula ----


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
    return _azula_start(sampler, problem, draws, seed)


def azula_diffpir(problem, budget, knob, draws, seed):
    """Zhu et al. 2023; ``knob``: lambda. Its linear solve needs no network, so it gets 16 iterations."""
    from azula.guidance.diffpir import DiffPIRDenoiser
    from azula.sample import DDPMSampler

    inner = _azula(problem)
    flat = _Flat(inner, problem)
    guided = DiffPIRDenoiser(flat, problem.y, lambda v: problem.forward(flat.image(v)), 1.0, knob, "cg", 16)
    return flat.run(DDPMSampler(guided, steps=budget, silent=True), draws, seed)


def azula_mmps(problem, budget, knob, draws, seed):
    """Rozet et al. 2024; ``knob``: iterations of its solve, each of which costs a vector-Jacobian product."""
    from azula.guidance.mmps import MMPSDenoiser
    from azula.linalg.covariance import IsotropicCovariance
    from azula.sample import DDPMSampler

    guided = MMPSDenoiser(
        _azula(problem), problem.y, problem.forward, IsotropicCovariance(1.0), "gmres", int(knob)
    )
    sampler = DDPMSampler(guided, steps=max(2, budget // (2 + int(knob))), silent=True)
    return _azula_start(sampler, problem, draws, seed)


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


# ---- deepinv ----


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
    return _deepinv_sample(problem, fidelity, max(2, budget // 2), draws, seed, problem.gain)


def deepinv_moments(problem, budget, knob, draws, seed):
    """Moment matching; ``knob``: conjugate-gradient iterations."""
    fidelity = _deepinv().sampling.MomentMatchingDataFidelity(cg_max_iter=int(knob))
    steps = max(2, budget // (2 + int(knob)))
    x = _deepinv_sample(problem, fidelity, steps, draws, seed)
    problem.network.counts["vjp"] = steps * (1 + int(knob))  # functorch's products pass the counter by
    return x


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
    return (
        (sampler(y / (2 * reach) + half, physics, x_init=torch.full((draws, 1, *problem.grid), 0.5)) - 0.5)
        * 2
        * reach
    )


# ---- written here, because neither library has it ----


def daps(problem, budget, knob, draws, seed, ode=5):
    """Decoupled annealing (Zhang et al. 2025): at each of budget / 5 levels, five Euler steps of the
    probability flow to an image, a draw around it given the data, and noise of the next level. The draw is
    exact, by Matheron's rule, where the authors take Langevin steps; ``knob``: its deviation over the
    level."""
    torch.manual_seed(seed)
    levels = _power_levels(problem.sigma_max, problem.sigma_min, max(2, budget // ode))
    x = levels[0] * torch.randn(draws, 1, *problem.grid)
    for sigma, after in zip(levels, [*levels[1:], 0.0], strict=True):
        steps = [*_power_levels(sigma, min(problem.sigma_min, 0.5 * sigma), ode), 0.0]
        for high, low in pairwise(steps):
            d = problem.network(x, high)
            x = d + low / high * (x - d)
        r = knob * sigma
        z = x + r * torch.randn_like(x)
        misfit = problem.y - problem.forward(z) - torch.randn(draws, len(problem.y))
        x = z + _damped(problem, r * r * problem.adjoint(misfit), r) + after * torch.randn_like(x)
    return x


def _power_levels(high, low, n, power=7.0):
    """``n`` levels of Karras et al. 2022."""
    w = np.linspace(0, 1, n)
    return [float(v) for v in ((1 - w) * high ** (1 / power) + w * low ** (1 / power)) ** power]


def _damped(problem, b, r, iterations=32):
    """c of (I + r^2 A^T A) c = b (k, 1, H, W), by conjugate gradients."""
    dot = lambda u, v: (u * v).sum((1, 2, 3), keepdim=True)  # noqa: E731
    c, left = torch.zeros_like(b), b
    p, size = left, dot(left, left)
    for _ in range(iterations):
        ap = p + r * r * problem.adjoint(problem.forward(p))
        step = size / dot(p, ap).clamp_min(1e-30)
        c, left = c + step * p, left - step * ap
        new = dot(left, left)
        p, size = left + new / size.clamp_min(1e-30) * p, new
    return c


PEERS = {
    "azula DPS": ((3.0, 10.0, 30.0, 100.0), azula_dps),
    "azula DiffPIR": ((0.3, 1.0, 3.0), azula_diffpir),
    "azula MMPS": ((1, 2, 4), azula_mmps),
    "DAPS": ((0.5, 1.0), daps),
    "deepinv DPS": ((0.3, 1.0, 3.0, 10.0), deepinv_dps),
    "deepinv DiffPIR": ((1.0, 3.0, 7.0, 20.0), deepinv_diffpir),
    "deepinv moment matching": ((1, 2, 4), deepinv_moments),
}
