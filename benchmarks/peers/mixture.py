"""Modes: how far are the weights that draws give to them from the exact ones?

    python benchmarks/peers/mixture.py [--methods default accurate "azula DiffPIR:28"] [--draws 64]

The prior: 12 galaxies, each alone or with one companion at one of 8 places, with equal odds and some white
texture: 108 templates, whose denoiser and posterior follow from Bayes' theorem. 32 of them are seen through a
PSF of 4.7 pixels, the companion 6 away, in noise of peak S/N 3 to 8: half of the posteriors leave the place
of the companion open.

``tv``: total variation distance of the weights of the 9 places, and of the 12 galaxies, from the exact ones;
of as many exact draws beside it, which is the least that can be. ``off``: |mean - exact mean|^2, less the
scatter of a mean of few draws, over the exact variance, and ``spread``, variance over the exact one, of all
pixels; by source and in the median. Methods as of the referee; a peer's knob is tuned on other sources.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np
import torch
from peers import PEERS
from problem import Problem
from referee import installed

import galbatch
from galbatch.types import Observation

SIDE, TEXTURE, PSF_SD, SOURCES, SN = 32, 0.03, 2.0, 32, (3.0, 8.0)
COMPANION, AWAY = 0.25, 6.0  # peak over that of the galaxy, and distance in pixels
Y, X = np.mgrid[:SIDE, :SIDE] - SIDE / 2


def templates() -> np.ndarray:
    """(12, 9, h, w): galaxies of 4 sizes and 3 shapes, alone and with a companion at each place."""
    angles = np.arange(8) * np.pi / 4
    companion = [np.exp(-((Y - AWAY * np.sin(a)) ** 2 + (X - AWAY * np.cos(a)) ** 2) / 3) for a in angles]
    out = []
    for size in (1.5, 2.0, 2.7, 3.6):
        for ratio, turn in ((1.0, 0.0), (0.6, 0.3), (0.6, 1.9)):
            u, v = X * np.cos(turn) + Y * np.sin(turn), Y * np.cos(turn) - X * np.sin(turn)
            galaxy = np.exp(-(u**2 + (v / ratio) ** 2) / (2 * size**2))
            out.append([galaxy, *(galaxy + COMPANION * c for c in companion)])
    return np.array(out)


class Mixture:
    """The prior, as galbatch and as the peers ask for it."""

    channels, margin_pix, multiple_of, target_fwhm_pix, sigma_min = 1, 0, 1, 0.0, 2e-3
    flux_convention = "none"

    def __init__(self) -> None:
        images = templates()
        self.shape = images.shape[:2]
        modes = np.fft.fft2(images.reshape(-1, SIDE, SIDE), norm="ortho")
        self.max_sd = float(np.sqrt((np.abs(modes - modes.mean(0)) ** 2).mean(0).max() + TEXTURE**2))
        self.templates = torch.tensor(images, dtype=torch.float32).reshape(-1, SIDE * SIDE)
        self.power = self.templates.square().sum(1)

    def weights(self, flat: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """Of the templates, given them with white noise."""
        return torch.softmax((2 * flat @ self.templates.T - self.power) / (2 * variance), 1)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        flat, variance = x.flatten(1), sigma.reshape(-1, 1) ** 2 + TEXTURE**2
        mean = self.weights(flat, variance) @ self.templates
        return (mean + TEXTURE**2 / variance * (flat - mean)).reshape(x.shape)

    model = denoise

    def _mapped(self, sigma: torch.Tensor) -> torch.Tensor:
        return sigma


def problem(prior: Mixture, seed: int, n: int = SOURCES) -> SimpleNamespace:
    """``obs`` of sources of the prior with their ``truth``, exact ``weight`` (n, templates), ``mean`` (n, h,
    w) and ``variance`` (n,) of all pixels."""
    rng = np.random.default_rng(seed)
    psf = np.exp(-(Y**2 + X**2) / (2 * PSF_SD**2))
    psf /= psf.sum()
    gain = np.fft.fft2(np.fft.ifftshift(psf))
    images = prior.templates.numpy().astype(float).reshape(-1, SIDE, SIDE)
    chosen = rng.integers(0, len(images), n)
    truth = images[chosen] + TEXTURE * rng.standard_normal((n, SIDE, SIDE))
    clean = np.fft.ifft2(np.fft.fft2(images) * gain).real
    noise = clean[chosen].max((1, 2)) / rng.uniform(*SN, n)
    data = np.fft.ifft2(np.fft.fft2(truth) * gain).real
    data += noise[:, None, None] * rng.standard_normal(truth.shape)
    weight, mean, variance = [], [], []
    for y, s in zip(data, noise, strict=True):
        power = s**2 + TEXTURE**2 * np.abs(gain) ** 2
        left = np.fft.fft2(y) - np.fft.fft2(clean)
        log = -0.5 * (np.abs(left) ** 2 / power).sum((1, 2)) / SIDE**2
        w = np.exp(log - log.max())
        w /= w.sum()
        each = images + np.fft.ifft2(TEXTURE**2 * np.conj(gain) / power * left).real
        weight.append(w)
        mean.append(np.tensordot(w, each, 1))
        texture = (TEXTURE**2 * s**2 / power).sum()
        variance.append(texture + w @ ((each - mean[-1]) ** 2).sum((1, 2)))
    sigma = np.ones((n, 1, SIDE, SIDE)) * noise[:, None, None, None]
    obs = Observation(data[:, None], sigma, np.repeat(psf[None, None, 1:, 1:], n, 0))
    return SimpleNamespace(obs=obs, truth=truth, weight=np.array(weight), mean=mean, variance=variance)


def drawn(prior: Mixture, found: SimpleNamespace, method: str, draws: int, knob=None) -> tuple:
    """Draws (n, k, h, w), and evaluations per draw."""
    name, _, budget = method.partition(":")
    if name not in PEERS:
        posterior = galbatch.sample_posterior(prior, found.obs, draws=draws, mode=method, seed=4)
        return posterior.samples[:, :, 0], float(posterior.n_evaluations.mean())
    knob = tuned(prior, method) if knob is None else knob
    images, spent = [], 0
    for i in range(len(found.truth)):
        o = found.obs
        one = Observation(o.data[[i]], o.sigma[[i]], o.psf[[i]])
        given = Problem.of(prior, one)
        given.reach = 2.0
        images.append(PEERS[name].sample(given, int(budget), knob, draws, i))
        spent += given.network.evaluations
    return np.stack(images), spent / len(images)


def tuned(prior: Mixture, method: str):
    """The knob with which the mean is nearest to the exact one, on eight other sources."""
    found = problem(prior, 99, 8)
    scores = {}
    for knob in PEERS[method.partition(":")[0]].knobs:
        samples = drawn(prior, found, method, 16, knob)[0]
        scores[knob] = np.nan_to_num(((samples.mean(1) - found.mean) ** 2).sum((1, 2)).mean(), nan=np.inf)
    return min(scores, key=scores.get)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean total variation distance of weights (n, modes)."""
    return float(0.5 * np.abs(one - other).sum(1).mean())


