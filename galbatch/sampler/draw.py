"""Draws for sources of one prior and one detector grid, from the observation to arrays.

Sources are made ready together and sampled in pieces. On a CPU a piece has one number of levels. On a GPU its
sources have any, and the piece is filled up to one of a few sizes with sources that are there already, so
that shapes come again; the loop over levels never waits for a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from galbatch.forward import (
    ForwardModel,
    Together,
    between_bands,
    joint_model,
    own_pixels,
    smoothed_peak_scale,
    steps_of,
)
from galbatch.forward.noise import waits
from galbatch.forward.psf_error import MODES as MODES_OF_PSF
from galbatch.interfaces import Denoiser
from galbatch.sampler.agreement import with_other_psfs
from galbatch.sampler.diagnostics import chi2_of_draws
from galbatch.sampler.guidance import CompactFilter, PosteriorDenoiser, gaussian_draw
from galbatch.sampler.levels import LevelStep, one_by_one, run_levels
from galbatch.sampler.prior import DrawsDenoiser
from galbatch.sampler.random import Normals
from galbatch.sampler.reference import REFERENCE_DRAWS, REFERENCE_STAGE, with_reference
from galbatch.sampler.schedule import MODES, Mode, evaluations, noise_level, schedule
from galbatch.sampler.solve import EARLY, SHORT, Solver
from galbatch.sampler.spectra import Spectra, spectra_of
from galbatch.sampler.summary import join, mark_predicted, summary
from galbatch.types import Observation

if TYPE_CHECKING:
    from torch import Tensor

GATE = 6.0  # standard deviations of chi2 beyond which a draw is run again
RERUN_STAGE = 1 << 20  # first random stage of a second attempt

Streams = tuple[int, Sequence, Sequence]  # of random numbers: seed, ids and bands


@dataclass(frozen=True)
class Call:
    """What is asked for. ``size``: sources of a piece; ``replay``: how levels are run (``levels.py``);
    ``wavelengths`` (c,) in micrometres of bands that are sampled together."""

    mode: Mode
    draws: int
    oversample: int
    streams: Streams
    size: int
    replay: Callable
    wavelengths: Sequence[float] | None = None


@dataclass(frozen=True)
class Drawn:
    """Draws ``x`` (b, k, c, H, W); ``psf`` (b, k, c, m), by how many standard deviations of the modes of its
    errors the PSF of each is off the given one, None where that is exact; the errors (b, k) that solves left,
    of all and of those that were too short."""

    x: torch.Tensor
    psf: torch.Tensor | None
    residual: torch.Tensor
    too_short: torch.Tensor

    def __getitem__(self, rows: Any) -> Drawn:
        psf = None if self.psf is None else self.psf[rows]
        return Drawn(self.x[rows], psf, self.residual[rows], self.too_short[rows])

    def where(self, chosen: torch.Tensor, other: Drawn, places: Any = ...) -> Drawn:
        """With draws of ``other``, those ``chosen`` (b, k) of the rows and draws that ``places`` are."""

        def mixed(own: Tensor, new: Tensor) -> Tensor:
            own, shape = own.clone(), chosen.shape + (1,) * (own.ndim - 2)
            own[places] = torch.where(chosen.view(shape), new, own[places])
            return own

        psf = None if self.psf is None or other.psf is None else mixed(self.psf, other.psf)
        left = (mixed(self.residual, other.residual), mixed(self.too_short, other.too_short))
        return Drawn(mixed(self.x, other.x), psf, *left)


@dataclass(frozen=True)
class Problem:
    """Sources made ready: data (b, 1, c, h, w) and operator in the units of the prior, their noise levels
    ``rho`` (b,), whether they are ``bright`` (b,), and the names of their random numbers. ``bounded``: solves
    do not look whether they have converged. ``bands`` (c,): log wavelengths of bands seen together."""

    prior: Denoiser
    data: torch.Tensor
    model: ForwardModel | Together
    spectra: Spectra
    rho: torch.Tensor
    bright: torch.Tensor
    streams: Streams
    bounded: bool
    bands: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        prior: Denoiser,
        data: torch.Tensor,
        model: ForwardModel | Together,
        streams: Streams,
        bands: Tensor | None,
    ) -> Problem:
        """With the spectra of the prior and the noise levels that follow."""
        spectra = spectra_of(prior, data.shape[2], model.fine, bands)
        level = noise_level(spectra, model.circulant_precision())
        return cls(prior, data, model, spectra, *level, streams, waits(data.device), bands)

    @cached_property
    def compact(self) -> CompactFilter:
        """The filter for the smallest features of the prior."""
        return CompactFilter(self.model, self.prior.spec.target_fwhm_pix)

    def take(self, rows: np.ndarray) -> Problem:
        """Of these sources; one may come several times."""
        seed, ids, bands = self.streams
        return replace(
            self,
            data=self.data[rows],
            model=self.model.take(rows),
            rho=self.rho[rows],
            bright=self.bright[rows],
            streams=(seed, [ids[i] for i in rows], bands),
        )

    def guided(self, mode: Mode) -> list[int]:
        """Guided levels of each source."""
        return [mode.guided(r, self.spectra.max_sd) for r in self.rho.tolist()]

    def pieces(self, mode: Mode, size: int) -> Iterator[np.ndarray]:
        """Rows that are sampled together: all bright, or none; of one number of levels unless ``bounded``."""
        guided = [0] * len(self.rho) if self.bounded else self.guided(mode)
        kinds = list(zip(self.bright.tolist(), guided, strict=True))
        for kind in sorted(set(kinds)):
            rows = np.array([i for i, own in enumerate(kinds) if own == kind])
            yield from (rows[i : i + size] for i in range(0, len(rows), size))

    def seen(self, drawn: Drawn) -> torch.Tensor:
        """(b, k, c, h, w): draws as the telescope would see them, each through its own PSF."""
        model = self.model if drawn.psf is None else self.model.with_psfs(drawn.psf)
        return model.apply(drawn.x)

    def run(
        self, mode: Mode, draws: Sequence[int], stage: int, call: Call, psf: Tensor | None = None
    ) -> tuple[Drawn, np.ndarray]:
        """Draws of a piece, and evaluations per draw (b,). ``draws``: their numbers; ``psf`` (b, k, c, m):
        the PSFs that they are to have, where not NaN (of sources that are not ``bounded``)."""
        n, most = len(self.data), call.size
        while most >= 2 * n:
            most //= 2
        full = self.take(np.minimum(np.arange(most), n - 1)) if self.bounded and most > n else self
        normals = Normals(*full.streams, draws, self.data.device, stage)
        drawn, spent = full._draws(mode, normals, call.replay, psf)
        return drawn[:n], spent[:n]

    def _draws(
        self, mode: Mode, normals: Normals, replay: Callable, kept: Tensor | None
    ) -> tuple[Drawn, np.ndarray]:
        model, data, psf = self.model, self.data, None
        if model.noise.modes is not None:
            # a PSF for each draw: the galaxy does not get to choose its own (docs/decisions/0012)
            psf = normals.draw(data.shape[2], MODES_OF_PSF)
            psf = psf if kept is None else torch.where(kept.isfinite(), kept, psf)
            model = model.with_psfs(psf)
        bright = bool(self.bright[0])  # its solves take many iterations
        solver = Solver(model, mode.iterations, bounded=self.bounded and not bright)
        denoise = DrawsDenoiser(self.prior, self.bands)
        spectra, guided = self.spectra, self.guided(mode)
        levels = schedule(mode, guided, self.rho, spectra.max_sd, self.prior.spec.sigma_min, bright)
        galaxies = self.prior.spec.flux_convention == "smoothed_peak"
        compact = self.compact if galaxies else None
        posterior = PosteriorDenoiser(denoise, model, data, spectra, solver, normals, mode.products, compact)
        warm = gaussian_draw(model, data, solver, spectra.mean, spectra.law, normals.draw, relative=EARLY)
        x = warm + self._noise(levels[0].numbers[0], normals)
        if not solver.bounded:  # it looks at values, which a recording cannot
            replay = one_by_one
        x, left = run_levels(LevelStep(posterior, normals.stage), x, levels, replay)
        return Drawn(x, psf, *left), np.array([float(evaluations(mode, g, bright)) for g in guided])

    def _noise(self, sigma: torch.Tensor, normals: Normals) -> torch.Tensor:
        return sigma[:, None, None, None, None] * normals.draw(self.data.shape[2], *self.model.fine)


@torch.no_grad()
def draw(prior: Denoiser, observations: Sequence[Observation], call: Call) -> dict[str, np.ndarray]:
    """Draws of all sources of an observation with what is said of them (``summary``); of several, whose bands
    come in turn, where bands are sampled together."""
    spec, steps = prior.spec, steps_of(observations, call.oversample)
    there = np.concatenate([obs.valid.any((-1, -2)) for obs in observations], 1)
    scale = np.ones(there.shape)
    if spec.flux_convention == "smoothed_peak":
        scales = [smoothed_peak_scale(obs, n) for obs, n in zip(observations, steps, strict=True)]
        scale = np.concatenate(scales, 1)
        there &= np.isfinite(scale)
    waves = call.wavelengths
    usable = np.all(there, 1) if waves is None else np.any(there, 1)
    scale = scale if waves is None else between_bands(scale, there, waves)
    scale = np.where(usable[:, None], scale, 1.0)
    geometry = (spec.margin_pix, spec.multiple_of, spec.target_fwhm_pix)
    data, model = joint_model(observations, steps, geometry, scale, spec.device)
    bands = None if waves is None else torch.log(torch.tensor(waves, device=spec.device))
    problem = Problem.of(prior, data, model, call.streams, bands)
    pixels = own_pixels(observations, data.device)
    parts, order = [], []
    for some, rows, extra in _with_psf_error(problem, observations, call):
        for piece in some.pieces(call.mode, call.size):
            own = rows[piece]
            found = _summary(some.take(piece), call, scale[own], usable[own], extra[own], pixels[own])
            if waves is not None:
                mark_predicted(found, usable[own, None] & ~there[own])
            parts.append(found)
            order.append(own)
    back = np.argsort(np.concatenate(order))
    return {name: values[back] for name, values in join(parts, axis=0).items()}


def _with_psf_error(problem: Problem, observations: Sequence[Observation], call: Call) -> list[tuple]:
    """(problem, rows, evaluations per draw that were spent before): sources whose PSF is exact or might as
    well be, and those for which its error shows in a first look."""
    every = np.arange(len(problem.data))
    if all(obs.psf_error is None for obs in observations):
        return [(problem, every, np.zeros(len(every)))]
    reference = torch.empty(
        len(every), 1, *problem.data.shape[2:3], *problem.model.fine, device=problem.data.device
    )
    spent = np.zeros(len(every))
    for rows in problem.pieces(MODES["fast"], call.size):
        look, evaluated = problem.take(rows).run(MODES["fast"], range(REFERENCE_DRAWS), REFERENCE_STAGE, call)
        reference[rows] = look.x.mean(1, keepdim=True)
        spent[rows] = evaluated * REFERENCE_DRAWS / call.draws
    wide, shows = with_reference(observations, problem.model, problem.data, reference)
    parts = [(problem.take(every[~shows]), every[~shows], spent)] if not shows.all() else []
    if shows.any():
        seed, ids, bands = problem.streams
        streams = (seed, [ids[i] for i in every[shows]], bands)
        wider = Problem.of(
            problem.prior, problem.data[shows], wide.take(every[shows]), streams, problem.bands
        )
        parts.append((wider, every[shows], spent))
    return parts


def _summary(
    problem: Problem, call: Call, scale: np.ndarray, usable: np.ndarray, before: np.ndarray, pixels: Tensor
) -> dict[str, np.ndarray]:
    drawn, spent = problem.run(call.mode, range(call.draws), 0, call)
    spent = before + spent
    if problem.bounded and (short := drawn.too_short > SHORT).any():  # as many iterations as it takes
        drawn, extra = _again(replace(problem, bounded=False), call.mode, 0, call, drawn, short)
        spent = spent + extra
    if problem.prior.spec.flux_convention == "smoothed_peak":
        drawn, extra = with_other_psfs(replace(problem, bounded=False), call, drawn)
        spent = spent + extra
    seen = problem.seen(drawn)
    chi2, n_valid = chi2_of_draws(problem.model.noise, problem.data, seen)
    again = ~torch.isfinite(drawn.x).all((-1, -2, -3))
    if call.mode.rerun:
        again |= ((chi2 - 1).abs() > GATE * (2 / n_valid.clamp_min(1)).sqrt()).any(-1)
    again &= torch.from_numpy(usable).to(again.device)[:, None]
    if again.any():
        drawn, extra = _again(problem, MODES["rerun"], RERUN_STAGE, call, drawn, again)
        spent = spent + extra
        seen = problem.seen(drawn)
        chi2, n_valid = chi2_of_draws(problem.model.noise, problem.data, seen)
    return summary(drawn.x, seen, problem, chi2, n_valid, scale, usable, spent, drawn.residual, pixels)


def _again(
    problem: Problem, mode: Mode, stage: int, call: Call, drawn: Drawn, where: torch.Tensor
) -> tuple[Drawn, np.ndarray]:
    """Draws with those ``where`` (b, k) from another run, and its evaluations per draw (b,)."""
    second, evaluated = problem.run(mode, range(call.draws), stage, call)
    return drawn.where(where, second), evaluated * where.float().mean(1).cpu().numpy()
