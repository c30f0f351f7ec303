"""The noise that depends on the light of a source, from that light as a first look has it: the error of the
PSF, and its photons where the noise map has none.

**Photons.** A map of the sky's noise alone (weights of drizzled mosaics, rms maps) does not rise with the
light. The residuals of the first look do: with s the S/N of the light in a pixel, their variance is 1 + a s
of that of faint pixels. ``a`` is fitted by least squares where s is 3 to 30: below there is nothing to see,
above errors of the PSF are. The noise of the sky bounds it, for photons of the sky are part of that: a is at
most sigma over the light of the darkest sky in a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from galbatch.forward import ForwardModel, PsfErrorNoise, Together, full_width, with_psf_error
from galbatch.types import Observation

REFERENCE_DRAWS = 2  # of the first look, as if the PSF were exact; it need not be right, only smooth
REFERENCE_STAGE = 1 << 21  # first random stage of the first look
LEAST_SIGNIFICANCE = 1.0  # squared, of the largest mode: below it the error of the PSF is left out
PHOTON_SN, FAINT_SN, MIN_PIXELS = (3.0, 30.0), 1.0, 20
RISES = 1.1  # variance of bright over that of faint pixels: such a map holds the photons
SIGNIFICANT = 5.0  # standard deviations of a
DARKEST_SKY_NJY = 1450.0  # per square arcsec: AB magnitude 23.5


def with_reference(
    observations: Sequence[Observation],
    model: ForwardModel | Together,
    data: torch.Tensor,
    reference: torch.Tensor,
) -> tuple[ForwardModel | Together, np.ndarray]:
    """The model with noise that depends on the light, and for which sources (b,) that noise shows.

    ``data`` (b, 1, c, h, w); ``reference`` (b, 1, c, H, W): the light that the PSF is wrong for.
    """
    parts = model.parts if isinstance(model, Together) else (model,)
    bands = [p.otf.shape[2] for p in parts]
    seen = torch.split(data, bands, 2)
    wide = [
        _widened(obs, part, pixels[..., : part.stamp[0], : part.stamp[1]], light)
        for obs, part, pixels, light in zip(
            observations, parts, seen, torch.split(reference, bands, 2), strict=True
        )
    ]
    found = tuple(part for part, _ in wide)
    shows = np.any([shown for _, shown in wide], axis=0)
    return Together(found) if isinstance(model, Together) else found[0], shows


def _widened(
    obs: Observation, model: ForwardModel, data: torch.Tensor, reference: torch.Tensor
) -> tuple[ForwardModel, np.ndarray]:
    if obs.psf_error is None:
        return model, np.zeros(len(model.otf), bool)
    reference = torch.nan_to_num(reference)
    step = (obs.psf_scale_arcsec or obs.pixel_scale_arcsec) / obs.pixel_scale_arcsec * model.oversample
    wide = with_psf_error(model, reference, obs.psf_error, full_width(obs.psf) * step)
    assert isinstance(wide.noise, PsfErrorNoise)
    photons = photon_variance(obs, wide.noise, model.noise.weight, data, model.apply(reference))
    noise = replace(wide.noise, base=wide.noise.base.with_white(photons))
    shows = (noise.significance > LEAST_SIGNIFICANCE) | (photons > 0).any(-1).any(-1)[:, 0]
    return replace(wide, noise=noise), shows.any(-1).cpu().numpy()


def photon_variance(
    obs: Observation, noise: PsfErrorNoise, weight: torch.Tensor, data: torch.Tensor, light: torch.Tensor
) -> torch.Tensor:
    """(b, 1, c, h, w) variance of the photons of ``light`` that the noise map lacks, 0 where it holds them or
    the residuals do not show them. ``weight``: 1 / variance of the map alone."""
    used, sn = weight > 0, light * weight.sqrt()
    faint, bright = used & (sn.abs() < FAINT_SN), used & (sn > PHOTON_SN[0]) & (sn < PHOTON_SN[1])

    def mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        found = torch.where(where, values, 0).sum((-1, -2), keepdim=True)
        return found / where.sum((-1, -2), keepdim=True).clamp_min(1)

    variance = mean(1 / weight.clamp_min(1e-30), faint)
    holds = mean(1 / weight.clamp_min(1e-30), bright) > RISES * variance
    size = noise.corrected(data - light).square() * noise.weight
    excess = size / mean(size, faint).clamp_min(1e-30) - 1
    a, known = mean(excess * sn, bright), mean(sn * sn, bright).clamp_min(1e-30)
    number = bright.sum((-1, -2), keepdim=True)
    a = a / known
    error = (2 * noise.inflation / (known * number.clamp_min(1))).sqrt()
    sky = DARKEST_SKY_NJY * obs.pixel_scale_arcsec**2
    flat = np.ma.masked_invalid(obs.sigma).reshape(*obs.sigma.shape[:2], -1)
    median: Any = np.ma.median  # numpy has no types of it
    sigma = np.ma.filled(median(flat, axis=-1), 0.0)  # 0 of a band without pixels
    most = torch.as_tensor(sigma / sky, dtype=a.dtype, device=a.device)[:, None, :, None, None]
    few = (number < MIN_PIXELS) | (faint.sum((-1, -2), keepdim=True) < MIN_PIXELS)
    a = torch.where(holds | few | (a < SIGNIFICANT * error), 0, torch.minimum(a, most))
    return a * light.clamp_min(0) * variance.sqrt()
