"""The calibration of bands that are sampled together: as ``calibrate`` makes it for one band, and of colours.

Simulated galaxies in 2, 4 and 7 bands, at wavelengths of their own, which neither training nor ``galbatch
validate`` uses. The PSF of a galaxy widens with wavelength, and each band has a peak S/N of its own,
log-uniform over that of ``mock``, under noise that is correlated in every second galaxy of a kind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.errors import InputError
from galbatch.files import replacing
from galbatch.interfaces import Denoiser, PriorSpec
from galbatch.morphology import summarise
from galbatch.morphology.calibration import LEVELS
from galbatch.pipeline.colour import calibrated_colour, light_in_apertures, middle_and_spread
from galbatch.prior.model import Prior
from galbatch.sampler import sample_posterior
from galbatch.sampler.prior import as_denoiser
from galbatch.simulate.galaxies import simulate_galaxy
from galbatch.simulate.spectra import draw_wavelengths
from galbatch.training.cubes import Cube, CubeLibrary, CubeSource
from galbatch.training.stamps import StampConfig
from galbatch.types import BandStamps, Observation
from galbatch.validate.calibrate import FOLDS, fit_calibration, measure_with_truth, share
from galbatch.validate.mock import SN_RANGE, STAMP, MockSet, mock_psf, observe, stamp_side

SEED = 3_100_000
BANDS = (2, 4, 7)  # in turn
TRIES = 8
BLUEST_FWHM_PIX = (2.3, 3.0)
WIDEST_FWHM_PIX = 7.5


def joint_mock(spec: PriorSpec, number: int) -> tuple[MockSet, np.ndarray]:
    """Galaxy ``number`` of the series in all of its bands, one after another as if they were galaxies of one
    band, and their wavelengths (c,), micrometres, rising."""
    rng, bands = np.random.default_rng([SEED, number]), BANDS[number % len(BANDS)]
    waves = draw_wavelengths(rng, bands)
    config = StampConfig(target_fwhm_pix=spec.target_fwhm_pix, margin_pix=spec.margin_pix)
    source = CubeSource(_cube(number, waves), config)
    stamps, logs = source.draw_bands(1, bands, stamp_side(spec), (SEED, number))
    order = logs[0].argsort()
    waves = np.exp(logs[0][order].double().numpy())
    fwhm = np.minimum(rng.choice(BLUEST_FWHM_PIX) * waves / waves[0], WIDEST_FWHM_PIX)
    psf = np.stack([mock_psf(f) for f in fwhm])[:, None]
    mask = rng.random((bands, 1, STAMP, STAMP)) < 0.01
    mask[rng.random(bands) < 0.2, :, :, 50:53] = True  # a bad column in some
    sn = np.exp(rng.uniform(np.log(SN_RANGE[0]), np.log(SN_RANGE[1]), bands))
    correlated = number // len(BANDS) % 2 == 1
    return observe(spec, stamps[0][order].numpy(), psf, fwhm, mask, sn, rng, correlated), waves


def _cube(number: int, waves: np.ndarray) -> CubeLibrary:
    """The library of one galaxy: the first of its number that is no point."""
    for attempt in range(TRIES):
        flux, _ = simulate_galaxy(SEED + attempt, number, wavelengths_um=waves.tolist())
        with suppress(InputError):  # a point says nothing of how light lies
            return CubeLibrary([Cube(flux, waves, f"mock-{number}", "mock")])
    raise InputError(f"galaxy {number} of the series is a point {TRIES} times: use another number.")


def together(obs: Observation) -> Observation:
    """One source in c bands from c sources in one band."""
    parts = {n: np.swapaxes(getattr(obs, n), 0, 1) for n in ("data", "sigma", "psf", "mask")}
    acf = None if obs.noise_acf is None else np.repeat(obs.noise_acf, len(obs.data), axis=0)
    return replace(obs, **parts, noise_acf=acf)


def measure_joint(prior: Denoiser, number: int, draws: int, mode: str, joint: bool = True) -> dict[str, Any]:
    """Of a galaxy of the series: ``found``, columns of ``summarise`` (c,); ``truth`` (c,); ``light``
    (apertures, k + 1, c) in the apertures of colours, the truth's last; ``wavelengths`` (c,)."""
    prior = as_denoiser(prior)
    mocks, waves = joint_mock(prior.spec, number)
    post = sample_posterior(
        prior, together(mocks.obs), draws, mode, source_ids=[number], joint=joint, wavelengths=waves.tolist()
    )
    samples = np.ascontiguousarray(post.samples[0].swapaxes(0, 1))
    table, stamps = measure_with_truth(samples, mocks.image, mocks.obs)
    found = summarise(table[:, :-1], stamps)
    both = np.concatenate([samples, mocks.image[:, None]], axis=1).swapaxes(0, 1)
    light, _ = light_in_apertures(*_as_bands(found, mocks.obs), both, 1, 0)
    return {"found": found, "truth": table[:, -1], "light": light, "wavelengths": waves}


