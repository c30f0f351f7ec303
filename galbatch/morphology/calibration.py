"""Intervals that hold what they promise: those of the draws, widened and moved as a validation asked for.

The 16th to 84th percentile of 16 draws would hold 60% of the truths if the prior were perfect. It holds fewer
with a network for a prior, whose draws are too sure of some statistics and off in others. With m the median
and s half of the interval from raw16 to raw84, and t = (m - m_0) / w, at most 2 either way, where m lies
among those of the validation, the error of m is of the size

    e = exp(a + b ln s + c ln(S/N per pixel) + d ln(r50 / target FWHM) + f t),

and the calibrated percentile of level q is m + (g t + z_q) e, where z_q is that percentile of
(truth - m) / e - g t on simulated truth: split conformal prediction with normalised errors (Lei et al. 2018,
arXiv:1604.04173, section 5.2). Quantities with a unit are taken in logarithms and without t, so that no unit
matters. A dozen numbers a quantity and sampler mode, and columns of the run: nothing else. A model
folder keeps the numbers as ``calibration.json``, which ``galbatch model calibrate`` makes.

The percentiles are those of a certain number of draws, so that what few draws cost is in z already. With
fewer draws than that the interval about its middle widens by ``intervals.fewer_draws``, with b for its power.
"""

from __future__ import annotations

import numpy as np

from galbatch.columns import INTERVAL, QUANTITIES, is_positive
from galbatch.morphology.intervals import LEVEL, fewer_draws, over_usual

LEVELS = dict(zip(INTERVAL, (LEVEL, 0.5, 1 - LEVEL), strict=True))
CALIBRATED = tuple(name for name, about in QUANTITIES.items() if about.summary == "calibrated")
LOGARITHMIC = tuple(name for name in CALIBRATED if is_positive(QUANTITIES[name]))
ZERO_POINT_NJY = 31.4  # AB magnitude of 1 nJy
MAX_OVERSAMPLE = 2  # tried at 1 and 2
_LEAST_SPREAD = 1e-4  # draws that agree to the last digit do not make a measurement exact


def conditions(found: dict[str, np.ndarray], target_fwhm_arcsec: float, oversample: int = 1) -> np.ndarray:
    """(n, 2): ln of the S/N per pixel and of r50 over the target FWHM, from columns of ``summarise``.

    ``oversample`` fine pixels a side share the noise of a detector pixel: it says as little of each as white
    noise ``oversample`` times as large would.
    """
    snr, size = found["sn_per_pixel_raw50"] / oversample, found["r50_raw50"] / target_fwhm_arcsec
    return np.stack([_log(snr), _log(size)], axis=-1)


def scaled(name: str, values: np.ndarray) -> np.ndarray:
    """Values of a quantity as they are calibrated: the logarithm of those with a unit."""
    return _log(values) if name in LOGARITHMIC else np.asarray(values, float)


def median_and_factors(
    found: dict, name: str, where: np.ndarray, place: list[float] | tuple[float, float] = (0.0, 1.0)
) -> tuple:
    """m (n,), t (n,) and what a, b, c, d, f of ln e are multiplied with (n, 5), at the ``conditions`` (n, 2).

    ``place``: m_0 and w, the middle and the width of m on the galaxies of the fit.
    """
    low, middle, high = (scaled(name, found[f"{name}_{p}"]) for p in ("raw16", "raw50", "raw84"))
    spread = np.maximum((high - low) / 2, _LEAST_SPREAD)
    at = np.zeros(len(middle)) if name in LOGARITHMIC else np.clip((middle - place[0]) / place[1], -2, 2)
    return middle, at, np.stack([np.ones(len(middle)), np.log(spread), *where.T, at], axis=-1)


