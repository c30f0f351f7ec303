"""Whether the peers were given the problem that is meant: on a Gaussian prior the posterior mean is known
exactly.

Moment matching is exact there but for the number of steps and iterations, so with many of both its draws must
have the exact mean and spread; so must STARRED's correlated field, which has to find the power spectrum. DPS
and DiffPIR are no exact samplers: their errors are printed, not judged. Tools that give one image must find a
smooth galaxy that is almost without noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from peers import PEERS
from problem import Problem

from galbatch.types import Observation

SIDE, MARGIN, DRAWS = 16, 4, 48
EXACT = {"azula MMPS": 16, "deepinv moment matching": 16, "STARRED correlated field": (False, 0.0, -2.0)}
SMOOTH = ("STARRED starlets", "scarlet2")
TOLERANCE = 0.35  # standard deviations; the mean of the draws alone scatters by 0.14


class GaussianPrior:
    """Stationary Gaussian field with a red spectrum and the interface that galbatch and the peers use."""

    channels, margin_pix, multiple_of, target_fwhm_pix, max_sd, sigma_min = 1, MARGIN, 1, 2.0, 1.0, 1e-3

    def __init__(self):
        n = SIDE + 2 * MARGIN
        k2 = torch.fft.fftfreq(n)[:, None] ** 2 + torch.fft.rfftfreq(n)[None] ** 2
        self.power = 1.0 / (1.0 + k2 / 0.02**2) ** 1.5 + 1e-4

    def model(self, x, sigma):
        gain = self.power / (self.power + sigma.reshape(-1, 1, 1, 1) ** 2)
        return torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=x.shape[-2:])

    denoise = model

    def _mapped(self, sigma):
        return sigma


def exact(problem: Problem, prior: GaussianPrior):
    """Mean and standard deviation (h, w) of the posterior, from dense matrices."""
    n = SIDE + 2 * MARGIN
    basis = torch.eye(n * n).reshape(-1, 1, n, n)
    a = problem.forward(basis).T.double()
    p = torch.fft.irfft2(torch.fft.rfft2(basis) * prior.power, s=(n, n)).reshape(n * n, n * n).double()
    pa = p @ a.T
    solved = torch.linalg.solve(
        a @ pa + torch.eye(len(a), dtype=torch.float64), torch.cat([problem.y[:, None].double(), pa.T], 1)
    )
    mean, cov = pa @ solved[:, 0], p - pa @ solved[:, 1:]
    crop = lambda v: problem.images(v.reshape(1, 1, n, n).float())[0]  # noqa: E731
    return crop(mean), crop(cov.diagonal().clamp_min(0).sqrt())


def observation(prior: GaussianPrior) -> Observation:
    """A draw of the prior through a PSF, with uneven noise and two bad pixels."""
    rng, n = np.random.default_rng(3), SIDE + 2 * MARGIN
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, n))) * prior.power.sqrt().numpy(), s=(n, n))
    y, x = np.mgrid[-5:6, -5:6]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
    blank = np.zeros((1, 1, SIDE, SIDE))
    sigma = 0.1 * np.exp(0.3 * np.linspace(-1, 1, SIDE))[:, None] * np.ones((1, 1, SIDE, SIDE))
    mask = blank.astype(bool)
    mask[0, 0, 3, 4] = mask[0, 0, 9, 9] = True
    obs = Observation(blank, sigma, psf[None, None] / psf.sum(), mask)
    seen = (
        Problem.of(prior, obs)
        .model.apply(torch.from_numpy(field.astype(np.float32))[None, None, None])[0, 0, 0]
        .numpy()
    )
    return Observation(seen + sigma[0, 0] * rng.standard_normal(seen.shape) + blank, sigma, obs.psf, mask)


def check(names: Iterable[str] = ()) -> None:
    """Print error and spread of the peers of these names; raise ``AssertionError`` where one misses what it
    must find."""
    prior = GaussianPrior()
    obs = observation(prior)
    truth, deviation = exact(Problem.of(prior, obs), prior)
    for name in names:
        if name in SMOOTH:
            bright(name)
            continue
        problem = Problem.of(prior, obs)
        problem.reach = 4.0
        budget, knob = (64 * 18, EXACT[name]) if name in EXACT else (128, PEERS[name].knobs[1])
        draws = PEERS[name].sample(problem, budget, knob, DRAWS, 1)
        error = float(np.sqrt(np.mean(((draws.mean(0) - truth) / deviation) ** 2)))
        spread = float(np.sqrt(np.mean(draws.var(0, ddof=1) / deviation**2)))
        print(
            f"Gaussian check, {name}: mean off by {error:.2f} standard deviations, "
            f"spread {spread:.2f} of the exact one",
            flush=True,
        )
        assert name not in EXACT or (error < TOLERANCE and abs(spread - 1) < TOLERANCE), (
            f"{name}: wrong posterior"
        )


def bright(name: str) -> None:
    """Of a smooth galaxy almost without noise, a tool that gives one image must find 99% of the light's
    square."""
    y, x = np.mgrid[:64, :64] - 32.0
    truth = 1000 * np.exp(-(x**2 + 2 * y**2 + x * y) / 50)
    blank = np.zeros((1, 1, 64, 64))
    u, v = np.mgrid[-20:21, -20:21]
    psf = np.exp(-(u**2 + v**2) / (2 * 1.8**2))
    obs = Observation(blank, blank + 1, psf[None, None] / psf.sum())
    problem = Problem.of(_Smooth(), obs)
    seen = problem.model.apply(torch.from_numpy(truth.astype(np.float32))[None, None, None])[0, 0, 0].numpy()
    noisy = seen + np.random.default_rng(5).standard_normal(seen.shape)
    problem = Problem.of(_Smooth(), replace(obs, data=noisy + blank))
    found = PEERS[name].sample(problem, 0, PEERS[name].knobs[-1], 1, 1)
    error = float(((found[0] - truth) ** 2).sum() / (truth**2).sum())
    before = float(((noisy - truth) ** 2).sum() / (truth**2).sum())
    print(f"Bright check, {name}: squared error {error:.4f}, of the data {before:.4f}", flush=True)
    assert error < 0.01, f"{name}: a smooth galaxy at S/N 1000 is lost"


class _Smooth(GaussianPrior):
    margin_pix = 0


if __name__ == "__main__":
    check([name for name, peer in PEERS.items() if not peer.missing])
