"""Whether the peers were given the problem that is meant: on a Gaussian prior the posterior mean is known
exactly.

Moment matching is exact there but for the number of steps and iterations, so with many of both its draws must
have the exact mean and spread. DPS and DiffPIR are no exact samplers: their errors are printed, not judged.
"""

from __future__ import annotations

import numpy as np
import torch
from peer_samplers import PEERS, Problem

from galbatch.types import Observation

SIDE, MARGIN, DRAWS = 16, 4, 48
EXACT = ("azula MMPS", "deepinv moment matching")
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


def check() -> None:
    """Print every peer's error and spread; raise ``AssertionError`` where moment matching misses the exact
    posterior."""
    prior = GaussianPrior()
    obs = observation(prior)
    truth, deviation = exact(Problem.of(prior, obs), prior)
    for name, (knobs, sample) in PEERS.items():
        problem = Problem.of(prior, obs)
        problem.reach = 4.0
        knob = 16 if name in EXACT else knobs[1]
        draws = problem.images(sample(problem, 64 * 18 if name in EXACT else 128, knob, DRAWS, 1))
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


if __name__ == "__main__":
    check()
