"""The noise of an observation whose PSF is not exact, from the light of a source as a first look has it."""

from __future__ import annotations

import numpy as np
import torch

from galbatch.forward import ForwardModel, full_width, with_psf_error
from galbatch.types import Observation

REFERENCE_DRAWS = 2  # of the first look, as if the PSF were exact; it need not be right, only smooth
REFERENCE_STAGE = 1 << 21  # first random stage of the first look
LEAST_SIGNIFICANCE = 1.0  # squared, of the largest mode: below it the error of the PSF is left out


def with_reference(
    obs: Observation, oversample: int, model: ForwardModel, reference: torch.Tensor
) -> tuple[ForwardModel, np.ndarray]:
    """The model with the error of the PSF in its noise, and for which sources (b,) that error shows.

    ``reference`` (b, 1, c, H, W): the light that the PSF is wrong for.
    """
    step = (obs.psf_scale_arcsec or obs.pixel_scale_arcsec) / obs.pixel_scale_arcsec * oversample
    fwhm = full_width(obs.psf) * step
    wide = with_psf_error(model, torch.nan_to_num(reference), obs.psf_error, fwhm)
    return wide, (wide.noise.significance > LEAST_SIGNIFICANCE).any(-1).cpu().numpy()
