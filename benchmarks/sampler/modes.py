"""Sampler modes on the same held-out mocks, paired by source with the first of them: what fewer evaluations
cost.

    python benchmarks/sampler/modes.py [--modes default balanced fast] [--galaxies 16] [--draws 8]
        [--model small] [--noise white correlated] [--out FILE.jsonl]
    python benchmarks/sampler/modes.py --count

One JSON line for each mode, for as many mocks in each kind of noise (S/N 3 to 300). Ratios
are geometric means over sources, with their standard error: ``error``, the squared error of the mean less
the scatter of a mean of few draws; ``crps`` over pixels brighter than half the sky noise; ``spread``, the
standard deviation of the draws in four bands of Fourier modes. ``pixels``, ``fourier``: per cent of truths
in 68% intervals, by fair ranks. For each statistic: ``miss``, the rms of (mean - truth) in the spread of both
modes, and ``spread``. Coverage is the same where a mode has the miss and the spread of the first: where the
ratio of the two is off by 4%, 68% intervals hold 2% more or less.

``--count``: evaluations per draw by S/N: values at guided levels, Jacobian products, levels of the tail.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from galbatch.bench import environment
from galbatch.prior import load_prior
from galbatch.sampler.schedule import MODES, evaluations, noise_level
from galbatch.sampler.spectra import spectra_of
from galbatch.validate.calibrate import measure_with_truth
from galbatch.validate.mock import MockSet, make_mocks, sample_mocks
from galbatch.validate.ranks import ranks

SEED = 5_000_000  # of mocks that neither training nor `galbatch validate` nor its calibration use
BANDS = (1e-9, 0.04, 0.1, 0.2, 0.35)  # cycles a pixel
KINDS = {"white": 0, "correlated": 500_000}  # noise: what is added to the seed
STATISTICS = ("flux", "r_half", "gini", "m20", "concentration", "asymmetry")


def drawn(prior, mocks: MockSet, mode: str, draws: int) -> dict:
    """Draws (n, k, h, w) of every mock and their statistics (n, k + 1), the truth last."""
    start = time.process_time()
    parts = sample_mocks(prior, mocks, draws, mode)
    seconds = (time.process_time() - start) / (draws * len(parts))
    samples = np.concatenate([p.samples[:, :, 0] for p in parts]).astype(float)
    table, _ = measure_with_truth(samples.astype(np.float32), mocks.image, mocks.obs)
    flux = np.concatenate([samples, mocks.image[:, None]], 1).sum((-1, -2))
    return {
        "samples": samples,
        "seconds": seconds,
        "evaluations": np.concatenate([p.n_evaluations for p in parts]),
        "p": np.concatenate([p.chi2_p[:, 0] for p in parts]),
        "statistics": {
            name: flux / flux[:, -1:] if name == "flux" else table[name].astype(float) for name in STATISTICS
        },
    }


def by_source(found: dict, mocks: MockSet) -> dict:
    """(n,) or (n, bands) numbers of every source."""
    samples, truth, rng = found["samples"], mocks.image.astype(float), np.random.default_rng(0)
    k = samples.shape[1]
    mean, variance = samples.mean(1), samples.var(1, ddof=1)
    sky = np.median(mocks.obs.sigma[:, 0], axis=(1, 2))[:, None, None]
    bright = truth > 0.5 * sky
    rank = np.arange(1, k + 1)[:, None, None]
    apart = (np.sort(samples, 1) * (2 * rank - k - 1)).sum(1) / (k * (k - 1))
    crps = np.abs(samples - truth[:, None]).mean(1) - apart
    miss = ((mean - truth) ** 2).sum((1, 2))
    waves, wave = np.fft.rfft2(samples), np.fft.rfft2(truth)
    k_abs = np.hypot(np.fft.fftfreq(truth.shape[1])[:, None], np.fft.rfftfreq(truth.shape[2]))
    spread, inside = [], []
    for low, high in pairwise(BANDS):
        band = (k_abs >= low) & (k_abs < high)
        d, t = waves[:, :, band], wave[:, band]
        spread.append(np.sqrt(d.var(1, ddof=1).mean(1)))
        u = np.concatenate([ranks(d.real, t.real, rng), ranks(d.imag, t.imag, rng)], -1)
        inside.append((np.abs(u - 0.5) < 0.34).mean(1))
    pixels = np.abs(ranks(samples, truth, rng) - 0.5) < 0.34
    return {
        "error": np.maximum(miss - variance.sum((1, 2)) / k, 1e-3 * miss),
        "crps": (crps * bright).sum((1, 2)) / bright.sum((1, 2)),
        "spread": np.stack(spread, 1),
        "fourier": np.stack(inside, 1),
        "pixels": (pixels & bright).sum((1, 2)) / bright.sum((1, 2)),
    }


def ratio(a: np.ndarray, b: np.ndarray) -> list:
    """Geometric mean of a / b over sources and its standard error."""
    with np.errstate(all="ignore"):
        logs = np.log(a / b)
    logs = logs[np.isfinite(logs)]
    return [round(float(np.exp(logs.mean())), 3), round(float(logs.std() / len(logs) ** 0.5), 3)]


def of_statistic(own: np.ndarray, first: np.ndarray) -> dict:
    """``miss`` and ``spread`` of a statistic (n, k + 1), the truth last, over those of the first mode."""
    sd = [v[:, :-1].std(1, ddof=1) for v in (own, first)]
    scale = np.sqrt(sd[0] * sd[1])
    miss = [np.abs(v[:, :-1].mean(1) - v[:, -1]) / scale for v in (own, first)]
    miss = [np.clip(m, 0, 4) for m in miss]
    good = np.isfinite(miss[0] + miss[1])
    a, b = (m[good] ** 2 for m in miss)
    pick = np.random.default_rng(0).integers(0, len(a), (300, len(a)))
    error = np.sqrt(a[pick].mean(1) / b[pick].mean(1)).std()
    return {
        "miss": [round(float(np.sqrt(a.mean() / b.mean())), 3), round(float(error), 3)],
        "spread": ratio(*sd),
    }


def compare(options: argparse.Namespace, prior) -> None:
    """Prints and writes a line for each mode and noise."""
    for noise in options.noise:
        mocks, first = make_mocks(prior, options.galaxies, SEED + KINDS[noise], bool(KINDS[noise])), None
        for mode in options.modes:
            found = drawn(prior, mocks, mode, options.draws)
            own = by_source(found, mocks)
            first = first or (found, own)
            line = {
                "benchmark": "modes",
                "mode": mode,
                "noise": noise,
                "galaxies": len(mocks.image),
                "draws": options.draws,
                "model": prior.card.name,
                **numbers(found, own, *first),
            }
            print(json.dumps(line), flush=True)
            if options.out:
                with open(options.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line | environment("cpu")) + "\n")


def numbers(found: dict, own: dict, first: dict, of_first: dict) -> dict:
    """What a line says of a mode, from ``drawn`` and ``by_source`` of it and of the first."""
    bands = zip(own["spread"].T, of_first["spread"].T, strict=True)
    return {
        "evaluations": round(float(found["evaluations"].mean()), 1),
        "cpu_seconds": round(found["seconds"], 4),
        "load": round(os.getloadavg()[0], 1),
        "error": ratio(own["error"], of_first["error"]),
        "crps": ratio(own["crps"], of_first["crps"]),
        "spread": [ratio(a, b)[0] for a, b in bands],
        "pixels": round(100 * float(own["pixels"].mean()), 1),
        "fourier": [round(100 * float(v), 1) for v in own["fourier"].mean(0)],
        "p_below_1_per_cent": round(100 * float((found["p"] < 0.01).mean()), 1),
        **{name: of_statistic(v, first["statistics"][name]) for name, v in found["statistics"].items()},
    }


def count(prior) -> None:
    """Evaluations per draw of each mode by S/N, at the sharpest and the widest PSF of the mocks."""
    from galbatch.forward import forward_model, smoothed_peak_scale

    mocks = make_mocks(prior, 64, seed=SEED)
    sizes = prior.spec.margin_pix, prior.spec.multiple_of, prior.spec.target_fwhm_pix
    _, model = forward_model(mocks.obs, 1, *sizes, smoothed_peak_scale(mocks.obs), "cpu")
    spectra = spectra_of(prior, 1, model.fine)
    rho, bright = noise_level(spectra, model.circulant_precision())
    for mode in ("quick", "fast", "balanced", "default", "accurate"):
        m = MODES[mode]
        for low, high in pairwise((3, 10, 30, 100, 300)):
            rows = np.flatnonzero((mocks.sn >= low) & (mocks.sn < high))
            guided = np.array([m.guided(float(rho[i]), spectra.max_sd) for i in rows])
            products = guided * m.products
            total = np.array([evaluations(m, g, bool(bright[i])) for g, i in zip(guided, rows, strict=True)])
            tail = total - guided - products
            print(
                f"{mode:9} S/N {low:3}-{high:3}: {total.mean():5.1f} = {guided.mean():4.1f} values"
                f" + {products.mean():4.1f} products + {tail.mean():3.1f} tail"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", nargs="+", default=["default", "balanced", "fast"])
    parser.add_argument("--galaxies", type=int, default=16, help="in each kind of noise")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--model", default="small")
    parser.add_argument("--noise", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior(options.model, device="cpu")
    count(prior) if options.count else compare(options, prior)


if __name__ == "__main__":
    main()