def _as_bands(found: dict[str, np.ndarray], obs: Observation) -> tuple[dict, list[BandStamps]]:
    """Columns and stamps of one source as a run has them."""
    columns = {f"{name}_{i}": v[i : i + 1] for name, v in found.items() for i in range(len(v))}
    nothing, scale = np.zeros((1, STAMP, STAMP), np.int32), obs.pixel_scale_arcsec
    name, wcs, mask = np.array(["mock"]), np.zeros((1, 8)), np.asarray(obs.mask)
    bands = [
        BandStamps(str(i), obs.data[i], obs.sigma[i], mask[i], nothing, psf, name, scale, scale, wcs)
        for i, psf in enumerate(obs.psf)
    ]
    return columns, bands


def calibrate_joint(
    prior: Prior,
    galaxies: int,
    draws: int,
    mode: str,
    progress: Callable[[int, int], None] | None = None,
    keep: Path | None = None,
) -> dict:
    """The table of a mode for bands together, from ``galaxies`` of the series. ``keep``: folder in which what
    is measured of each is kept, so that a calibration that was stopped goes on."""
    parts = []
    for number in range(galaxies):
        make = partial(measure_joint, prior, number, draws, mode)
        parts.append(make() if keep is None else _kept(keep / f"{mode}-{draws}-{number}.npz", make))
        if progress is not None:
            progress(number + 1, galaxies)
    found = {name: np.concatenate([p["found"][name] for p in parts]) for name in parts[0]["found"]}
    truth = np.concatenate([p["truth"] for p in parts])
    galaxy = np.repeat(np.arange(galaxies), [len(p["truth"]) for p in parts])
    spec, scale = prior.spec, Observation.pixel_scale_arcsec
    return {
        "galaxies": galaxies,
        "bands": max(BANDS),
        "observations": len(truth),
        "draws": draws,
        "joint_sha256": prior.card.joint_sha256,
        **fit_calibration(found, truth, spec.target_fwhm_pix * scale, galaxy),
        "color": fit_colours([p["light"] for p in parts]),
    }


def fit_colours(light: list[np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """Numbers of ``galbatch.pipeline.colour.calibrated_colour`` for colours and their gradients, from light
    (apertures, k + 1, c) of galaxies, the truth's last. ``coverage`` and ``draws_coverage``: as of
    ``fit_calibration``."""
    found: dict[str, list] = {"color": [], "color_gradient": []}
    for galaxy, fluxes in enumerate(light):
        with np.errstate(invalid="ignore", divide="ignore"):
            magnitudes = -2.5 * np.log10(np.where(fluxes > 0, fluxes, np.nan))
        colours = magnitudes[:, :, :-1] - magnitudes[:, :, 1:]
        for name, values in (("color", colours[0]), ("color_gradient", colours[2] - colours[1])):
            good = np.isfinite(values).all(axis=0)
            found[name] += [(galaxy, *column) for column in values[:, good].T]
    return {name: _fit_colour(np.array(rows)) for name, rows in found.items()}


def _fit_colour(rows: np.ndarray) -> dict[str, list[float]]:
    """``rows`` (n, 1 + k + 1): galaxy, draws, truth."""
    galaxy, draws, truth = rows[:, 0].astype(int), rows[:, 1:-1], rows[:, -1]
    numbers = _numbers(draws, truth)
    inside = np.full(len(rows), np.nan)
    fold = np.random.default_rng(SEED).permutation(galaxy.max() + 1)[galaxy] % FOLDS
    for k in np.unique(fold):
        rest = _numbers(draws[fold != k], truth[fold != k])
        for i in np.flatnonzero(fold == k):
            low, _, high = calibrated_colour(draws[i], rest)
            inside[i] = low <= truth[i] <= high
    low, high = np.percentile(draws, [15.87, 84.13], axis=1)
    own = ((low <= truth) & (truth <= high)).astype(float)
    return {**numbers, "coverage": share(inside, galaxy), "draws_coverage": share(own, galaxy)}


def _numbers(draws: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    middle, spread = middle_and_spread(draws)
    factors = np.stack([np.ones(len(spread)), np.log(spread)], axis=1)
    size = np.abs(truth - middle)
    error = np.linalg.lstsq(factors, np.log(size + 0.01 * np.median(size)), rcond=None)[0]
    z = (truth - middle) / np.exp(factors @ error)
    ranks = [min(max(q + (q - 0.5) / len(z), 0.0), 1.0) for q in LEVELS.values()]
    return {
        "draws": draws.shape[1],
        "error": [float(a) for a in error],
        "z": [float(v) for v in np.quantile(z, ranks)],
    }


def _kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` gives, from ``path`` where it was made before."""
    if not path.is_file():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = {f"found.{k}": v for k, v in made.pop("found").items()} | made
        with replacing(path, synced=False, alone=True) as part:
            np.savez(part, **flat)
    with np.load(path, allow_pickle=False) as file:
        values = {k: file[k] for k in file.files}
    found = {k.removeprefix("found."): values.pop(k) for k in list(values) if k.startswith("found.")}
    return {"found": found, **values}
