"""The referee: every method on the same galaxies of known truth, paired by galaxy with the first.

    python benchmarks/peers/referee.py [--methods default fast "azula DiffPIR:28" "Wiener (oracle)"]
        [--sets white correlated real real-10] [--galaxies 32] [--draws 16] [--model small] [--keep FOLDER]
        [--out FILE]

Sets: held-out mocks of S/N 3 to 300 (of seeds that chose nothing) in white and in correlated noise, which the
peers do not take; real galaxies of ``--data`` at S/N 10, 50 and 300, or at one of them, judged inside their
segment; fewer ``--galaxies`` than there are are spread over them. A method is a mode of galbatch, a classical
one at the strength that is best for the galaxy at hand (``classical.py``), or a peer (``peers.py``): on
galbatch's network with its budget of evaluations (forward passes and vector-Jacobian products), or a tool
with a prior of its own. A peer that is not installed is left out, and named. A peer's knob is the best of a
grid on other galaxies, and first of all the peers must do well where they have to (``gaussian_check.py``).
``--keep``: draws are kept there, and a run that stopped goes on.

One JSON line per method and set, each number with its standard error over galaxies. ``over_first``:
geometric means of ratios to the first method: of ``error``, |mean - truth|^2 less the scatter of a mean of
few draws; of ``crps`` over pixels brighter than half the sky noise; of ``energy``, the score of the image;
and of ``interval``, the score of the calibrated intervals (width, and 6.3 times each miss). ``means``:
``nmse``, the error over |truth|^2; per cent of truths in 68 and 90% intervals, by fair ranks, of bright
pixels and of 14 quantities, and in calibrated intervals; ``spread``: rms of (truth - mean) over what the
draws say (1); ``ssim`` of the mean in an asinh stretch; ``bias_*`` of the draws' mean, ``off_*``, the size
of the error of their median, and of the pixels as they are: medians over galaxies. ``each``: coverage by
quantity. Seconds are CPU time per draw.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from classical import METHODS, at_oracle
from gaussian_check import check
from peers import PEERS
from problem import Problem
from skimage.metrics import structural_similarity

from galbatch.bench import environment
from galbatch.bench.timing import keep
from galbatch.morphology import summarise
from galbatch.morphology.calibration import CALIBRATED, calibrated, reached, scaled
from galbatch.prior import load_prior
from galbatch.types import Observation
from galbatch.validate import make_mocks
from galbatch.validate.calibrate import measure_with_truth, within
from galbatch.validate.mock import MockSet, sample_mocks
from galbatch.validate.ranks import mean_and_error, ranks, tarp
from galbatch.validate.real import make_real

SEED, TUNING_SEED, PART = 7_000_000, 2_500_000, 8
BIASES = ("gini", "m20", "concentration", "asymmetry")
INSIDE = {"68": 0.3413, "90": 0.45}  # half of the range of ranks
PAIRED = ("error", "crps", "energy", "interval")


def parts(prior, name: str, galaxies: int, data: Path) -> list[MockSet]:
    """A set in parts of at most eight observations."""
    if name.startswith("real"):
        mocks = make_real(prior, data)
        image = np.where(mocks.inside, mocks.image, 0).astype(np.float32)  # draws are cut like this too
        level = float(name.partition("-")[2] or "nan")
        chosen = np.flatnonzero((mocks.sn == level) | np.isnan(level))
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(galaxies, len(chosen))).round().astype(int)]
        return [rows(replace(mocks, image=image), chosen[i : i + PART]) for i in range(0, len(chosen), PART)]
    seed, correlated = SEED + 500_000 * (name == "correlated"), name == "correlated"
    return [make_mocks(prior, PART, seed + 1000 * i, correlated) for i in range(-(-galaxies // PART))]


def rows(mocks: MockSet, some: slice | np.ndarray) -> MockSet:
    """Some observations of a set."""
    o = mocks.obs
    obs = Observation(
        o.data[some], o.sigma[some], o.psf[some], o.mask[some], o.pixel_scale_arcsec, o.psf_scale_arcsec
    )
    own = {k: v[some] for k, v in vars(mocks).items() if k != "obs" and v is not None}
    return MockSet(obs, **own)


def drawn(prior, mocks: MockSet, method: str, draws: int) -> dict:
    """``samples`` (n, k, h, w) of a method, its ``evaluations`` per draw and CPU ``seconds`` per draw."""
    start, name = time.process_time(), method.partition(":")[0]
    if name in PEERS:
        samples, evaluations = of_peer(prior, mocks, method, draws)
    elif name in {name for name, *_ in METHODS}:
        samples, evaluations = at_oracle(mocks, name), 0.0
    else:
        found = sample_mocks(prior, mocks, draws, method)
        samples = np.concatenate([p.samples[:, :, 0] for p in found])
        evaluations = float(np.concatenate([p.n_evaluations for p in found]).mean())
    seconds = (time.process_time() - start) / samples[:, :, 0, 0].size
    return {"samples": samples.astype(np.float32), "evaluations": evaluations, "seconds": seconds}


def of_peer(prior, mocks: MockSet, method: str, draws: int, knob: float | None = None, seed: int = 0):
    """Draws (n, k, h, w) of a peer, and its evaluations per draw; its knob by itself is ``tuned``."""
    name, _, budget = method.partition(":")
    knob = tuned(prior, method) if knob is None else knob
    images, spent = [], 0
    for i in range(len(mocks.image)):
        problem = Problem.of(prior, rows(mocks, slice(i, i + 1)).obs)
        problem.reach = 1.2 * float(np.abs(mocks.image[i]).max()) / problem.scale
        images.append(PEERS[name].sample(problem, int(budget or 0), knob, draws, seed + i))
        spent += problem.network.evaluations
    return np.stack(images), spent / len(images)


def tuned(prior, method: str, known: dict = {}) -> float:  # noqa: B006 (a memory)
    """The knob of a peer with which the squared error is least on two galaxies that are not judged."""
    if len(knobs := PEERS[method.partition(":")[0]].knobs) == 1:
        return knobs[0]
    if method not in known:
        mocks = make_mocks(prior, 2, TUNING_SEED, sn_range=(5.0, 100.0))
        power = (mocks.image**2).sum((1, 2))

        def error(knob: float) -> float:
            mean = of_peer(prior, mocks, method, 2, knob, 7)[0].mean(1)
            return float(np.nan_to_num(((mean - mocks.image) ** 2).sum((1, 2)) / power, nan=np.inf).mean())

        known[method] = min(knobs, key=error)
    return known[method]


def judged(mocks: MockSet, samples: np.ndarray, spec, mode: str) -> dict[str, np.ndarray]:
    """Numbers (n,) of every galaxy, and ``CALIBRATED`` quantities (n, 14)."""
    rng, truth, k = np.random.default_rng(0), mocks.image.astype(float), samples.shape[1]
    if mocks.inside is not None:
        samples = np.where(mocks.inside[:, None], samples, 0).astype(np.float32)
    sky = np.median(mocks.obs.sigma[:, 0], axis=(1, 2))
    bright = truth > 0.5 * sky[:, None, None]
    share = lambda pixels: (pixels * bright).sum((1, 2)) / bright.sum((1, 2))  # noqa: E731
    mean, draws = samples.mean(1, dtype=float), samples.astype(float)
    variance = draws.var(1, ddof=1) if k > 1 else np.zeros_like(truth)
    miss = ((mean - truth) ** 2).sum((1, 2))
    found = {
        "error": np.maximum(miss - variance.sum((1, 2)) / k, 1e-3 * miss),
        "nmse": (miss - variance.sum((1, 2)) / k) / (truth**2).sum((1, 2)),
        "crps": share(np.abs(draws - truth[:, None]).mean(1) - half_distance(draws)) / sky,
        "energy": energy(draws, truth),
        "ssim": np.array([ssim(t / s, m / s) for t, m, s in zip(truth, mean, sky, strict=True)]),
    }
    table, stamps = measure_with_truth(samples, mocks.image, mocks.obs)
    for name in BIASES:
        of_draws, of_truth = table[name][:, :-1], table[name][:, -1]
        found[f"bias_{name}"] = of_draws.mean(1) - of_truth
        found[f"off_{name}"] = np.abs(np.median(of_draws, 1) - of_truth)
        found[f"off_{name}_pixels"] = np.abs(stamps[name] - of_truth)
    if k == 1:
        return found
    found["spread"] = np.sqrt(share((mean - truth) ** 2) / share(variance * (1 + 1 / k)))
    values = np.stack([table[name].astype(float) for name in CALIBRATED], -1)
    apart = {"pixels": np.abs(ranks(samples, truth, rng) - 0.5)}
    apart["quantities"] = np.abs(ranks(values[:, :-1], values[:, -1], rng) - 0.5)
    for level, half in INSIDE.items():
        inside = np.where(np.isnan(apart["quantities"]), np.nan, apart["quantities"] < half)
        found |= {f"pixels_{level}": 100 * share(apart["pixels"] < half), f"quantities_{level}": 100 * inside}
    if mode in spec.calibration:
        numbers, fwhm = spec.calibration[mode], spec.target_fwhm_pix * mocks.obs.pixel_scale_arcsec
        columns = calibrated(summary := summarise(table[:, :-1], stamps), numbers, fwhm)
        known = reached(summary, numbers, fwhm)
        found |= by_columns(columns, table[:, -1], known)
    return found


def by_columns(columns: dict, truth: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Of calibrated intervals (n, 14): do they hold the truth, and their score (Gneiting & Raftery 2007)."""
    inside, score = [], []
    for name in CALIBRATED:
        held = within(columns, name, ("p16", "p84"), truth[name])
        low, high, t = (
            scaled(name, v) for v in (columns[f"{name}_p16"], columns[f"{name}_p84"], truth[name])
        )
        off = np.clip(low - t, 0, None) + np.clip(t - high, 0, None)
        inside.append(np.where(known, 100 * held, np.nan))
        score.append(np.where(known, high - low + 2 / (1 - 0.6827) * off, np.nan))
    return {"calibrated_68": np.stack(inside, -1), "interval": np.stack(score, -1)}


