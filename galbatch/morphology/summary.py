"""From statistics of draws to columns of the tables.

Percentiles, mean and standard deviation are over the draws in which a quantity could be measured, and NaN
where that is fewer than half of them. raw16, raw50 and raw84 are the draws' own percentiles; p16, p50 and p84
are widened for their number (``intervals``), which ``calibration`` replaces where it reaches. Position angles
are axial: they are unwrapped about their mean direction first, so that raw16 < raw50 < raw84 and raw84 may
exceed the usual range by up to pi/2.
"""

from __future__ import annotations

import numpy as np

from galbatch.columns import INTERVAL, Column, is_positive, statistics_of
from galbatch.morphology.flags import severity
from galbatch.morphology.intervals import interval
from galbatch.morphology.plugins import all_quantities

_PERCENTILES = {"raw16": 0.15865525393145708, "raw50": 0.5, "raw84": 0.8413447460685429}


def summarise(draws: np.ndarray, obs: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Columns from ``draws`` (b, k) and ``obs`` (b,), structured arrays as of ``measure``.

    Returns column stem -> (b,): ``{quantity}_{statistic}``, those of ``galbatch.columns``, the shares of
    draws that meet a criterion, ``n_draws_measured`` and flag bits."""
    columns: dict[str, np.ndarray] = {}
    kinds: dict[tuple[bool, bool], dict[str, Column]] = {}
    for name, about in all_quantities().items():
        if about.summary != "observed":
            kinds.setdefault((about.summary == "angle", is_positive(about)), {})[name] = about
        if obs is not None:
            columns[f"{name}_obs"] = np.array(obs[name])
    for (angle, positive), quantities in kinds.items():
        columns |= _statistics(draws, quantities, angle, positive)
    columns.update(class_probabilities(draws))
    measured = severity(draws["flags"]) < 4
    columns["n_draws_measured"] = measured.sum(axis=1).astype(np.int32)
    columns["morph_flags"] = _common_bits(draws["flags"])
    if obs is not None:
        columns["morph_flags_obs"] = np.array(obs["flags"])
    return columns


def class_probabilities(draws: np.ndarray) -> dict[str, np.ndarray]:
    """name -> (b,) share of the draws in which the criterion could be judged that meet it."""
    a, s = draws["asymmetry"], draws["smoothness"]
    criteria = {
        "p_merger": (draws["gini_m20_merger"], draws["gini_m20_merger"] > 0),
        "p_bulge": (draws["gini_m20_bulge"], draws["gini_m20_bulge"] > 0),
        "p_asymmetric": (a + s, (a > 0.35) & (a > s)),
        "p_disturbed_outskirts": (draws["shape_asymmetry"], draws["shape_asymmetry"] > 0.2),
        "p_multimodal": (draws["multimode"], draws["multimode"] > 0.1),
        "p_disc": (draws["sersic_n"], draws["sersic_n"] < 2.5),
    }
    out = {}
    for name, (value, met) in criteria.items():
        judged = np.isfinite(value)
        n = judged.sum(axis=1)
        share = (met & judged).sum(axis=1) / np.maximum(n, 1)
        out[name] = np.where(2 * n >= max(value.shape[1], 1), share, np.nan)
    return out


def _statistics(
    draws: np.ndarray, quantities: dict[str, Column], angle: bool, positive: bool
) -> dict[str, np.ndarray]:
    """Columns ``{name}_{statistic}`` (b,) of quantities of one kind in draws (b, k), all at once: of a
    few draws a call costs more than its numbers. What is ``obs`` is not of draws."""
    b, k = draws.shape
    values = np.concatenate([draws[name] for name in quantities])
    enough = 2 * np.isfinite(values).sum(axis=1) >= max(k, 1)
    kept = (_unwrap(values) if angle else values)[enough]
    found = {name: _percentile(kept, q) for name, q in _PERCENTILES.items()}
    found |= {"mean": np.nanmean(kept, axis=1), "std": np.nanstd(kept, axis=1)}
    found |= zip(INTERVAL, interval(kept, positive=positive), strict=True)
    whole = {statistic: np.full(len(values), np.nan) for statistic in found}
    for statistic, column in whole.items():
        column[enough] = found[statistic]
    return {
        f"{name}_{statistic}": whole[statistic][number * b : (number + 1) * b]
        for number, (name, about) in enumerate(quantities.items())
        for statistic in statistics_of(about)
        if statistic != "obs"
    }


def _percentile(values: np.ndarray, level: float) -> np.ndarray:
    """(b,) as ``np.nanpercentile`` of (b, k), which takes a row at a time, has it."""
    ordered = np.sort(values, axis=1)  # NaNs last
    place = level * (np.isfinite(ordered).sum(axis=1, keepdims=True) - 1)
    low = np.floor(place).astype(int)
    one, other = (np.take_along_axis(ordered, i, axis=1) for i in (low, np.ceil(place).astype(int)))
    return (one + (place - low) * (other - one))[:, 0]


def _unwrap(angles: np.ndarray) -> np.ndarray:
    """Angles (b, k) modulo pi, moved within pi/2 of their axial mean."""
    finite = np.isfinite(angles)
    vector = np.where(finite, np.exp(2j * np.where(finite, angles, 0.0)), 0.0).sum(axis=1)
    mean = 0.5 * np.angle(vector)[:, None]
    return mean + np.mod(angles - mean + np.pi / 2, np.pi) - np.pi / 2


def _common_bits(flags: np.ndarray) -> np.ndarray:
    k = flags.shape[1]
    bits = np.arange(63, dtype=np.int64)
    often = ((flags[..., None] >> bits) & 1).sum(axis=1) * 2 >= max(k, 1)
    return (often * (np.int64(1) << bits)).sum(axis=1)
