"""Where in a galaxy do intervals hold the truth? It is the model's own: what is wrong is the sampler's.

    python benchmarks/sampler/planted.py [--galaxies 32] [--draws 8] [--sn 100 300] [--mode default]
        [--model small] [--correlated]

Unconditional samples of the network are observed as the mocks of ``galbatch validate`` are, and sampled.
Whatever the network thinks of galaxies, a right sampler is calibrated on them. Printed, for the light in
annuli of the truth's half-light radius and for the statistics: per cent of truths in 68 and 90% intervals
(fair ranks) and the mean of (mean - truth) / spread.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np
import torch

from galbatch.bench.timing import arguments
from galbatch.prior import load_prior
from galbatch.prior.integrate import log_levels, plain_steps, sde_dpmpp_2m
from galbatch.sampler.agreement import broken_draws
from galbatch.sampler.prior import DrawsDenoiser
from galbatch.validate.calibrate import measure_with_truth
from galbatch.validate.mock import PSF_FWHM_PIX, STAMP, MockSet, mock_psf, observe, sample_mocks, stamp_side
from galbatch.validate.ranks import mean_and_error, ranks

EDGES = (0, 0.5, 1, 2, 3, 4, 6, 40)  # half-light radii
LEVELS, FIRST_SIGMA = 40, 6.0  # of the unconditional samples
DARKEST = 0.05  # of the peak: light is not negative
STATISTICS = ("r20", "r_half", "r80", "gini", "m20", "concentration", "asymmetry")


def unconditional(prior, n: int, seed: int) -> np.ndarray:
    """(n, H, W) samples of the network, without those that are no image of a galaxy."""
    generator, side = torch.Generator().manual_seed(seed), stamp_side(prior.spec)

    def normal() -> torch.Tensor:
        return torch.randn(1, n, 1, side, side, generator=generator)

    high, low = torch.full((1,), FIRST_SIGMA), torch.full((1,), prior.spec.sigma_min)
    steps = plain_steps(log_levels(high, low, LEVELS))
    x = sde_dpmpp_2m(DrawsDenoiser(prior), FIRST_SIGMA * normal(), steps, normal)
    lowest, highest = (x.flatten(2).min(-1).values[0], x.flatten(2).max(-1).values[0])
    sound = ~broken_draws(x, prior.spec.target_fwhm_pix)[0, :, 0] & (lowest > -DARKEST * highest)
    return x[0, sound, 0].numpy()


def planted(prior, options: argparse.Namespace) -> MockSet:
    """Observations of unconditional samples."""
    stamps, rng = unconditional(prior, options.galaxies, 11), np.random.default_rng(3)
    n = len(stamps)
    fwhm = rng.choice(PSF_FWHM_PIX, n)
    psf = np.stack([mock_psf(f) for f in fwhm])[:, None]
    mask = rng.random((n, 1, STAMP, STAMP)) < 0.01
    sn = np.exp(rng.uniform(*np.log(options.sn), n))
    return observe(prior.spec, stamps, psf, fwhm, mask, sn, rng, options.correlated)


def in_annuli(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Light (n, k + 1, annuli) of draws (n, k, h, w) and of the truth, the last; NaN without a pixel."""
    y, x = np.mgrid[: truth.shape[1], : truth.shape[2]]
    out = np.full((len(truth), samples.shape[1] + 1, len(EDGES) - 1), np.nan)
    for i, image in enumerate(truth):
        light = image.clip(0).astype(float)
        radius = np.hypot(*((q - (light * q).sum() / light.sum()) for q in (y, x)))
        order = np.argsort(radius, axis=None)
        half = radius.ravel()[order][np.searchsorted(light.ravel()[order].cumsum(), light.sum() / 2)]
        both = np.concatenate([samples[i], image[None]]).astype(float)
        for j, (low, high) in enumerate(pairwise(EDGES)):
            inside = (radius >= low * half) & (radius < high * half)
            if inside.any():
                out[i, :, j] = both[:, inside].sum(1)
    return out


def show(name: str, values: np.ndarray, rng: np.random.Generator) -> None:
    """A line for values (n, k + 1), the truth last."""
    u = ranks(values[:, :-1], values[:, -1], rng)
    sd = values[:, :-1].std(1, ddof=1)
    z = np.clip((values[:, :-1].mean(1) - values[:, -1]) / np.where(sd > 0, sd, np.nan), -4, 4)
    shares = [mean_and_error(np.where(np.isnan(u), np.nan, np.abs(u - 0.5) < p / 2)) for p in (0.68, 0.9)]
    bias, error, n = mean_and_error(z)
    print(
        f"{name:18} {n:3} galaxies: {100 * shares[0][0]:3.0f} ± {100 * shares[0][1]:.0f}, "
        f"{100 * shares[1][0]:3.0f} ± {100 * shares[1][1]:.0f}%; z {bias:5.2f} ± {error:.2f}"
    )


def main() -> None:
    options = arguments(
        __doc__, galaxies=32, draws=8, sn=[100.0, 300.0], mode="default", model="small", correlated=False
    )
    torch.set_num_threads(1)
    prior, rng = load_prior(options.model, device="cpu"), np.random.default_rng(0)
    mocks = planted(prior, options)
    parts = sample_mocks(prior, mocks, options.draws, options.mode)
    samples = np.concatenate([p.samples[:, :, 0] for p in parts])
    light = in_annuli(samples, mocks.image)
    for j, (low, high) in enumerate(pairwise(EDGES)):
        show(f"{low:g}-{high:g} r_half", light[:, :, j], rng)
    show("flux", np.nansum(light, axis=2), rng)
    table, _ = measure_with_truth(samples, mocks.image, mocks.obs)
    for name in STATISTICS:
        show(name, table[name].astype(float), rng)


if __name__ == "__main__":
    main()
