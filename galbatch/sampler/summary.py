"""Mean, spread and diagnostics of the draws of a batch, and its parts put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from galbatch.sampler.agreement import psf_doubted
from galbatch.sampler.diagnostics import (
    BROKEN_SHARE,
    chi2_misfit,
    flux_differs,
    prior_driven_map,
    sharper_than_resolution,
)
from galbatch.types import Flag, Posterior

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.sampler.draw import Problem


SOLVER_FLAG = 0.1
BROKEN_DRAWS = 0.16  # more of them and the ends of a 68% interval are theirs


def summary(
    x: Tensor,
    seen: Tensor,
    problem: Problem,
    chi2: Tensor,
    n_valid: Tensor,
    scale: np.ndarray,
    usable: np.ndarray,
    spent: np.ndarray,
    residual: Tensor,
    source: Tensor | None = None,
) -> dict:
    """Draws x (b, k, c, H, W) of ``problem``, ``seen`` by the telescope (b, k, c, h, w), as numpy arrays in
    the unit of the data, with mean, spread, chi2 and flags; a draw that is not finite counts for nothing.
    ``source`` (b, 1, c, h, w) bool: pixels that are no neighbour's."""
    finite = torch.isfinite(x).all((-1, -2, -3)) & torch.from_numpy(usable).to(x.device)[:, None]
    x, seen = (torch.where(finite[..., None, None, None], u, torch.nan) for u in (x, seen))
    model, data = problem.model, problem.data
    mean, std = x.nanmean(1), _nanstd(x)
    driven, fraction = prior_driven_map(model, x, mean)
    chi2_mean = torch.where(finite[..., None], chi2, torch.nan).nanmean(1)
    misfit = chi2_misfit(model, data, x, seen, chi2_mean, n_valid[:, 0], problem.compact, source)
    share = fraction.cpu().numpy()
    flags = np.zeros(misfit.p.shape, np.int64)
    for flag, where in (
        (Flag.SAMPLER_NONFINITE, ~finite.all(1).cpu().numpy()[:, None]),
        (Flag.SAMPLER_CHI2, misfit.source),
        (Flag.NOISE_LEVEL, misfit.noise),
        (Flag.RESIDUAL_ELSEWHERE, misfit.elsewhere),
        (Flag.FLUX_NOT_CONSERVED, flux_differs(model, data, seen, source)),
        (Flag.BROKEN, _broken(problem, x, mean, std, source)),
        (Flag.SOLVER, residual.amax(1).cpu().numpy()[:, None] > SOLVER_FLAG),
        (Flag.PRIOR_DRIVEN, np.nan_to_num(share) > 0.5),
        (Flag.PSF_DOUBTED, _psf_doubted(problem, mean, source)),
    ):
        flags |= np.where(where, int(flag), 0)
    crop, unit = model.crop, np.asarray(scale, np.float32)[:, :, None, None]
    return {
        "samples": crop(x).cpu().numpy() * unit[:, None],
        "mean": crop(mean).cpu().numpy() * unit,
        "std": crop(std).cpu().numpy() * unit,
        "prior_driven": crop(driven).cpu().numpy(),
        "prior_driven_frac": share,
        "chi2": chi2_mean.cpu().numpy(),
        "chi2_p": misfit.p,
        "flags": np.bitwise_or.reduce(flags, axis=1),
        "band_flags": flags,
        "scale": np.where(usable[:, None], scale, np.nan),
        "n_evaluations": spent,
        "n_draws_ok": finite.sum(1).cpu().numpy(),
        "solver_residual": residual.cpu().numpy(),
        "model": seen.nanmean(1).cpu().numpy() * unit,
        "psf_in_error": np.full(share.shape, model.noise.modes is not None),
    }


def mark_predicted(found: dict, predicted: np.ndarray) -> None:
    """Flag the bands (b, c) of a ``summary`` that were drawn from the others; no data, no chi2."""
    found["chi2"] = np.where(predicted, np.float32(np.nan), found["chi2"])
    found["band_flags"] |= np.where(predicted, int(Flag.PREDICTED), 0)
    found["flags"] = np.bitwise_or.reduce(found["band_flags"], axis=1)


def _broken(problem: Problem, x: Tensor, mean: Tensor, std: Tensor, source: Tensor | None) -> np.ndarray:
    """(b, c) whether the mean, or so many of the draws x (b, k, c, H, W) that they reach into the interval,
    cannot be an image of a galaxy where ``source`` (b, 1, c, h, w) is True; priors of anything else may be
    negative."""
    spec = problem.prior.spec
    if spec.flux_convention != "smoothed_peak":
        return np.zeros(mean.shape[:2], bool)
    x, mean, std = (torch.nan_to_num(problem.model.crop(v)) for v in (x, mean, std))
    own = None
    if source is not None:
        own = 1 - problem.model.crop(problem.model.from_detector((~source).float(), problem.model.fine))
    of_mean = None if own is None else own[:, 0]
    broken = sharper_than_resolution(mean, std, spec.target_fwhm_pix, of_mean) > BROKEN_SHARE
    each = sharper_than_resolution(x, torch.zeros_like(x), spec.target_fwhm_pix, own) > BROKEN_SHARE
    return (broken | (each.float().mean(1) > BROKEN_DRAWS)).cpu().numpy()


def _psf_doubted(problem: Problem, mean: Tensor, source: Tensor | None) -> np.ndarray:
    """(b, c): see ``psf_doubted``; False where bands were not sampled together."""
    spec = problem.prior.spec
    if problem.bands is None or spec.flux_convention != "smoothed_peak":
        return np.zeros(mean.shape[:2], bool)
    return psf_doubted(problem.model, problem.data, mean, spec.target_fwhm_pix, source)


def _nanstd(x: Tensor) -> Tensor:
    centred = x - x.nanmean(1, keepdim=True)
    n = torch.isfinite(x).sum(1)
    return (centred.square().nansum(1) / (n - 1).clamp_min(1)).sqrt().where(n > 1, torch.nan)


_PER_SOURCE = {"flags": np.bitwise_or, "n_evaluations": np.maximum, "n_draws_ok": np.minimum}


def join(parts: list[dict], axis: int) -> dict:
    """Parts of a batch side by side: sources along axis 0; bands along axis 1 (2 for samples), flags and
    counts combined."""
    if len(parts) == 1:
        return parts[0]
    out = {}
    for name, first in parts[0].items():
        values = [part[name] for part in parts]
        if axis == 1 and name in _PER_SOURCE:
            out[name] = _PER_SOURCE[name].reduce(values)
        elif axis == 1 and name == "solver_residual":
            out[name] = np.maximum.reduce(values)
        else:
            if name == "model":  # bands of other pixels: each in the corner of the largest
                largest = np.max([value.shape[-2:] for value in values], axis=0)
                values = [_filled_up(value, largest) for value in values]
            out[name] = np.concatenate(values, axis if axis == 0 or first.ndim < 5 else 2)
    return out


def _filled_up(images: np.ndarray, shape: np.ndarray) -> np.ndarray:
    more = [(0, int(n - m)) for n, m in zip(shape, images.shape[-2:], strict=True)]
    return np.pad(images, [(0, 0), (0, 0), *more])


def as_posterior(merged: dict, target_fwhm_pix: float) -> Posterior:
    """The joined parts of a batch as a ``Posterior``."""
    info = {name: merged.pop(name) for name in ("solver_residual", "model", "psf_in_error")}
    return Posterior(**merged, target_fwhm_pix=target_fwhm_pix, info=info)
