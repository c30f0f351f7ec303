"""The noise of an observation whose PSF is not exact, from the light of a source as a first look has it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from galbatch.forward import ForwardModel, Together, full_width, with_psf_error
from galbatch.types import Observation

REFERENCE_DRAWS = 2  # of the first look, as if the PSF were exact; it need not be right, only smooth
REFERENCE_STAGE = 1 << 21  # first random stage of the first look
LEAST_SIGNIFICANCE = 1.0  # squared, of the largest mode: below it the error of the PSF is left out


def with_reference(
    observations: Sequence[Observation], model: ForwardModel | Together, reference: torch.Tensor
) -> tuple[ForwardModel | Together, np.ndarray]:
    """The model with the error of the PSF in its noise, and for which sources (b,) that error shows.

    ``reference`` (b, 1, c, H, W): the light that the PSF is wrong for.
    """
    parts = model.parts if isinstance(model, Together) else (model,)
    light = torch.split(reference, [p.otf.shape[2] for p in parts], 2)
    wide = [_widened(*of) for of in zip(observations, parts, light, strict=True)]
    shows = np.any([_shows(part) for part in wide], axis=0)
    return Together(tuple(wide)) if isinstance(model, Together) else wide[0], shows


def _widened(obs: Observation, model: ForwardModel, reference: torch.Tensor) -> ForwardModel:
    if obs.psf_error is None:
        return model
    step = (obs.psf_scale_arcsec or obs.pixel_scale_arcsec) / obs.pixel_scale_arcsec * model.oversample
    return with_psf_error(model, torch.nan_to_num(reference), obs.psf_error, full_width(obs.psf) * step)


def _shows(model: ForwardModel) -> np.ndarray:
    """(b,)"""
    significance = getattr(model.noise, "significance", None)
    if significance is None:
        return np.zeros(len(model.otf), bool)
    return (significance > LEAST_SIGNIFICANCE).any(-1).cpu().numpy()
