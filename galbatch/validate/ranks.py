"""Coverage from randomised ranks, and error bars from galaxies (never from pixels, which are not
independent).

``u`` = (number of draws below the truth + U) / (k + 1), U uniform on (0, 1): exactly uniform for any number
of draws when the truth and the draws have one law. A central interval of level p covers the truth when |u -
1/2| < p / 2.
"""

from __future__ import annotations

import numpy as np

LEVELS = (0.50, 0.68, 0.90, 0.95)


def ranks(draws: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ranks (n, ...) of truth (n, ...) among draws (n, k, ...); ties broken at random; NaN where anything is
    NaN."""
    k = draws.shape[1]
    below = (draws < truth[:, None]).sum(1)
    equal = (draws == truth[:, None]).sum(1)
    u = (below + rng.random(truth.shape) * (equal + 1)) / (k + 1)
    return np.where(np.isfinite(truth) & np.isfinite(draws).all(1), u, np.nan)


def coverage(
    u: np.ndarray,
    weight: np.ndarray | None = None,
    galaxy: np.ndarray | None = None,
    bootstraps: int = 400,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Coverage (levels,) and its standard error by bootstrap over galaxies, from ranks u (n, ...) in any
    shape.

    ``weight`` (n, ...) True where a rank counts. ``galaxy`` (n,): numbers of the galaxies, where one is seen
    several times. Galaxies without a rank drop out.
    """
    flat = u.reshape(len(u), -1)
    use = np.isfinite(flat) & (True if weight is None else weight.reshape(flat.shape))
    inside = np.stack([((np.abs(flat - 0.5) < p / 2) & use).sum(1) for p in LEVELS], 1)
    count = use.sum(1)
    if galaxy is not None:
        count = np.bincount(galaxy, count)
        inside = np.stack([np.bincount(galaxy, column) for column in inside.T], 1)
    keep = count > 0
    inside, count = inside[keep], count[keep]
    if not len(count):
        return np.full(len(LEVELS), np.nan), np.full(len(LEVELS), np.nan), 0
    rng = np.random.default_rng(seed)
    pick = rng.integers(0, len(count), (bootstraps, len(count)))
    spread = (inside[pick].sum(1) / count[pick].sum(1)[:, None]).std(0)
    floor = np.sqrt(np.array(LEVELS) * (1 - np.array(LEVELS)) / len(count))
    if flat.shape[1] == 1:  # a scalar per galaxy: binomial, and a bootstrap of all-inside has no spread
        spread = np.maximum(spread, 0.5 * floor)
    return inside.sum(0) / count.sum(), spread, len(count)


def rank_histogram_p(u: np.ndarray, bins: int = 10) -> float:
    """p-value of a chi2 test that ranks (n,) are uniform."""
    from scipy.stats import chisquare

    u = u[np.isfinite(u)]
    if len(u) < 5 * bins:
        return float("nan")
    return float(chisquare(np.histogram(u, bins, (0, 1))[0]).pvalue)


def tarp(
    draws: np.ndarray, truth: np.ndarray, reference: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Expected coverage against credibility (Lemos et al. 2023): (levels, coverage), for draws (n, k, d),
    truth and reference points (n, d) that do not depend on the truth."""
    d_draw = np.linalg.norm(draws - reference[:, None], axis=-1)
    d_true = np.linalg.norm(truth - reference, axis=-1)
    f = ranks(d_draw, d_true, rng)
    levels = np.linspace(0, 1, 51)
    return levels, np.array([(f < a).mean() for a in levels])


def mean_and_error(values: np.ndarray, galaxy: np.ndarray | None = None) -> tuple[float, float, int]:
    """Mean of values (n,), its standard error and how many galaxies it is of; NaN does not count.

    The error is that of independent galaxies, however often each of them is seen (``galaxy`` (n,)): for
    zeros and ones of as many galaxies it is the binomial one.
    """
    known = np.isfinite(values)
    if not known.any():
        return float("nan"), float("nan"), 0
    galaxy = np.arange(len(values)) if galaxy is None else galaxy
    values, names = values[known], galaxy[known]
    miss = np.bincount(names, values - values.mean())
    return float(values.mean()), float(np.sqrt((miss**2).sum())) / len(values), len(np.unique(names))