def reached(
    found: dict[str, np.ndarray],
    table: dict | None,
    target_fwhm_arcsec: float,
    oversample: int = 1,
    psf_in_error: np.ndarray | bool = False,
) -> np.ndarray:
    """(n,) bool: is the calibration of a sampler's mode (``table``, None without one) made for such sources?
    Not for those fainter, brighter, smaller or larger than any of its galaxies, nor for a single draw, nor
    with more than ``MAX_OVERSAMPLE``; but for brighter ones ``psf_in_error``, as in ``calibrated``."""
    if table is None or oversample > MAX_OVERSAMPLE:
        return np.zeros(len(found["n_draws_measured"]), bool)
    where = _conditions(found, table, target_fwhm_arcsec, oversample, psf_in_error)
    low, high = np.array(table["range"]).T
    with np.errstate(invalid="ignore"):
        return ((where >= low) & (where <= high)).all(axis=1) & (found["n_draws_measured"] > 1)


def calibrated(
    found: dict[str, np.ndarray],
    table: dict | None,
    target_fwhm_arcsec: float,
    oversample: int = 1,
    psf_in_error: np.ndarray | bool = False,
) -> dict[str, np.ndarray]:
    """Columns ``{quantity}_{p16|p50|p84}`` (n,) from those of ``summarise``: calibrated where ``reached``,
    elsewhere as they are.

    ``psf_in_error`` (n,): the draws are wider for an error of the PSF that is allowed for, which no galaxy of
    the validation had. Their median then stays where it is, for it was moved by a share of an interval that
    was only as wide as noise makes it; no end is nearer to it than the draws' own; and a source that is
    brighter than all of the validation is taken for one of the brightest: noise no longer matters
    (docs/decisions/0047).
    """
    columns = {f"{q}_{p}": np.array(found[f"{q}_{p}"], float) for q in CALIBRATED for p in INTERVAL}
    known = reached(found, table, target_fwhm_arcsec, oversample, psf_in_error)
    where = _conditions(found, table, target_fwhm_arcsec, oversample, psf_in_error)
    quantities, draws = (table["quantities"], table["draws"]) if table and known.any() else ({}, 0)
    for name, numbers in quantities.items():
        middle, at, factors = median_and_factors(found, name, where, numbers["place"])
        error = np.exp(factors @ np.array(numbers["error"]))
        low, centre, high = (middle + (numbers["slope"] * at + z) * error for z in numbers["z"])
        wider = _wider(found["n_draws_measured"], known, draws, numbers["error"][1])
        below, above = wider * (centre - low), wider * (high - centre)
        if np.any(psf_in_error):
            own = [np.abs(scaled(name, found[f"{name}_{p}"]) - middle) for p in ("raw16", "raw84")]
            usual = np.vectorize(over_usual, otypes=[float])(found["n_draws_measured"])
            centre = np.where(psf_in_error, middle, centre)
            below = np.where(psf_in_error, np.fmax(below, usual * own[0]), below)
            above = np.where(psf_in_error, np.fmax(above, usual * own[1]), above)
        ends = (centre - below, centre, centre + above)
        for level, value in zip(INTERVAL, ends, strict=True):
            value = np.exp(value) if name in LOGARITHMIC else value
            columns[f"{name}_{level}"] = np.where(known, value, columns[f"{name}_{level}"])
    for level, flux in zip(INTERVAL, reversed(INTERVAL), strict=True):  # the brighter, the smaller
        columns[f"mag_ab_{level}"] = ZERO_POINT_NJY - 2.5 / np.log(10) * _log(columns[f"flux_njy_{flux}"])
    return columns


def _conditions(
    found: dict,
    table: dict | None,
    target_fwhm_arcsec: float,
    oversample: int,
    psf_in_error: np.ndarray | bool,
) -> np.ndarray:
    """``conditions``, with the S/N of sources whose PSF is in error no higher than that of the validation."""
    where = conditions(found, target_fwhm_arcsec, oversample)
    if table is not None:
        most = np.where(psf_in_error, table["range"][0][1], np.inf)
        where[:, 0] = np.minimum(where[:, 0], most)
    return where


def _wider(draws: np.ndarray, known: np.ndarray, fitted: int, power: float) -> np.ndarray:
    """(n,) factors of ``fewer_draws`` for the numbers of draws of sources; 1 where they are not known."""
    factors = np.ones(len(draws))
    for k in np.unique(draws[known]):
        factors[draws == k] = fewer_draws(int(k), fitted, power)
    return factors


def _log(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(np.asarray(values, float))
