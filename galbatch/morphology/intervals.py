"""Intervals of a few draws that hold what they promise.

Let x_1 < ... < x_k be k exact draws, in order, and x the truth. Draws and truth are exchangeable, so that x
falls into each of the k + 1 gaps with the same chance, whatever the posterior: between x_i and x_j it lies
with probability (j - i) / (k + 1). The usual percentiles are at the places 1 + q (k - 1); from q to 1 - q
they hold about (1 - 2 q) (k - 1) / (k + 1): 60% for 16 draws and 41% for 4, where 68% is meant.

The end of level q belongs at place q (k + 1). That is between two draws, i and i + 1,

    end = x_i + f (x_{i+1} - x_i),

and for k below 6 outside of all of them: then i = 1 and the range is extended, end = x_1 + f (x_k - x_1) with
f below 0. Inside a gap the chance depends on the posterior: f is set so that P(x < end) = q for Gaussian
draws. With u = Phi(x_i) and v = Phi(x_j), v is distributed as Beta(j, k + 1 - j) and u / v, independent of
it, as Beta(i, j - i) (David & Nagaraja 2003, section 2.5); P = E[Phi(end)] is a sum over two quadratures. For
k = 2 this is Student's interval with one degree of freedom, 3.18 times the range; for exponential draws the
intervals of 2 to 16 hold 67-72%. The upper end mirrors the lower one, and the median is the middle draw or
that of two.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri

LEVEL = 0.15865525393145708  # of the lower end: one sigma
_NODES = 64


def interval(values: np.ndarray, positive: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(b,) lower end, median and upper end of the 68% interval from draws (b, k); NaNs are left out.

    ``positive``: the ends are taken in logarithms, and never reach zero. NaN without a draw; the ends are NaN
    with one, which says nothing of its error.
    """
    if positive:
        with np.errstate(divide="ignore", invalid="ignore"):
            low, middle, high = interval(np.log(values))
        return np.exp(low), np.exp(middle), np.exp(high)
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=1)  # NaNs last
    known = np.isfinite(ordered).sum(axis=1)
    low, middle, high = (np.full(len(ordered), np.nan) for _ in range(3))
    for k in np.unique(known[known > 0]):
        rows = known == k
        x = ordered[rows, :k]
        middle[rows] = np.median(x, axis=1)
        if k > 1:
            i, j, f = lower_end(int(k))
            low[rows] = x[:, i - 1] + f * (x[:, j - 1] - x[:, i - 1])
            high[rows] = x[:, k - i] + f * (x[:, k - j] - x[:, k - i])
    return low, middle, high


@cache
def lower_end(k: int) -> tuple[int, int, float]:
    """(i, j, f): the lower end of the interval of ``k`` draws is x_i + f (x_j - x_i)."""
    from scipy.optimize import brentq  # a tenth of a second to import

    i = int(LEVEL * (k + 1))
    i, j = (i, i + 1) if i else (1, k)
    x, y, weight = _two_of(k, i, j)
    return i, j, float(brentq(lambda f: np.sum(weight * ndtr(x + f * (y - x))) - LEVEL, -20.0, 1.0))


def fewer_draws(k: int, fitted: int, power: float) -> float:
    """By what an interval about the median widens that was calibrated with ``fitted`` draws and has ``k``.

    The interval is as wide as the spread of the draws (half of p16 to p84, as numpy has it) to the ``power``.
    Where it follows the spread, power 1, ``k`` draws need c(k) of their spread to hold 68%, and c(fitted) is
    in the calibration. Where it does not, power 0, only the error of the median is larger: the truth is off
    it by sqrt(1 + v(k)) sigma, v the variance of the median of ``k`` Gaussian draws. Between the two the
    factor is the geometric mean of both. Never below 1: more draws than were tried promise nothing more."""
    width, fitted_width = _expected(k), _expected(fitted)
    follows = width[0] / fitted_width[0]
    free = np.sqrt((1 + width[1]) / (1 + fitted_width[1]))
    return max(1.0, float(follows**power * free ** (1 - power)))


def over_usual(k: int) -> float:
    """By what the half of p16 to p84 of ``k`` draws, as numpy has it, is too short for one that holds 68%, if
    the draws are Gaussian; 1 of a single draw."""
    return _expected(k)[0] if k > 1 else 1.0


@cache
def _expected(k: int) -> tuple[float, float]:
    """Of ``k`` Gaussian draws: half of the interval over half of p16 to p84, and the variance of the
    median."""
    i, j, f = lower_end(k)
    place = 1 + LEVEL * (k - 1)
    raw = int(place)
    mean = [_mean(k, n) for n in range(1, k + 1)]
    end = mean[i - 1] + f * (mean[j - 1] - mean[i - 1])
    usual = mean[raw - 1] + (place - raw) * (mean[raw] - mean[raw - 1])
    one, other, weight = _two_of(k, (k + 1) // 2, k // 2 + 1)
    return end / usual, float(np.sum(weight * ((one + other) / 2) ** 2))


def _mean(k: int, i: int) -> float:
    """Expectation of the i-th of ``k`` Gaussian draws."""
    nodes, weight = _quadrature()
    return float(np.sum(weight * ndtri(betaincinv(i, k + 1 - i, nodes))))


def _two_of(k: int, i: int, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of the i-th and j-th of ``k`` Gaussian draws, and the weights over which to sum them."""
    nodes, weight = _quadrature()
    v = betaincinv(j, k + 1 - j, nodes)[:, None]
    u = v * betaincinv(i, j - i, nodes) if j > i else v + 0 * nodes
    return ndtri(u), ndtri(v), weight[:, None] * weight


def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on (0, 1)."""
    nodes, weight = np.polynomial.legendre.leggauss(_NODES)
    return (nodes + 1) / 2, weight / 2