def half_distance(draws: np.ndarray) -> np.ndarray:
    """Half of the mean |x - x'| of two draws of (n, k, ...): (n, ...)."""
    k = draws.shape[1]
    weight = (2 * np.arange(1, k + 1) - k - 1).reshape(-1, *[1] * (draws.ndim - 2))
    return (np.sort(draws, 1) * weight).sum(1) / max(k * (k - 1), 1)


def energy(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The energy score (n,) of images (Gneiting & Raftery 2007)."""
    n, k = draws.shape[:2]
    flat = draws.reshape(n, k, -1)
    miss = np.linalg.norm(flat - truth.reshape(n, 1, -1), axis=-1).mean(1)
    apart = np.stack([np.linalg.norm(flat - flat[:, i : i + 1], axis=-1).sum(1) for i in range(k)], 1)
    return miss - apart.sum(1) / max(2 * k * (k - 1), 1)


def ssim(truth: np.ndarray, mean: np.ndarray) -> float:
    """Of images in units of the sky noise, in an asinh stretch, against the range of the truth's."""
    a, b = np.arcsinh(truth), np.arcsinh(mean)
    return float(structural_similarity(a, b, data_range=np.ptp(a)))


def line(found: dict, first: dict, galaxy: np.ndarray | None) -> dict:
    """What is said of a method, from ``judged`` of all galaxies of it and of the first."""
    both = lambda values: [round(v, 4) for v in mean_and_error(values, galaxy)[:2]]  # noqa: E731
    over = {}
    for name in PAIRED:
        if name in found and name in first:
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.log(found[name] / first[name])
            logs = np.nanmean(np.where(np.isfinite(logs), logs, np.nan).reshape(len(logs), -1), 1)
            over[name] = [round(float(np.exp(v)) if not i else v, 3) for i, v in enumerate(both(logs))]
    means = {}
    for name, values in found.items():
        if name.startswith(("bias", "off")):
            means[name] = [round(float(np.nanmedian(values)), 4), both(values)[1]]
        elif name not in PAIRED:
            means[name] = both(values if values.ndim == 1 else np.nanmean(values, 1))
    each = {n: [both(c) for c in v.T] for n, v in found.items() if v.ndim == 2 and n != "interval"}
    per = [dict(zip(each, column, strict=True)) for column in zip(*each.values(), strict=True)]
    return {"over_first": over, "means": means, "each": dict(zip(CALIBRATED, per, strict=False))}


def compare(options: argparse.Namespace, prior) -> None:
    """Prints and writes a line for each method and set."""
    for name in options.sets:
        mocks, first = parts(prior, name, options.galaxies, options.data), None
        galaxy = None if mocks[0].galaxy is None else np.concatenate([m.galaxy for m in mocks])
        for method in options.methods:
            if name == "correlated" and method.partition(":")[0] in PEERS:
                continue  # they take white noise
            runs = [kept(options, f"{name}-{i:02d}", prior, m, method) for i, m in enumerate(mocks)]
            scores = [
                judged(m, run["samples"], prior.spec, method) for m, run in zip(mocks, runs, strict=True)
            ]
            found = {key: np.concatenate([score[key] for score in scores]) for key in scores[0]}
            first = first or found
            row = {"benchmark": "referee", "set": name, "method": method, "n": len(found["error"])}
            row |= {k: round(float(np.mean([r[k] for r in runs])), 3) for k in ("evaluations", "seconds")}
            row |= {"draws": runs[0]["samples"].shape[1], "model": prior.spec.name}
            row |= {"tarp": off_diagonal(mocks, runs)} | line(found, first, galaxy)
            keep(row | environment("cpu"), options.out)


def off_diagonal(mocks: list[MockSet], runs: list[dict]) -> float:
    """Largest distance of the expected coverage from the level (TARP), seen from other galaxies."""
    truth = np.concatenate([m.image.reshape(len(m.image), -1) for m in mocks])
    draws = np.concatenate([run["samples"].reshape(*run["samples"].shape[:2], -1) for run in runs])
    unit = 1 / (draws.std(1).mean(1) + 1e-12)[:, None]
    truth, draws = truth * unit, draws * unit[..., None]
    levels, held = tarp(draws, truth, np.roll(truth, 1, 0), np.random.default_rng(0))
    return round(float(np.abs(held - levels).max()), 3)


def kept(options: argparse.Namespace, part: str, prior, mocks: MockSet, method: str) -> dict:
    """``drawn``, or what it was the last time."""
    path = options.keep and options.keep / f"{prior.spec.name}-{method}-{part}-{options.draws}.npz"
    if path and path.is_file():
        return dict(np.load(path))
    found = drawn(prior, mocks, method, options.draws)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=["default", "fast", "accurate"])
    parser.add_argument("--sets", nargs="+", default=["white", "correlated"])
    parser.add_argument("--galaxies", type=int, default=32, help="observations of each set, at most")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--model", default="small")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.methods = installed(options.methods)
    check({method.partition(":")[0] for method in options.methods} & set(PEERS))
    compare(options, load_prior(options.model, device="cpu"))


def installed(methods: list[str]) -> list[str]:
    """Those whose packages are here; the others are named."""
    there = []
    for method in methods:
        peer = PEERS.get(method.partition(":")[0])
        if peer and peer.missing:
            print(f"Left out: {method}, which needs {' and '.join(peer.missing)} (peers.py says how)")
        else:
            there.append(method)
    return there


if __name__ == "__main__":
    main()
