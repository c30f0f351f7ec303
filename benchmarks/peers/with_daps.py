"""DAPS and PnP-DM on galbatch's network, written here because neither azula nor deepinv has them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch


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
        x = _given_data(problem, x, knob * sigma) + after * torch.randn_like(x)
    return problem.images(x)


def pnp_dm(problem, budget, knob, draws, seed, steps=10):
    """Split Gibbs sampling (Wu et al. 2024): by turns an exact draw around the image given the data, and a
    draw of the prior around that by ``steps`` ancestral steps. What holds the two together falls from the
    first level to ``knob`` times the noise in the first half of the turns."""
    torch.manual_seed(seed)
    turns, end = max(2, budget // steps), knob / problem.gain
    x = torch.zeros(draws, 1, *problem.grid)
    for turn in range(turns):
        r = max(end, problem.sigma_max * (end / problem.sigma_max) ** (2 * turn / turns))
        x = _given_data(problem, x, r)
        levels = [*_power_levels(r, min(problem.sigma_min, 0.1 * r), steps), 0.0]
        for high, low in pairwise(levels):
            d, kept = problem.network(x, high), (low / high) ** 2
            x = d + kept * (x - d) + low * (1 - kept) ** 0.5 * torch.randn_like(x)
    return problem.images(x)


def _given_data(problem, x, r):
    """A draw of N(x, r^2) given the data, by Matheron's rule."""
    z = x + r * torch.randn_like(x)
    misfit = problem.y - problem.forward(z) - torch.randn(len(x), len(problem.y))
    return z + _damped(problem, r * r * problem.adjoint(misfit), r)


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
