"""A family of blobs whose posterior is known: where do draws lose width, and to what are they pulled?

    python benchmarks/sampler/family.py [--modes default accurate "ratio=6,products=2,fewest=2"]
        [--first 4 12] [--draws 16]

The prior: 14 sizes, 7 fluxes and 25 places with equal odds and some white texture, whose denoiser and
posterior follow from Bayes' theorem. 24 blobs each in three noises. ``--modes``: names, or what differs from
default. ``--first``: first level over the largest deviation of a mode of the prior (``schedule.START``).

Of size and flux (logarithms) and place, each in exact posterior deviations: ``spread`` of the draws (1),
``off``: rms of (mean of draws - exact mean) (0) and, signed, its mean for size and flux; and the share of
draws smaller than 1.3 px, beside the exact one.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch

import galbatch
from galbatch.sampler import schedule
from galbatch.sampler.schedule import MODES, Mode
from galbatch.types import Observation

SIDE, TEXTURE, PSF_SD, SMALL = 24, 0.03, 2.0, 1.3
NOISES, SOURCES = (0.7, 0.25, 0.08), 24
PARTS = slice(0, 1), slice(1, 2), slice(2, 4)  # size, flux, place
Y, X = np.mgrid[:SIDE, :SIDE]


class Family:
    """Its ``templates`` (n, pixels) and their ``parameters`` (n, 4): ln size, ln flux, place."""

    target_fwhm_pix, flux_convention = 0.0, "none"

    def __init__(self) -> None:
        places, images, parameters = np.arange(10.5, 13.6, 0.75), [], []
        for size in np.geomspace(0.8, 4.0, 14):
            for peak in np.geomspace(0.5, 1.5, 7) * (2.5**2 + size**2) / size**2:
                for y, x in ((y, x) for y in places for x in places):
                    images.append(peak * np.exp(-((Y - y) ** 2 + (X - x) ** 2) / (2 * size**2)))
                    parameters.append((np.log(size), np.log(images[-1].sum()), y, x))
        self.templates = torch.tensor(np.array(images), dtype=torch.float32).flatten(1)
        self.parameters, self.power = np.array(parameters), self.templates.square().sum(1)

    def weights(self, flat: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """Of the templates, given them with white noise."""
        return torch.softmax((2 * flat @ self.templates.T - self.power) / (2 * variance), 1)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        flat, variance = x.flatten(1), sigma[:, None] ** 2 + TEXTURE**2
        mean = self.weights(flat, variance) @ self.templates
        return (mean + TEXTURE**2 / variance * (flat - mean)).reshape(x.shape)


def problem(prior: Family, noise: float, seed: int) -> tuple[Observation, np.ndarray]:
    """Observations of sources of the prior, and the exact weights (sources, templates)."""
    rng, n = np.random.default_rng(seed), SOURCES
    psf = np.exp(-((Y - 12) ** 2 + (X - 12) ** 2) / (2 * PSF_SD**2))
    psf /= psf.sum()
    gain = np.fft.fft2(np.fft.ifftshift(psf))
    templates = prior.templates.numpy().reshape(-1, SIDE, SIDE)
    truth = templates[rng.integers(0, len(templates), n)] + TEXTURE * rng.standard_normal((n, SIDE, SIDE))
    data = np.fft.ifft2(np.fft.fft2(truth) * gain).real + noise * rng.standard_normal(truth.shape)
    white = 1 / np.sqrt(noise**2 + TEXTURE**2 * np.abs(gain) ** 2)
    seen, expected = (
        np.fft.ifft2(np.fft.fft2(z) * f).real.reshape(len(z), -1)
        for z, f in ((data, white), (templates, white * gain))
    )
    log = seen @ expected.T - 0.5 * (expected**2).sum(1)
    weight = np.exp(log - log.max(1, keepdims=True))
    sigma = np.full((n, 1, SIDE, SIDE), noise)
    obs = Observation(data[:, None], sigma, np.repeat(psf[None, None, 1:, 1:], n, 0))
    return obs, weight / weight.sum(1, keepdims=True)


def judged(prior: Family, samples: np.ndarray, weight: np.ndarray) -> str:
    """One line on draws (n, k, h, w)."""
    n, k = samples.shape[:2]
    rng, flat = np.random.default_rng(0), torch.from_numpy(samples).float().reshape(n * k, -1)
    odds = prior.weights(flat, torch.tensor((1.5 * TEXTURE) ** 2)).double().numpy()
    found = [rng.choice(len(p), p=p / p.sum()) for p in odds]
    drawn = prior.parameters[found].reshape(n, k, -1)
    mean = weight @ prior.parameters
    variance = weight @ prior.parameters**2 - mean**2
    variance[variance < 1e-4] = np.nan  # one template is certain
    of = lambda v: np.array([np.nanmean(v[:, part]) for part in PARTS])  # noqa: E731
    off, scatter = drawn.mean(1) - mean, drawn.var(1, ddof=1) + 0 * variance
    spread = np.sqrt(of(scatter) / of(variance))
    error = of(off**2 - scatter / k) / of(variance)
    signed = np.nanmean((off / np.sqrt(variance))[:, :2], 0)
    small = [weight[:, prior.parameters[:, 0] < np.log(SMALL)].sum(1).mean()]
    small.insert(0, (drawn[..., 0] < np.log(SMALL)).mean())
    text = lambda values: " ".join(f"{v:.2f}" for v in values)  # noqa: E731
    return (
        f"spread {text(spread)}; off {text(np.sqrt(error.clip(0)))}, signed {text(signed)}; "
        f"small {text(small)}"
    )


def mode_of(text: str) -> Mode:
    """A name, or "ratio=4,products=2": fields that differ from default."""
    if "=" not in text:
        return MODES[text]
    kinds = {"ratio": float, "last": float}
    pairs = (part.split("=") for part in text.split(","))
    return replace(MODES["default"], **{name: kinds.get(name, int)(value) for name, value in pairs})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", nargs="+", default=["default", "accurate"])
    parser.add_argument("--first", nargs="+", type=float, default=[schedule.START])
    parser.add_argument("--draws", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = Family()
    problems = [problem(prior, noise, i) for i, noise in enumerate(NOISES)]
    for text in options.modes:
        for schedule.START in options.first:
            for noise, (obs, weight) in zip(NOISES, problems, strict=True):
                post = galbatch.sample_posterior(prior, obs, draws=options.draws, seed=4, mode=mode_of(text))
                print(
                    f"{text}, first {schedule.START:g}, {post.n_evaluations.mean():.0f} evaluations, noise "
                    f"{noise}: {judged(prior, post.samples[:, :, 0], weight)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
