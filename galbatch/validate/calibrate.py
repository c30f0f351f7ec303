"""The numbers behind ``galbatch.morphology.calibration``, from simulated truth.

The mocks are of a series that neither the priors nor ``galbatch validate`` use, so that ``validate`` tests
the calibration on galaxies it has not seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.interfaces import Denoiser
from galbatch.morphology import measure_posterior, summarise
from galbatch.morphology.calibration import (
    CALIBRATED,
    LEVELS,
    calibrated,
    conditions,
    median_and_factors,
    scaled,
)
from galbatch.prior.folder import STEPS
from galbatch.sampler.prior import as_denoiser
from galbatch.types import Observation
from galbatch.validate.mock import MockSet, make_mocks, sample_mocks
from galbatch.validate.ranks import mean_and_error

SEED = 3_000_000
FOLDS = 8
PASSES = 2  # of the size of the errors, about the centre that the pass before found


def measure_mocks(
    prior: Denoiser,
    mocks: MockSet,
    draws: int,
    mode: str,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """(columns of ``summarise``, truth): dict of (n,), structured (n,)."""
    posteriors = sample_mocks(prior, mocks, draws, mode, seed, progress)
    samples = np.concatenate([p.samples[:, :, 0] for p in posteriors])
    table, stamps = measure_with_truth(samples, mocks.image, mocks.obs)
    return summarise(table[:, :-1], stamps), table[:, -1]


def measure_with_truth(samples: np.ndarray, image: np.ndarray, obs: Observation) -> Any:
    """Statistics of draws (n, k, h, w) and, as one more draw, of the truth (n, h, w): (n, k + 1), and of the
    stamps."""
    return measure_posterior(
        np.concatenate([samples, image[:, None]], axis=1),
        np.nan_to_num(obs.data[:, 0]),
        obs.sigma[:, 0],
        np.asarray(obs.mask)[:, 0],
        None,
        np.ascontiguousarray(obs.psf[:, 0]),
        obs.pixel_scale_arcsec,
        mean=samples.mean(1),
    )


def fit_calibration(
    found: dict, truth: np.ndarray, target_fwhm_arcsec: float, galaxy: np.ndarray | None = None
) -> dict:
    """What ``calibrated`` takes as its table: range of the conditions, and numbers of every quantity.

    ``place``: median and half of the 68% interval of m; ``error``: least squares of ln |truth - centre|;
    ``slope``: of (truth - m) / e in t, a resistant line; ``z``: percentiles of the rest, those of a finite
    sample (the rank of level q among n is q (n + 1)). ``coverage``: share of truths within p16 to p84, with
    its standard error, from fits to the other folds; ``draws_coverage``: within raw16 to raw84. ``galaxy``
    (n,): which galaxy it is, 0 and up, where one is seen in several bands; None is another each time."""
    where = conditions(found, target_fwhm_arcsec)
    good = np.isfinite(where).all(axis=1)
    table: dict[str, Any] = {
        "draws": int(found["n_draws_measured"].max()),
        "range": [[float(w.min()), float(w.max())] for w in where[good].T],
        "quantities": {
            name: _fit(found, name, where, scaled(name, truth[name]), good) for name in CALIBRATED
        },
    }
    galaxy = np.arange(len(truth)) if galaxy is None else galaxy
    fold = np.random.default_rng(SEED).permutation(int(galaxy.max()) + 1)[galaxy] % FOLDS
    inside = {name: np.full(len(truth), np.nan) for name in CALIBRATED}
    for k in range(FOLDS):
        rest = {
            name: _fit(found, name, where, scaled(name, truth[name]), good & (fold != k))
            for name in CALIBRATED
        }
        columns = calibrated(found, {**table, "quantities": rest}, target_fwhm_arcsec)
        for name, values in inside.items():
            values[fold == k] = within(columns, name, ("p16", "p84"), truth[name])[fold == k]
    for name, numbers in table["quantities"].items():
        numbers["coverage"] = share(inside[name], galaxy)
        numbers["draws_coverage"] = share(within(found, name, ("raw16", "raw84"), truth[name]), galaxy)
    return table


def within(columns: dict, name: str, levels: tuple[str, str], truth: np.ndarray) -> np.ndarray:
    """1.0 where the truth (n,) lies between two columns, 0.0 where not, NaN where it cannot be said."""
    low, high = (columns[f"{name}_{level}"] for level in levels)
    known = np.isfinite(low) & np.isfinite(high) & np.isfinite(truth)
    return np.where(known, (low <= truth) & (truth <= high), np.nan)


def share(inside: np.ndarray, galaxy: np.ndarray | None = None) -> list[float]:
    """Mean of 0s and 1s and its standard error (see ``mean_and_error``); NaNs do not count."""
    return [round(value, 4) for value in mean_and_error(inside, galaxy)[:2]]


def _fit(
    found: dict[str, np.ndarray], name: str, where: np.ndarray, truth: np.ndarray, use: np.ndarray
) -> dict:
    middle, _, factors = median_and_factors(found, name, where)
    miss = truth - middle
    use = use & np.isfinite(miss) & np.isfinite(factors).all(axis=1)
    low, median, high = np.quantile(middle[use], [0.16, 0.5, 0.84])
    place = [float(median), float(high - low) / 2 or 1.0]
    _, at, factors = median_and_factors(found, name, where, place)
    miss, at, factors = miss[use], at[use], factors[use]
    centre = np.zeros(len(miss))
    for _ in range(PASSES):
        size = np.abs(miss - centre)
        target = np.log(size + 0.01 * np.median(size))  # a miss of zero has no logarithm
        error = np.linalg.lstsq(factors, target, rcond=None)[0]
        e = np.exp(factors @ error)
        slope = _resistant_slope(at, miss / e)
        z = miss / e - slope * at
        centre = (slope * at + np.median(z)) * e
    ranks = [min(max(q + (q - 0.5) / len(z), 0.0), 1.0) for q in LEVELS.values()]
    return {
        "place": place,
        "error": [float(a) for a in error],
        "slope": slope,
        "z": [float(v) for v in np.quantile(z, ranks)],
    }


def _resistant_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the line through the medians of the lower and upper thirds in x (Tukey 1977)."""
    low, high = np.quantile(x, [1 / 3, 2 / 3])
    if low == high:
        return 0.0
    a, b = x <= low, x >= high
    return float((np.median(y[b]) - np.median(y[a])) / (np.median(x[b]) - np.median(x[a])))