def judged(prior: Mixture, found: SimpleNamespace, samples: np.ndarray) -> str:
    """One line on draws (n, k, h, w)."""
    n, k = samples.shape[:2]
    rng, flat = np.random.default_rng(0), torch.from_numpy(np.ascontiguousarray(samples)).float()
    own = prior.weights(flat.reshape(n * k, -1), torch.tensor((1.5 * TEXTURE) ** 2)).numpy()
    own = own.reshape(n, k, -1).mean(1)
    best = np.stack([rng.multinomial(k, w / w.sum()) / k for w in found.weight])
    text = []
    for axis in (1, 2):  # over galaxies: places of the companion; over places: galaxies
        exact, draws, least = (w.reshape(n, *prior.shape).sum(axis) for w in (found.weight, own, best))
        text.append(f"{distance(draws, exact):.2f} ({distance(least, exact):.2f})")
    scatter = samples.var(1, ddof=1).sum((1, 2))
    off = ((samples.mean(1) - found.mean) ** 2).sum((1, 2)) - scatter / k
    off, spread = np.median(off / found.variance), np.median(scatter / found.variance)
    return f"tv of companions {text[0]}, of galaxies {text[1]}; off {off:.2f}, spread {spread:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=["fast", "default", "accurate"])
    parser.add_argument("--draws", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = Mixture()
    found = problem(prior, 1)
    open_ = (found.weight.reshape(SOURCES, *prior.shape).sum(1).max(1) < 0.9).sum()
    print(f"{SOURCES} sources, the place of the companion is open in {open_}")
    for method in installed(options.methods):
        samples, evaluations = drawn(prior, found, method, options.draws)
        print(f"{method}, {evaluations:.0f} evaluations: {judged(prior, found, samples)}", flush=True)


if __name__ == "__main__":
    main()
