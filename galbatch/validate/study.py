"""The study itself: sample mocks, measure draws and truth alike, collect ranks and errors.

Truth is measured with the segment and sky terms of the source's own posterior, as one more draw.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from galbatch.interfaces import Denoiser
from galbatch.morphology import summarise
from galbatch.morphology.calibration import calibrated, reached
from galbatch.sampler.prior import as_denoiser
from galbatch.types import Posterior
from galbatch.validate.calibrate import measure_with_truth, share, within
from galbatch.validate.mock import MockSet, sample_mocks
from galbatch.validate.ranks import LEVELS, coverage, mean_and_error, rank_histogram_p, ranks, tarp

SCALARS = ("flux", "r_half", "gini", "m20", "concentration", "asymmetry")
SN_EDGES = (3.0, 10.0, 30.0, 100.0, 300.0)
SIZE_EDGES = (0.0, 0.5, 1.0, 2.0, 8.0)
FOOTPRINT = 0.5  # of the sky noise: pixels where the truth is brighter are the galaxy's footprint


@dataclass
class Study:
    """``rows``: one dict a test (what, bin, n, coverage by level with errors); ``intervals``: one dict a
    quantity, the share of truths within raw16 to raw84 and p16 to p84; ``numbers``: everything
    else, by name; ``galaxy`` (n,): see ``MockSet``."""

    rows: list[dict] = field(default_factory=list)
    intervals: list[dict] = field(default_factory=list)
    numbers: dict = field(default_factory=dict)
    histograms: dict = field(default_factory=dict)
    tarp: dict = field(default_factory=dict)
    galaxy: np.ndarray | None = None

    def to_dict(self) -> dict:
        """What ``validation.json`` holds of it."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "galaxy"}


def run_study(
    prior: Denoiser,
    mocks: MockSet,
    draws: int = 15,
    mode: str = "default",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """Sample and test. ``progress(done, total)`` is called after each galaxy."""
    start = time.perf_counter()
    parts = sample_mocks(prior, mocks, draws, mode, seed, progress)
    seconds = time.perf_counter() - start
    samples = np.concatenate([p.samples[:, :, 0] for p in parts])
    study = Study(galaxy=mocks.galaxy)
    rng = np.random.default_rng([seed, 5])
    inside = np.ones(mocks.image.shape, bool) if mocks.inside is None else mocks.inside
    if not inside.all():  # truth and draws have the same edge
        mocks = replace(mocks, image=np.where(inside, mocks.image, 0.0).astype(np.float32))
        samples = np.where(inside[:, None], samples, 0.0).astype(np.float32)
    _pixels(study, mocks, samples, rng, inside)
    _fourier(study, mocks, samples, rng)
    _scalars(study, mocks, samples, rng, prior, mode)
    _tarp(study, mocks, samples, rng)
    _numbers(study, mocks, samples, parts, seconds)
    return study


def _row(study: Study, what: str, where: str, u: np.ndarray, weight: np.ndarray | None = None) -> None:
    """``u``: ranks of all observations; NaN where one does not count."""
    value, error, n = coverage(u, weight, study.galaxy)
    study.rows.append(
        {"what": what, "bin": where, "n": n, "coverage": _numbers_of(value), "error": _numbers_of(error)}
    )


def _numbers_of(values: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in values]


def _bins(values: np.ndarray, edges: Sequence[float]) -> Any:
    for low, high in itertools.pairwise(edges):
        inside = (values >= low) & ((values < high) | (high == edges[-1]))
        if inside.any():
            yield f"{low:g}-{high:g}", inside


def _pixels(
    study: Study, mocks: MockSet, samples: np.ndarray, rng: np.random.Generator, known: np.ndarray
) -> None:
    u = np.where(known, ranks(samples, mocks.image, rng), np.nan)
    sky = np.median(mocks.obs.sigma[:, 0], axis=(1, 2))[:, None, None]
    bright = mocks.image > FOOTPRINT * sky
    _row(study, "pixels", "all", u)
    _row(study, "pixels", "footprint", u, bright)
    _row(study, "pixels", "sky", u, ~bright)
    _row(study, "pixels", "masked", u, np.asarray(mocks.obs.mask)[:, 0])
    for name, inside in _bins(mocks.sn, SN_EDGES):
        _row(study, "pixels", f"S/N {name}", u, _only(inside, u))
        _row(study, "footprint pixels", f"S/N {name}", u, bright & _only(inside, u))
    for name, inside in _bins(mocks.radius_pix / mocks.fwhm_pix, SIZE_EDGES):
        _row(study, "footprint pixels", f"r/FWHM {name}", u, bright & _only(inside, u))


def _only(inside: np.ndarray, u: np.ndarray) -> Any:
    """Observations (n,) as a weight of the shape of ``u``."""
    return np.broadcast_to(inside.reshape(-1, *[1] * (u.ndim - 1)), u.shape)


def _fourier(study: Study, mocks: MockSet, samples: np.ndarray, rng: np.random.Generator) -> None:
    h, w = mocks.image.shape[1:]
    k = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None, :])
    edges = [1e-9, 0.04, 0.1, 0.2, 0.35]
    truth, draws = np.fft.rfft2(mocks.image), np.fft.rfft2(samples)
    for low, high in itertools.pairwise(edges):
        band = (k >= low) & (k < high)
        t, d = truth[:, band], draws[:, :, band]
        u = np.stack([ranks(d.real, t.real, rng), ranks(d.imag, t.imag, rng)], -1)
        _row(study, "fourier", f"k {low:.2f}-{high:.2f}", u)