def write_calibration(path: Path, mode: str, table: dict, sha256: str) -> None:
    """Put the table of a mode into ``calibration.json``; those of other modes of the same weights and
    steps stay. Of bands together the name is "default joint", and the table has the ``joint_sha256``."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    own = {"sha256": sha256, "steps": STEPS}
    modes = known.get("modes", {}) if own.items() <= known.items() else {}
    if joint := table.get("joint_sha256"):
        modes = {name: old for name, old in modes.items() if old.get("joint_sha256", joint) == joint}
    path.write_text(json.dumps({**own, "modes": {**modes, mode: table}}, indent=1) + "\n")


def calibrate(
    prior: Denoiser, galaxies: int, draws: int, mode: str, progress: Callable[[int, int], None] | None = None
) -> dict:
    """The table of a sampler mode from ``galaxies`` mocks, half of them under correlated noise: see
    ``fit_calibration``. Under one kind alone S/N and spread say the same, and their shares in the error are
    not told apart."""
    series = [
        make_mocks(prior, galaxies - galaxies // 2, seed=SEED),
        make_mocks(prior, galaxies // 2, seed=SEED + 500_000, correlated=True),
    ]
    parts = [measure_mocks(prior, mocks, draws, mode, progress=progress) for mocks in series]
    found = {name: np.concatenate([columns[name] for columns, _ in parts]) for name in parts[0][0]}
    truth = np.concatenate([t for _, t in parts])
    target = as_denoiser(prior).spec.target_fwhm_pix * series[0].obs.pixel_scale_arcsec
    return {"galaxies": len(truth), "draws": draws, **fit_calibration(found, truth, target)}
