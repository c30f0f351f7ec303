"""Accuracy against cost on the same held-out mocks and the same network: galbatch, azula, deepinv, and
classical restoration.

    python benchmarks/science/frontier.py [--galaxies 8] [--draws 8] [--budgets 1 4]
        [--out frontier.jsonl]

``python benchmarks/results.py --figures`` draws results/frontier.jsonl.

Every method gets the same data, PSF, noise and (but the classical ones) network. A peer's budget is the
number of evaluations that galbatch's default mode took, times 1, 4, ...; an evaluation is a forward pass or a
vector-Jacobian product. Each peer's knob is the best of a grid on other galaxies, against their truth;
galbatch has no knob; the classical methods (``classical.py``) are stopped by an oracle, at the least error
against the truth itself. Correctness first: on a Gaussian problem moment matching must find the exact mean.

One JSON line a method and budget: ``ratio``, the median over galaxies of its error over that of galbatch's
default mode on the same galaxy, with its bootstrap error; ``nmse`` |mean - truth|^2 / |truth|^2 (median and
its bootstrap error), both with the scatter of a mean of few draws taken off (the unbiased error of the mean
of infinitely many), ``chi2`` of single draws a valid pixel, ``z_rms`` of (truth - mean) / spread where the
truth exceeds half the sky noise, the mean of 1 / variance of k draws taken off (1: honest error bars; median
over galaxies), ``flux_error`` of the mean; of the mean image in an asinh stretch ``psnr`` (dB) and ``ssim``;
``crps`` over the bright pixels in units of the sky noise; ``bias_*`` of the statistics, mean over draws
minus truth. Medians over galaxies. Seconds are CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from classical import at_oracle
from gaussian_check import check
from peer_samplers import PEERS, Problem
from skimage.metrics import structural_similarity

from galbatch.bench import environment
from galbatch.morphology import measure
from galbatch.prior import load_prior
from galbatch.sampler import sample_posterior
from galbatch.types import Observation
from galbatch.validate import make_mocks

TUNING_SEED = 2_500_000


def one(obs: Observation, i: int) -> Observation:
    rows = slice(i, i + 1)
    return Observation(
        obs.data[rows],
        obs.sigma[rows],
        obs.psf[rows],
        obs.mask[rows],
        obs.pixel_scale_arcsec,
        obs.psf_scale_arcsec,
    )


def run_peer(prior, mocks, name: str, budget: int, knob: float, draws: int, seed: int = 0):
    """(draws (n, k, h, w), seconds a draw, evaluations a draw) of a peer on every mock."""
    out, spent, start = [], 0, time.process_time()
    for i in range(len(mocks.image)):
        problem = Problem.of(prior, one(mocks.obs, i))
        problem.reach = 1.2 * float(np.abs(mocks.image[i]).max()) / problem.scale
        out.append(problem.images(PEERS[name][1](problem, budget, knob, draws, seed + i)))
        spent += problem.network.evaluations
    n = len(out)
    return np.stack(out), (time.process_time() - start) / (n * draws), spent / n


def run_galbatch(prior, mocks, mode: str, draws: int):
    parts, start = [], time.process_time()
    for i in range(len(mocks.image)):
        parts.append(sample_posterior(prior, one(mocks.obs, i), draws=draws, mode=mode, source_ids=[i]))
    seconds = (time.process_time() - start) / (len(parts) * draws)
    return (
        np.concatenate([p.samples[:, :, 0] for p in parts]),
        seconds,
        float(np.mean([p.n_evaluations[0] for p in parts])),
    )


def score(mocks, samples) -> dict:
    """Accuracy of draws (n, k, h, w)."""
    truth, mean = mocks.image, samples.mean(1)
    k = samples.shape[1]
    variance = samples.var(1, ddof=1) if k > 1 else np.full_like(truth, np.nan)
    error = ((mean - truth) ** 2).sum((1, 2)) - np.nan_to_num(variance).sum((1, 2)) / k
    nmse = np.where(np.isfinite(mean).all((1, 2)), error / (truth**2).sum((1, 2)), np.inf)
    rng = np.random.default_rng(0)
    boot = np.median(nmse[rng.integers(0, len(nmse), (500, len(nmse)))], 1)
    sky = np.median(mocks.obs.sigma[:, 0], axis=(1, 2))[:, None, None]
    bright = truth > 0.5 * sky
    z2 = [
        np.mean(((t - m)[b] ** 2) / (v[b] * (1 + 1 / k) + 1e-30)) * (k - 3) / (k - 1)
        for t, m, v, b in zip(truth, mean, variance, bright, strict=True)
    ]
    flux = np.abs(mean.sum((1, 2)) / truth.sum((1, 2)) - 1)
    return {
        "each": [float(f"{v:.4g}") for v in nmse],
        "nmse": float(np.median(nmse)),
        "nmse_error": float(np.std(boot[np.isfinite(boot)])),
        "nmse_mean": float(np.mean(nmse)),
        "chi2": float(np.nanmedian(chi2(mocks, samples))),
        "z_rms": float(np.sqrt(np.median(z2))) if k > 3 else None,
        "flux_error": float(np.median(flux)),
        **pictures(truth, mean, sky),
        "crps": float(
            np.median(
                [
                    crps(d[:, b], t[b]) / s[0, 0]
                    for d, t, b, s in zip(samples, truth, bright, sky, strict=True)
                ]
            )
        ),
        **biases(truth, samples),
    }


def pictures(truth, mean, sky) -> dict:
    """PSNR and SSIM of the mean images (n, h, w), both stretched by asinh(x / sky noise), against the range
    of the truth's."""
    a, b = np.arcsinh(truth / sky), np.arcsinh(np.nan_to_num(mean) / sky)
    span = np.ptp(a, axis=(1, 2))
    psnr = 10 * np.log10(span**2 / ((a - b) ** 2).mean((1, 2)))
    ssim = [structural_similarity(x, y, data_range=r) for x, y, r in zip(a, b, span, strict=True)]
    return {"psnr": float(np.median(psnr)), "ssim": float(np.median(ssim))}


