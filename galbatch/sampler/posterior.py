"""``sample_posterior``: from a prior and an observation to draws with their diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from galbatch.errors import ConfigError, InputError
from galbatch.forward import ForwardModel, forward_model, smoothed_peak_scale
from galbatch.interfaces import Denoiser
from galbatch.sampler.compact import CompactFilter
from galbatch.sampler.diagnostics import chi2_of_draws
from galbatch.sampler.guidance import EARLY, PosteriorDenoiser, gaussian_draw
from galbatch.sampler.integrate import LAST_DENOISING, sde_dpmpp_2m
from galbatch.sampler.prior import CountedDenoiser, as_denoiser
from galbatch.sampler.random import Normals
from galbatch.sampler.reference import REFERENCE_DRAWS, REFERENCE_STAGE, with_reference
from galbatch.sampler.schedule import MODES, Mode, noise_level, steps_of
from galbatch.sampler.solve import Solver
from galbatch.sampler.spectra import Spectra, spectra_of
from galbatch.sampler.summary import as_posterior, join, summary
from galbatch.types import Observation, Posterior

GATE = 6.0  # standard deviations of chi2 beyond which a draw is run again
RERUN_STAGE = 1 << 20  # first random stage of a second attempt


def sample_posterior(
    prior: Any,
    obs: Observation,
    draws: int = 16,
    mode: str | Mode = "default",
    oversample: int = 1,
    seed: int = 0,
    source_ids: Any = None,
    batch: int | None = None,
    bands: Sequence | None = None,
) -> Posterior:
    """Draws from p(x | data) for a batch of sources.

    ``prior``: any object with ``denoise(x, sigma)``; x and the result (b, c, H, W) float32 tensors, sigma
    (b,), E[x0 | x0 + sigma e], and optionally the fields of a ``PriorSpec`` (``interfaces.py``). A prior of
    one channel is applied to each band by itself. ``mode``: 'fast', 'default' or 'accurate', or a
    ``Mode``. ``source_ids`` (b,) and ``bands`` (c,), integers or strings (numbered if left out), key the
    random numbers with ``seed``: they depend on nothing else. ``batch``: sources at once (one on a CPU).

    Returns a ``Posterior`` with H = oversample * h; its ``info`` has ``model`` (b, c, h, w), the mean as the
    telescope would see it, and ``solver_residual`` (b, k), the largest error of a linear solve in standard
    deviations. Raises ``ConfigError`` for an unknown mode, ``InputError`` for a PSF that cannot be used or a
    number of bands that does not fit.
    """
    if not isinstance(mode, Mode) and (mode not in MODES or mode == "rerun"):
        raise ConfigError(
            f"mode is {mode!r}: it must be 'fast', 'default' or 'accurate', or a Mode of your own."
        )
    mode = mode if isinstance(mode, Mode) else MODES[mode]
    if draws < 1 or oversample < 1:
        raise ConfigError(f"draws is {draws} and oversample is {oversample}: both must be at least 1.")
    b, c = obs.data.shape[:2]
    ids = list(range(b)) if source_ids is None else list(source_ids)
    if len(ids) != b:
        raise InputError(f"{len(ids)} source_ids for {b} sources: give one id per source.")
    bands = list(range(c)) if bands is None else list(bands)
    if len(bands) != c:
        raise InputError(f"{len(bands)} bands named for data with {c}: give one name per band.")
    prior = as_denoiser(prior)
    channels = prior.spec.channels
    if channels not in (None, 1, c):
        raise InputError(f"the prior has {channels} bands, the data {c}: choose bands or a prior that fit.")
    separate = channels == 1 and c > 1
    size = batch or (1 if str(prior.spec.device).startswith("cpu") else 64)
    parts = []
    for first in range(0, b, size):
        chosen = slice(first, min(first + size, b))
        for band in range(c) if separate else (slice(None),):
            part, own = _subset(obs, chosen, band), [bands[band]] if separate else bands
            parts.append(_sample(prior, part, draws, mode, oversample, (seed, ids[chosen], own)))
    n_bands = c if separate else 1
    rows = [join(parts[i : i + n_bands], axis=1) for i in range(0, len(parts), n_bands)]
    return as_posterior(join(rows, axis=0), prior.spec.target_fwhm_pix)


def _subset(obs: Observation, rows: Any, band: Any) -> Observation:
    bands = slice(band, band + 1) if isinstance(band, int) else band
    return Observation(
        obs.data[rows, bands],
        obs.sigma[rows, bands],
        obs.psf[rows, bands],
        None if obs.mask is None else obs.mask[rows, bands],
        obs.pixel_scale_arcsec,
        obs.psf_scale_arcsec,
        None if obs.noise_acf is None else obs.noise_acf[bands],
        None if obs.sigma_white is None else obs.sigma_white[rows, bands],
        None if obs.psf_error is None or not obs.psf_error[bands].any() else obs.psf_error[bands],
    )


@dataclass
class _Problem:
    """One batch made ready: data and operator in the units of the prior. Sources are all bright, or none
    is."""

    prior: Denoiser
    data: torch.Tensor
    model: ForwardModel
    compact: CompactFilter
    spectra: Spectra
    rho: torch.Tensor
    bright: torch.Tensor

    def run(self, mode: Mode, normals: Normals) -> Any:
        """(draws, evaluations per draw, solver residual (b, k))."""
        model, data = self.model, self.data
        if model.noise.modes is not None:
            # a PSF for each draw: the galaxy does not get to choose its own (docs/decisions/0012)
            data, model = data - model.noise.errors_of(normals.draw), replace(model, noise=model.noise.base)
        solver = Solver(model, mode.iterations)
        denoise = CountedDenoiser(self.prior)
        guided = mode.guided(float(self.rho.min()), self.spectra.max_sd)
        bright = bool(self.bright[0])
        steps = steps_of(mode, guided, self.rho, self.spectra.max_sd, self.prior.spec.sigma_min, bright)
        shape = (self.data.shape[2], *self.model.fine)
        if mode.peer is None:
            galaxies = self.prior.spec.flux_convention == "smoothed_peak"
            posterior = PosteriorDenoiser(
                denoise,
                model,
                data,
                self.spectra,
                solver,
                normals.draw,
                mode.products,
                self.compact if galaxies else None,
            )
            warm = gaussian_draw(
                model,
                data,
                solver,
                self.spectra.mean,
                self.spectra.prior[None, None],
                normals.draw,
                relative=EARLY,
            )
            x = sde_dpmpp_2m(
                posterior,
                warm + self._first(steps, normals),
                steps,
                lambda: normals.draw(*shape),
                last=1.0 if bright else LAST_DENOISING,
            )
        else:
            posterior, extrapolation = mode.peer(denoise, model, data, solver, steps)
            x = sde_dpmpp_2m(
                posterior,
                self.spectra.mean + self._first(steps, normals),
                [(sigma,) for sigma, _ in steps],
                lambda: normals.draw(*shape),
                extrapolation,
            )
        worst = torch.zeros(x.shape[:2], device=x.device) if solver.worst is None else solver.worst
        return x, denoise.evaluations, worst

    def _first(self, steps: Any, normals: Any) -> Any:
        return steps[0][0][:, None, None, None, None] * normals.draw(self.data.shape[2], *self.model.fine)


@torch.no_grad()
def _sample(
    prior: Denoiser,
    obs: Observation,
    draws: int,
    mode: str,
    oversample: int,
    streams: Any,
    reference: Any = None,
) -> dict[str, np.ndarray]:
    b, c = obs.data.shape[:2]
    spec = prior.spec
    usable = obs.valid.any((-1, -2)).all(1)
    scale = np.ones((b, c))
    if spec.flux_convention == "smoothed_peak":
        scale = smoothed_peak_scale(obs, oversample)
        usable &= np.isfinite(scale).all(1)
        scale = np.where(usable[:, None], scale, 1.0)
    data, model = forward_model(
        obs, oversample, spec.margin_pix, spec.multiple_of, spec.target_fwhm_pix, scale, spec.device
    )
    spectra = spectra_of(prior, c, model.fine)
    shows = np.zeros(b, bool)
    if reference is not None:
        wide, shows = with_reference(obs, oversample, model, reference)
        model = wide if shows.all() else model
    rho, bright = noise_level(spectra, model.circulant_precision())
    guided = [mode.guided(float(r), spectra.max_sd) for r in rho]
    kinds = list(zip(shows.tolist(), guided, bright.tolist(), strict=True))
    if len(set(kinds)) > 1:  # one schedule at a time, so that a source's does not depend on the others
        return _by_kind(prior, obs, draws, mode, oversample, streams, kinds, reference)
    compact = CompactFilter(model, spec.target_fwhm_pix)
    problem = _Problem(prior, data, model, compact, spectra, rho, bright)
    if obs.psf_error is not None and reference is None:
        normals = Normals(*streams, range(REFERENCE_DRAWS), spec.device, REFERENCE_STAGE)
        x, evaluations, _ = problem.run(MODES["fast"], normals)
        out = _sample(prior, obs, draws, mode, oversample, streams, x.mean(1, keepdim=True))
        return out | {"n_evaluations": out["n_evaluations"] + evaluations * REFERENCE_DRAWS / draws}
    x, evaluations, residual = problem.run(mode, Normals(*streams, range(draws), spec.device))
    spent = np.full(b, float(evaluations))
    chi2, n_valid = chi2_of_draws(model, data, x)
    again = ~torch.isfinite(x).all((-1, -2, -3))
    if mode.rerun:
        again |= ((chi2 - 1).abs() > GATE * (2 / n_valid.clamp_min(1)).sqrt()).any(-1)
    again &= torch.from_numpy(usable).to(again.device)[:, None]
    if again.any():
        second, extra, _ = problem.run(
            MODES["rerun"], Normals(*streams, range(draws), spec.device, RERUN_STAGE)
        )
        x = torch.where(again[..., None, None, None], second, x)
        chi2, n_valid = chi2_of_draws(model, data, x)
        spent += extra * again.float().mean(1).cpu().numpy()
    return summary(x, problem, chi2, n_valid, scale, usable, spent, residual)


def _by_kind(
    prior: Denoiser,
    obs: Observation,
    draws: int,
    mode: str,
    oversample: int,
    streams: Any,
    kinds: Any,
    reference: Any,
) -> Any:
    seed, ids, bands = streams
    groups = [[i for i, own in enumerate(kinds) if own == kind] for kind in sorted(set(kinds))]
    exact = obs if reference is None else replace(obs, psf_error=None)
    known = {False: exact, True: obs}
    parts = [
        _sample(
            prior,
            _subset(known[kinds[rows[0]][0]], rows, slice(None)),
            draws,
            mode,
            oversample,
            (seed, [ids[i] for i in rows], bands),
            reference[rows] if kinds[rows[0]][0] else None,
        )
        for rows in groups
    ]
    back = np.argsort([row for rows in groups for row in rows])
    return {name: values[back] for name, values in join(parts, axis=0).items()}
