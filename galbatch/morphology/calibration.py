"""Percentiles that hold what they promise: those of the draws, widened and moved as a validation asked for.

The 16th to 84th percentile of 16 draws would hold 60% of the truths if the prior were perfect. It holds fewer
with a network for a prior, whose draws are too sure of some statistics and off in others. With m the median
and s half of the 68% interval of the draws, and t = (m - m_0) / w, at most 2 either way, where m lies among
those of the validation, the error of m is of the size

    e = exp(a + b ln s + c ln(S/N per pixel) + d ln(r50 / target FWHM) + f t),

and the calibrated percentile of level q is m + (g t + z_q) e, where z_q is that percentile of
(truth - m) / e - g t on simulated truth: split conformal prediction with normalised errors (Lei et al. 2018,
arXiv:1604.04173, section 5.2). Quantities with a unit are taken in logarithms and without t, so that no unit
matters. A dozen numbers a quantity and sampler mode, and columns of the catalogue: nothing else. A model
folder keeps the numbers as ``calibration.json``, which ``galbatch model calibrate`` makes.
"""

from __future__ import annotations

import numpy as np

from galbatch.columns import CALIBRATED, QUANTITIES

LEVELS = {"cal16": 0.15865525393145708, "cal50": 0.5, "cal84": 0.8413447460685429}
LOGARITHMIC = tuple(name for name in CALIBRATED if QUANTITIES[name].unit)
MIN_DRAWS = 8
_LEAST_SPREAD = 1e-4  # draws that agree to the last digit do not make a measurement exact


def conditions(found: dict[str, np.ndarray], target_fwhm_arcsec: float) -> np.ndarray:
    """(n, 2): ln of the S/N per pixel and of r50 over the target FWHM, from columns of ``summarise``."""
    return np.stack([_log(found["sn_per_pixel_p50"]), _log(found["r50_p50"] / target_fwhm_arcsec)], axis=-1)


def scaled(name: str, values: np.ndarray) -> np.ndarray:
    """Values of a quantity as they are calibrated: the logarithm of those with a unit."""
    return _log(values) if name in LOGARITHMIC else np.asarray(values, float)


def median_and_factors(
    found: dict, name: str, where: np.ndarray, place: list[float] | tuple[float, float] = (0.0, 1.0)
) -> tuple:
    """m (n,), t (n,) and what a, b, c, d, f of ln e are multiplied with (n, 5), at the ``conditions`` (n, 2).

    ``place``: m_0 and w, the middle and the width of m on the galaxies of the fit.
    """
    low, middle, high = (scaled(name, found[f"{name}_{p}"]) for p in ("p16", "p50", "p84"))
    spread = np.maximum((high - low) / 2, _LEAST_SPREAD)
    at = np.zeros(len(middle)) if name in LOGARITHMIC else np.clip((middle - place[0]) / place[1], -2, 2)
    return middle, at, np.stack([np.ones(len(middle)), np.log(spread), *where.T, at], axis=-1)


def calibrated(
    found: dict[str, np.ndarray], table: dict | None, target_fwhm_arcsec: float, oversample: int = 1
) -> dict[str, np.ndarray]:
    """Columns ``{quantity}_{cal16|cal50|cal84}`` (n,) from those of ``summarise``.

    ``table``: what ``calibration.json`` says of the sampler's mode, or None. NaN where nothing is known: no
    table, fewer than ``MIN_DRAWS`` draws, ``oversample`` above 1, or a source fainter, brighter, smaller or
    larger than any that was validated.
    """
    n = len(found["n_draws_measured"])
    columns = {f"{q}_{level}": np.full(n, np.nan) for q in CALIBRATED for level in LEVELS}
    if table is None or oversample != 1:
        return columns
    where = conditions(found, target_fwhm_arcsec)
    low, high = np.array(table["range"]).T
    with np.errstate(invalid="ignore"):
        known = ((where >= low) & (where <= high)).all(axis=1) & (found["n_draws_measured"] >= MIN_DRAWS)
    for name, numbers in table["quantities"].items():
        middle, at, factors = median_and_factors(found, name, where, numbers["place"])
        error = np.where(known, np.exp(factors @ np.array(numbers["error"])), np.nan)
        for level, z in zip(LEVELS, numbers["z"], strict=True):
            value = middle + (numbers["slope"] * at + z) * error
            columns[f"{name}_{level}"] = np.exp(value) if name in LOGARITHMIC else value
    return columns


def _log(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(np.asarray(values, float))