def crps(draws, truth) -> float:
    """Continuous ranked probability score of draws (k, n), mean over n; |x - truth| for one draw."""
    k = len(draws)
    rank = np.arange(1, k + 1)[:, None]
    spread = (np.sort(draws, 0) * (2 * rank - k - 1)).sum(0) / max(k * (k - 1), 1)  # E |x - x'| / 2, unbiased
    return float(np.mean(np.abs(draws - truth).mean(0) - spread))


def biases(truth, samples) -> dict:
    """Median over galaxies of the mean over draws (n, k, h, w) of a statistic minus the truth's."""
    found = {}
    exact = measure(truth, 1.0, sky_sigma=0.0, groups=("gini", "cas"))
    drawn = measure(samples.reshape(-1, *truth.shape[1:]), 1.0, sky_sigma=0.0, groups=("gini", "cas"))
    for name in ("gini", "m20", "concentration", "asymmetry"):
        own = np.nanmean(drawn[name].reshape(samples.shape[:2]), 1)
        found[f"bias_{name}"] = float(np.nanmedian(own - exact[name]))
    return found


def ratio(each, reference) -> dict:
    """Median of each / reference over galaxies and its bootstrap error: paired, so that easy and hard
    galaxies weigh the same."""
    values = np.asarray(each) / np.asarray(reference)
    boot = np.median(values[np.random.default_rng(1).integers(0, len(values), (500, len(values)))], 1)
    return {"ratio": float(np.median(values)), "ratio_error": float(np.std(boot[np.isfinite(boot)]))}


def chi2(mocks, samples) -> np.ndarray:
    """(n,) mean over draws of chi2 a valid pixel, with the PSF convolution made by scipy, away from the
    stamp's edge."""
    out = []
    for i, draws in enumerate(samples):
        obs, psf = one(mocks.obs, i), mocks.obs.psf[i, 0].astype(float)
        kernel = to_target(psf, inverse=True)
        valid = obs.valid[0, 0].copy()
        valid[:12], valid[-12:], valid[:, :12], valid[:, -12:] = False, False, False, False
        seen = np.stack(
            [np.fft.irfft2(np.fft.rfft2(d, s=(128, 128)) * kernel, s=(128, 128))[:64, :64] for d in draws]
        )
        out.append(np.mean(((seen - obs.data[0, 0]) / obs.sigma[0, 0])[:, valid] ** 2))
    return np.array(out)


def to_target(psf, fwhm: float = 2.0, inverse: bool = False):
    """Transfer (128, 65) of the PSF over that of the Gaussian target, or the target's own."""
    fy, fx = np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None]
    target = np.exp(-2 * (np.pi * fwhm / 2.3548) ** 2 * (fy**2 + fx**2))
    if not inverse:
        return target
    wide = np.zeros((128, 128))
    wide[: psf.shape[0], : psf.shape[1]] = psf
    half = psf.shape[0] // 2
    return np.fft.rfft2(np.roll(wide, (-half, -half), (0, 1))) / target


def rows(options):
    prior = load_prior(options.model, device="cpu")
    mocks = make_mocks(prior, options.galaxies, sn_range=(5.0, 100.0))
    tuning = make_mocks(prior, 2, seed=TUNING_SEED, sn_range=(5.0, 100.0))
    common = {
        "galaxies": options.galaxies,
        "draws": options.draws,
        "prior": prior.card.sha256[:12],
        "load": os.getloadavg()[0],
    }
    default = 0.0
    for mode in ("default", "fast", "accurate"):
        samples, seconds, evaluations = run_galbatch(prior, mocks, mode, options.draws)
        found = {
            "method": f"galbatch {mode}",
            "evaluations": evaluations,
            "seconds": seconds,
            **score(mocks, samples),
            **common,
        }
        default = evaluations if mode == "default" else default
        yield found
    for name, images, seconds in at_oracle(mocks):
        yield {"method": name, "evaluations": 0, "seconds": seconds, **score(mocks, images), **common}
    for factor in options.budgets:
        budget = round(factor * default)  # of galbatch's default mode, which came first
        for name in options.peers:
            tried = {
                k: score(tuning, run_peer(prior, tuning, name, budget, k, 2, 7)[0])["nmse_mean"]
                for k in PEERS[name][0]
            }
            knob = min(tried, key=tried.get)
            samples, seconds, evaluations = run_peer(prior, mocks, name, budget, knob, options.draws)
            yield {
                "method": name,
                "budget": factor,
                "knob": knob,
                "evaluations": evaluations,
                "seconds": seconds,
                **score(mocks, samples),
                **common,
            }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--galaxies", type=int, default=8)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--budgets", type=float, nargs="*", default=[1.0, 4.0])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("frontier.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    check()
    place, first = environment("cpu"), None
    for row in rows(options):
        first = first or row
        line = json.dumps(row | ratio(row["each"], first["each"]))
        print(line, flush=True)
        with open(options.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(json.loads(line) | place) + "\n")


if __name__ == "__main__":
    main()
