"""From statistics of draws to columns of the catalogue.

Percentiles, mean and standard deviation are over the draws in which a quantity could be measured, and NaN
where that is fewer than half of them. Position angles are axial: they are unwrapped about their mean
direction first, so that p16 < p50 < p84 and p84 may exceed the usual range by up to pi/2.
"""

from __future__ import annotations

import warnings

import numpy as np

from galbatch.columns import ANGLES, DRAWN, OBSERVED_ONLY
from galbatch.morphology.flags import severity

_PERCENTILES = {"p16": 15.865525393145708, "p50": 50.0, "p84": 84.13447460685429}


def summarise(draws: np.ndarray, obs: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Columns from ``draws`` (b, k) and ``obs`` (b,), structured arrays as of ``measure``.

    Returns column stem -> (b,): ``{quantity}_{p16|p50|p84|mean|std|obs}``, the probabilities of ``CLASSES``,
    ``n_draws_measured`` and flag bits. The sky of the stamp has an ``obs`` column only.
    """
    columns: dict[str, np.ndarray] = {}
    names = [name for name in draws.dtype.names if name != "flags"]
    for name in names:
        if name not in OBSERVED_ONLY:
            columns.update(_statistics(name, draws[name]))
        if obs is not None:
            columns[f"{name}_obs"] = np.array(obs[name])
    columns.update(class_probabilities(draws))
    measured = severity(draws["flags"]) < 4
    columns["n_draws_measured"] = measured.sum(axis=1).astype(np.int32)
    columns["morph_flags"] = _common_bits(draws["flags"])
    if obs is not None:
        columns["morph_flags_obs"] = np.array(obs["flags"])
    return columns


def class_probabilities(draws: np.ndarray) -> dict[str, np.ndarray]:
    """name of ``CLASSES`` -> (b,) share of the draws in which the criterion could be judged that meet it."""
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


def _statistics(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    b, k = values.shape
    enough = 2 * np.isfinite(values).sum(axis=1) >= max(k, 1)
    if name in ANGLES:
        values = _unwrap(values)
    out = {f"{name}_{s}": np.full(b, np.nan) for s in DRAWN}
    if enough.any():
        kept = values[enough]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            values_at = np.nanpercentile(kept, list(_PERCENTILES.values()), axis=1)
            for statistic, column in zip(_PERCENTILES, values_at, strict=True):
                out[f"{name}_{statistic}"][enough] = column
        out[f"{name}_mean"][enough] = np.nanmean(kept, axis=1)
        out[f"{name}_std"][enough] = np.nanstd(kept, axis=1)
    return out


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