def _scalars(
    study: Study, mocks: MockSet, samples: np.ndarray, rng: np.random.Generator, prior: Denoiser, mode: str
) -> None:
    table, stamps = measure_with_truth(samples, mocks.image, mocks.obs)
    _intervals(study, table, stamps, prior, mode, mocks.obs.pixel_scale_arcsec)
    values = {name: table[name].astype(float) for name in SCALARS if name != "flux"}
    values["flux"] = np.concatenate([samples, mocks.image[:, None]], axis=1).sum((-1, -2))
    for name in SCALARS:
        v = values[name]
        u = ranks(v[:, :-1], v[:, -1], rng)
        _row(study, name, "all", u)
        for label, inside in _bins(mocks.sn, SN_EDGES):
            _row(study, name, f"S/N {label}", u, inside)
        good = u[np.isfinite(u)]
        study.histograms[name] = np.histogram(good, 10, (0, 1))[0].tolist()
        study.numbers[f"{name}_rank_p"] = rank_histogram_p(u)
        mean, sd = v[:, :-1].mean(1), v[:, :-1].std(1, ddof=1)
        z = (v[:, -1] - mean) / np.where(sd > 0, sd, np.nan)
        value, error, _ = mean_and_error(z, study.galaxy)
        study.numbers |= {f"{name}_mean_z": value, f"{name}_mean_z_error": error}
        study.numbers[f"{name}_rms_z"] = float(np.sqrt(np.nanmean(z**2)))
        study.numbers[f"{name}_bias"] = float(np.nanmedian(mean - v[:, -1]))


def _intervals(
    study: Study,
    table: np.ndarray,
    stamps: np.ndarray,
    prior: Denoiser,
    mode: str,
    pixel_scale_arcsec: float,
) -> None:
    """The columns of a run: how often the intervals hold the truth, those of the draws and the calibrated
    ones. Nothing for a mode without a table."""
    spec = as_denoiser(prior).spec
    numbers = spec.calibration.get(mode)
    if numbers is None:
        return
    found, truth = summarise(table[:, :-1], stamps), table[:, -1]
    target_fwhm_arcsec = spec.target_fwhm_pix * pixel_scale_arcsec
    columns = calibrated(found, numbers, target_fwhm_arcsec)
    known = reached(found, numbers, target_fwhm_arcsec)
    for name in numbers["quantities"]:
        inside = np.where(known, within(columns, name, ("p16", "p84"), truth[name]), np.nan)
        if np.isnan(inside).all():
            continue
        below = np.where(np.isnan(inside), np.nan, truth[name] < columns[f"{name}_p50"])
        study.intervals.append(
            {
                "what": name,
                "n": int(np.isfinite(inside).sum()),
                "draws": share(within(found, name, ("raw16", "raw84"), truth[name]), study.galaxy),
                "calibrated": share(inside, study.galaxy),
                "below_p50": share(below, study.galaxy),
            }
        )


def _tarp(study: Study, mocks: MockSet, samples: np.ndarray, rng: np.random.Generator) -> None:
    """Two sets of references: another galaxy's truth, and the posterior mean moved by a random field of its
    own size."""
    n = len(mocks.image)
    unit = 1 / samples.std(1, ddof=1).mean((1, 2))[:, None]
    flat, truth = samples.reshape(*samples.shape[:2], -1) * unit[:, None], mocks.image.reshape(n, -1) * unit
    mean = flat.mean(1)
    step = rng.standard_normal(mean.shape)
    references = {
        "other galaxies": np.roll(truth, 1, axis=0),
        "moved mean": mean + step * np.abs(mean).mean(1, keepdims=True),
    }
    for name, reference in references.items():
        levels, expected = tarp(flat, truth, reference, rng)
        study.tarp[name] = {"levels": levels.tolist(), "coverage": expected.tolist()}
        study.numbers[f"tarp_{name.replace(' ', '_')}"] = float(np.abs(expected - levels).max())


def _numbers(
    study: Study, mocks: MockSet, samples: np.ndarray, parts: list[Posterior], seconds: float
) -> None:
    n, k = samples.shape[:2]
    mean = samples.mean(1)
    power = (mocks.image**2).mean((1, 2))
    spread = (
        np.abs(samples[:, :, None] - samples[:, None]).mean((1, 2)) if k <= 8 else _mean_difference(samples)
    )
    crps = (np.abs(samples - mocks.image[:, None]).mean(1) - 0.5 * spread).mean((1, 2))
    chi2 = np.concatenate([p.chi2[:, 0] for p in parts])
    p_value = np.concatenate([p.chi2_p[:, 0] for p in parts])
    flags = np.concatenate([p.flags for p in parts])
    study.numbers |= {
        "galaxies": n if mocks.galaxy is None else len(np.unique(mocks.galaxy)),
        "observations": n,
        "draws": k,
        "seconds_per_draw": seconds / (n * k),
        "evaluations": float(np.concatenate([p.n_evaluations for p in parts]).mean()),
        "nmse_median": float(np.median(((mean - mocks.image) ** 2).mean((1, 2)) / power)),
        "crps_over_rms_median": float(np.median(crps / np.sqrt(power))),
        "chi2_mean": float(np.nanmean(chi2)),
        "chi2_p_below_1e-2": float(np.mean(p_value < 1e-2)),
        "flagged": float(np.mean(flags != 0)),
        "levels": list(LEVELS),
    }


def _mean_difference(samples: np.ndarray) -> np.ndarray:
    """Mean |a - b| over pairs of draws (with itself too), by sorting: O(k log k)."""
    k = samples.shape[1]
    ordered = np.sort(samples, axis=1)
    weight = (2 * np.arange(1, k + 1) - k - 1)[None, :, None, None]
    return 2 * (weight * ordered).sum(1) / k**2
