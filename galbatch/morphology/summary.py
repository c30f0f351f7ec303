"""From statistics of draws to columns of the catalogue.

Percentiles, mean and standard deviation are over the draws in which a quantity could be measured, and NaN
where that is fewer than half of them. Position angles are axial: they are unwrapped about their mean
direction first, so that p16 < p50 < p84 and p84 may exceed the usual range by up to pi/2.
"""

from __future__ import annotations

import warnings

import numpy as np

from galbatch.morphology.flags import severity
from galbatch.morphology.quantities import ANGLES, OBSERVED_ONLY, Quantity

STATISTICS = ("p16", "p50", "p84", "mean", "std", "obs")
_PERCENTILES = (15.865525393145708, 50.0, 84.13447460685429)

CLASSES: dict[str, Quantity] = {
    "p_merger": Quantity(
        "", "stat.probability", "share of draws above the Gini-M20 merger line (Lotz et al. 2008)"
    ),
    "p_bulge": Quantity("", "stat.probability", "share of draws on the bulge side of the Gini-M20 plane"),
    "p_asymmetric": Quantity(
        "", "stat.probability", "share of draws with A > 0.35 and A > S (Conselice 2003)"
    ),
    "p_disturbed_outskirts": Quantity(
        "", "stat.probability", "share of draws with shape asymmetry > 0.2 (Pawlik et al. 2016)"
    ),
    "p_multimodal": Quantity("", "stat.probability", "share of draws with M > 0.1 (Freeman et al. 2013)"),
    "p_disc": Quantity("", "stat.probability", "share of draws with a Sersic index below 2.5"),
}
CALIBRATED_WORDS = {
    "cal16": "15.87th percentile of the truth, calibrated on simulated galaxies",
    "cal50": "median of the truth, calibrated on simulated galaxies",
    "cal84": "84.13th percentile of the truth, calibrated on simulated galaxies",
}
COUNTS: dict[str, Quantity] = {
    "n_draws_measured": Quantity("", "meta.number", "draws with a measured morphology"),
    "morph_flags": Quantity("", "meta.code", "morphology flag bits set in at least half of the draws"),
    "morph_flags_obs": Quantity("", "meta.code", "morphology flag bits of the observed stamp"),
}


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


def column_description(column: str, registry: dict[str, Quantity]) -> Quantity:
    """Unit, UCD and description of a column stem of ``summarise``; ``registry`` as QUANTITIES, or with
    plug-ins."""
    known = {**CLASSES, **COUNTS}
    if column in known:
        return known[column]
    name, _, statistic = column.rpartition("_")
    unit, ucd, text = registry[name]
    words = {
        "p16": "15.87th percentile of draws",
        "p50": "median of draws",
        "p84": "84.13th percentile of draws",
        "mean": "mean of draws",
        "std": "standard deviation of draws",
        "obs": "on the observed stamp",
        **CALIBRATED_WORDS,
    }
    kinds = {"p50": "median", "cal50": "median", "mean": "mean", "std": "stdev"}
    modifier = f";stat.{kinds[statistic]}" if statistic in kinds else ""
    return Quantity(unit, ucd + modifier, f"{text}; {words[statistic]}")


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


def _statistics(name, values):
    b, k = values.shape
    enough = 2 * np.isfinite(values).sum(axis=1) >= max(k, 1)
    if name in ANGLES:
        values = _unwrap(values)
    out = {f"{name}_{s}": np.full(b, np.nan) for s in STATISTICS[:-1]}
    if enough.any():
        kept = values[enough]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for statistic, column in zip(
                STATISTICS, np.nanpercentile(kept, _PERCENTILES, axis=1), strict=False
            ):
                out[f"{name}_{statistic}"][enough] = column
        out[f"{name}_mean"][enough] = np.nanmean(kept, axis=1)
        out[f"{name}_std"][enough] = np.nanstd(kept, axis=1)
    return out


def _unwrap(angles):
    """Angles (b, k) modulo pi, moved within pi/2 of their axial mean."""
    finite = np.isfinite(angles)
    vector = np.where(finite, np.exp(2j * np.where(finite, angles, 0.0)), 0.0).sum(axis=1)
    mean = 0.5 * np.angle(vector)[:, None]
    return mean + np.mod(angles - mean + np.pi / 2, np.pi) - np.pi / 2


def _common_bits(flags):
    k = flags.shape[1]
    bits = np.arange(63, dtype=np.int64)
    often = ((flags[..., None] >> bits) & 1).sum(axis=1) * 2 >= max(k, 1)
    return (often * (np.int64(1) << bits)).sum(axis=1)
