"""Physics of an observation: ``y = D (h * x) + n``. PSF, pixel operator, noise, flux scale; no prior, no
I/O."""

from galbatch.forward.noise import noise_model
from galbatch.forward.operator import ForwardModel, forward_model, kernel_hit_rate
from galbatch.forward.psf import TransferCache, psf_offset, target_transfer
from galbatch.forward.psf_error import PsfErrorNoise, full_width, with_psf_error
from galbatch.forward.scale import between_bands, smoothed_peak_scale
from galbatch.forward.together import (
    Together,
    joint_model,
    own_pixels,
    steps_of,
    wavelength_um,
    wavelengths_um,
)

__all__ = [
    "ForwardModel",
    "PsfErrorNoise",
    "Together",
    "TransferCache",
    "between_bands",
    "forward_model",
    "full_width",
    "joint_model",
    "kernel_hit_rate",
    "noise_model",
    "own_pixels",
    "psf_offset",
    "smoothed_peak_scale",
    "steps_of",
    "target_transfer",
    "wavelength_um",
    "wavelengths_um",
    "with_psf_error",
]
