"""Is a posterior believable? Residual chi2 and its p-value, and what in the image is prior-dominated.

**chi2** of a draw x: (y - A x)^T N^-1 (y - A x) / n_valid; for a right model it is chi2-distributed with
n_valid degrees of freedom over data and draws. The p-value is two-sided, of the mean over draws, over the
whole stamp and over the source's footprint (where the model exceeds the noise), and that of the most
significant compact feature that the mean leaves in the data (``guidance.CompactFilter``) among as many places
as there are pixels: the smallest of the three times three.

**Prior-driven**: in a band of scales, let n(x) be the variance that a data-only estimate of the band would
have, v(x) its posterior variance and e(x) the energy of the posterior mean in it, as local means. A structure
is prior-dominated when the posterior is much narrower than the data alone allow *and* the structure would
drown in that noise: min(1 - v/n, n / (e + n)). For a Gaussian prior of variance p the first is n / (p + n),
and so is the second, where e is p. The map is the mean over bands by the amplitude, sqrt(e), in each.

Can a reconstruction be an image at its resolution, and does it hold the flux of the data?

**Sharper than the resolution.** An image of non-negative light seen with a Gaussian PSF is a sum of
Gaussians, so that its logarithm is nowhere more concave than that of one: with m(x +- d) at distance d,

    m(x)^2 <= m(x - d) m(x + d) exp(d^2 / s^2),    s = FWHM / 2.355.

Stripes, checkerboards and negative pixels in a bright core break this; no galaxy and no star does.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import chdtr, chdtrc, ndtr  # scipy.stats takes half a second to import

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from galbatch.interfaces import Likelihood, Noise
    from galbatch.sampler.guidance import CompactFilter

SCALES_PIX = (0.0, 0.7, 1.4, 2.8)  # sigmas of Gaussians in fine pixels: bands are their differences
FOOTPRINT_SN = 1.0
FLAG_P = 1e-4
TOLERANCE = 0.05  # of the light under a compact feature: no PSF is known better
NOISE_TOLERANCE = 1.25  # of chi2: sigma off by 12%, and error bars with it
WRONG = 2.0  # of chi2: sigma off by 40%, which no noise map is
FAINT_SHARE = 0.01  # of all light: a feature with less, outside of the core, changes no number of the source
NEAR_PIX = 2  # fine pixels around the source's footprint where a feature may be its own


def chi2_of_draws(noise: Noise, data: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """chi2 per valid pixel (b, k, c) of draws as the telescope would see them (b, k, c, h, w), and the number
    of valid pixels (b, 1, c)."""
    residual = data - seen
    n = (noise.weight > 0).sum((-1, -2)).float()
    return (residual * noise.precision(residual)).sum((-1, -2)) / n.clamp_min(1), n


@dataclass(frozen=True)
class Misfit:
    """(b, c) each: ``p``, the p-value of the residuals; whether they say that the model of the ``source`` is
    wrong, that the ``noise`` map is off, or that something is left ``elsewhere`` in the stamp."""

    p: np.ndarray
    source: np.ndarray
    noise: np.ndarray
    elsewhere: np.ndarray


def footprint_of(model: Likelihood, image: Tensor, source: Tensor | None = None) -> Tensor:
    """(b, 1, c, h, w) 1 where the mean of the images (b, k, c, h, w) exceeds the noise, else 0; ``source``
    (b, 1, c, h, w) bool: only there."""
    bright = image.nanmean(1, keepdim=True) ** 2 * model.noise.weight > FOOTPRINT_SN**2
    return (bright if source is None else bright & source).float()


def chi2_misfit(
    model: Likelihood,
    data: Tensor,
    x: Tensor,
    image: Tensor,
    chi2_mean: Tensor,
    n_valid: Tensor,
    compact: CompactFilter,
    source: Tensor | None = None,
) -> Misfit:
    """What the residuals of draws x, as the telescope would see them ``image`` (b, k, c, h, w), say by their
    size and their place; chance alone never counts.

    A chi2, of the stamp or of the footprint, off by more than ``NOISE_TOLERANCE`` says that the noise map is
    off, by more than ``WRONG`` that the model is wrong; so does a compact feature on the source of more than
    ``TOLERANCE`` of its light there, with the expected error of the PSF and without, unless it is outside of
    the core and holds less than ``FAINT_SHARE`` of all light. ``compact``: a ``CompactFilter``; ``source``
    (b, 1, c, h, w) bool: pixels that are no neighbour's, whose misfits are ``elsewhere``.
    """
    footprint = footprint_of(model, image, source)
    each, as_is = (
        u.square() * model.noise.weight for u in (model.noise.corrected(data - image), data - image)
    )
    white, of_data = ((u * footprint).nansum((-1, -2)).mean(1).cpu().numpy() for u in (each, as_is))
    count = footprint.sum((-1, -2))[:, 0].cpu().numpy()
    # an error of the PSF that light elsewhere suggests is none where the data fit as they are
    white = np.minimum(white, np.maximum(of_data, count))
    n = n_valid.cpu().numpy()
    # modes that resampling left without noise make a whitened chi2 small, whatever the noise map is
    plain = each.nansum((-1, -2)).mean(1).cpu().numpy() / np.maximum(n, 1)
    beside = _beside(model, each, source)
    whitened, plain = chi2_mean.cpu().numpy(), np.minimum(plain, 1)
    everywhere = _allowed(model, (model.noise.weight > 0).float(), np.maximum(whitened, plain))
    everywhere = np.where(everywhere > 1, np.maximum(everywhere * beside, 1), everywhere)
    inside = _allowed(model, footprint, white / np.maximum(count, 1))
    whole = _two_sided(everywhere, np.where(plain > whitened, n / model.noise.inflation, n))
    core = np.where(count >= 8, _two_sided(inside, count / model.noise.inflation), 1)

    def off(tolerance: float) -> np.ndarray:
        return ((whole < FLAG_P) & _beyond(everywhere, tolerance)) | (
            (core < FLAG_P) & _beyond(inside, tolerance)
        )

    seen = torch.nan_to_num(image.nanmean(1, keepdim=True))
    feature, on, elsewhere = _left_over(model, data - seen, x, n, compact, footprint, source)
    p = np.minimum(1, 3 * np.minimum(np.minimum(whole, core), feature))
    there = n > 0
    return Misfit(
        np.where(there, p, np.nan), there & (off(WRONG) | on), there & off(NOISE_TOLERANCE), there & elsewhere
    )


def _beside(model: Likelihood, each: Tensor, source: Tensor | None) -> np.ndarray | float:
    """(b, c): the mean of ``each`` (b, k, c, h, w) over the pixels that are no neighbour's, over that of all;
    at most one. What a saturated star leaves says nothing of the source, nor of its noise."""
    if source is None:
        return 1.0
    used = model.noise.weight > 0
    means = [
        (each * of).nansum((-1, -2)).mean(1) / of.sum((-1, -2))[:, 0].clamp_min(1)
        for of in (used & source, used)
    ]
    return (means[0] / means[1].clamp_min(1e-6)).clamp_max(1).cpu().numpy()


def _allowed(model: Likelihood, where: Tensor, chi2: np.ndarray) -> np.ndarray:
    """A chi2 (b, c) per pixel of ``where`` (b, 1, c, h, w) as it is judged: below one as far as the variance
    that is ``owed`` though the PSF be exact is below that allowed for is no misfit."""
    owed = (model.noise.owed * where).sum((-1, -2)) / where.sum((-1, -2)).clamp_min(1)
    return np.where(chi2 < 1, np.minimum(chi2 / owed[:, 0].clamp_min(1e-6).cpu().numpy(), 1), chi2)


def _beyond(chi2: np.ndarray, tolerance: float) -> np.ndarray:
    return (chi2 > tolerance) | (chi2 < 1 / tolerance)


def _left_over(
    model: Likelihood,
    left: Tensor,
    x: Tensor,
    n: np.ndarray,
    compact: CompactFilter,
    footprint: Tensor,
    source: Tensor | None,
) -> tuple[np.ndarray, ...]:
    """(b, c) p-value of the most significant compact feature in what the mean leaves, and whether one
    exceeds chance and ``TOLERANCE`` of the light there: on the source (next to it, and in its core or not
    faint; or as bright as ``TOLERANCE`` of all light), or elsewhere."""

    def found(precision: Callable[[Tensor], Tensor]) -> list[Tensor]:
        return [part.abs()[:, 0] for part in compact(model.adjoint(precision(left)))]

    mean = torch.nan_to_num(x.nanmean(1, keepdim=True))
    significance, height = map(
        torch.minimum, found(model.noise.precision), found(model.noise.exact_precision)
    )
    light = compact(model.normal(mean))[0].abs()[:, 0]
    near = model.from_detector(footprint, model.fine)[:, 0]
    near = torch.nn.functional.max_pool2d(near, 2 * NEAR_PIX + 1, 1, NEAR_PIX) > 0
    share = height / compact.height / mean[:, 0].clamp_min(0).sum((-1, -2), keepdim=True).clamp_min(1e-30)
    near &= (share > FAINT_SHARE) | (light > 0.5 * light.amax((-1, -2), keepdim=True))
    near |= share > TOLERANCE
    if source is not None:
        near &= model.from_detector((~source).float(), model.fine)[:, 0] == 0

    def chance(s: Tensor) -> np.ndarray:
        return np.minimum(1, 2 * n * ndtr(-s.amax((-1, -2)).double().cpu().numpy()))

    excess = (significance - TOLERANCE * light).clamp_min(0)
    return chance(significance), chance(excess * near) < FLAG_P, chance(excess * ~near) < FLAG_P


def _two_sided(chi2: np.ndarray, n: np.ndarray) -> np.ndarray:
    """p-value of a chi2 per degree of freedom."""
    n = np.maximum(n, 1)
    total = np.maximum(chi2 * n, 0)
    return np.minimum(1, 2 * np.minimum(chdtrc(n, total), chdtr(n, total)))


def _bands(shape: tuple[int, int], device: torch.device) -> list[Tensor]:
    smooth = [_blur(shape, s, device) for s in SCALES_PIX]
    return [fine - coarse for fine, coarse in itertools.pairwise(smooth)] + [smooth[-1]]


def prior_driven_map(model: Likelihood, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The map (b, c, H, W) in [0, 1] and the share (b, c) of the flux of the mean lying where it exceeds one
    half."""
    if x.shape[1] < 2:
        nothing = torch.full_like(mean, torch.nan)
        return nothing, nothing[..., 0, 0]
    shape = (mean.shape[-2], mean.shape[-1])
    deviation = torch.fft.rfft2(torch.nan_to_num(x - mean[:, None]))
    centre = torch.fft.rfft2(torch.nan_to_num(mean))
    information = model.circulant_precision()[:, 0]
    weight = model.noise.weight[:, 0]
    local = weight / model.mean_weight()[:, 0].clamp_min(1e-30)
    full = model.from_detector(local, shape)
    draws = x.shape[1]
    coverage = _filtered(full, _blur(shape, SCALES_PIX[-1], x.device)).clamp_min(1e-6)
    weights, amplitudes = [], []
    for band, scale in zip(_bands(shape, x.device), (*SCALES_PIX[1:], None), strict=True):
        nearby = _blur(shape, scale or SCALES_PIX[-1], x.device)
        variance = _filtered(
            torch.fft.irfft2(deviation * band, s=shape).square().sum(1) / (draws - 1), nearby
        )
        energy = torch.fft.irfft2(centre * band, s=shape).square()
        if scale is not None:  # a band oscillates; the smooth light that is left is local as it is
            energy = _filtered(energy, nearby).clamp_min(0)
        power = band.square()
        precision = (information * power).sum((-1, -2), keepdim=True) / power.sum().clamp_min(1e-30)
        half_plane = 2 * power.sum() / (shape[0] * shape[1])
        data_variance = half_plane / (precision * coverage).clamp_min(1e-30)
        narrow = (1 - variance / data_variance).clamp(0, 1)
        weights.append(torch.minimum(narrow, data_variance / (energy + data_variance)))
        amplitudes.append(energy.sqrt())
    total = sum(amplitudes).clamp_min(1e-30)
    driven = sum(w * a for w, a in zip(weights, amplitudes, strict=True)) / total
    flux = model.crop(mean).clamp_min(0)
    share = (flux * (model.crop(driven) > 0.5)).sum((-1, -2)) / flux.sum((-1, -2)).clamp_min(1e-30)
    return driven, share


def _filtered(image: Tensor, transfer: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=image.shape[-2:])


def _blur(shape: tuple[int, int], sigma: float, device: torch.device) -> Tensor:
    """Half spectrum of a Gaussian sampled in pixels: one cut off at the Nyquist frequency would ring along
    rows and columns."""
    if sigma == 0:
        return torch.ones(shape[0], shape[1] // 2 + 1, device=device)
    kernels = [np.exp(-0.5 * (np.fft.fftfreq(n) * n / sigma) ** 2) for n in shape]
    y, x = (np.fft.fft(k / k.sum()).real for k in kernels)
    return torch.as_tensor(y[:, None] * x[None, : shape[1] // 2 + 1], dtype=torch.float32, device=device)


SIGNIFICANT = 5.0  # standard deviations
BROKEN_SHARE = 0.25  # of the peak: 599 simulated and 78 real truths have at most 0.21 (docs/decisions/0025)
FLUX_TOLERANCE = 0.05
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def sharper_than_resolution(
    mean: torch.Tensor, std: torch.Tensor, fwhm_pix: float, own: torch.Tensor | None = None
) -> torch.Tensor:
    """(b, c): by how much the mean (b, c, H, W) is brighter somewhere than light at this resolution can be,
    ``SIGNIFICANT`` times its ``std`` taken off, as a share of its peak; 0 where nowhere. ``own``
    (b, c, H, W): 0 on pixels that do not count, 1 on others."""
    variance = (fwhm_pix / 2.3548200450309493) ** 2
    centre, spread = mean[..., 1:-1, 1:-1], std[..., 1:-1, 1:-1]
    counts = 1.0 if own is None else own[..., 1:-1, 1:-1]
    height, width = centre.shape[-2:]
    worst = torch.zeros_like(mean[..., 0, 0])
    for y, x in _STEPS:
        before = mean[..., 1 - y : 1 - y + height, 1 - x : 1 - x + width].clamp_min(0)
        after = mean[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width].clamp_min(0)
        most = (before * after).sqrt() * float(np.exp((y * y + x * x) / (2 * variance)))
        worst = torch.maximum(worst, ((centre - most - SIGNIFICANT * spread) * counts).amax((-1, -2)))
    return worst / (mean if own is None else mean * own).amax((-1, -2)).clamp_min(1e-30)


def flux_differs(model: Likelihood, data: Tensor, seen: Tensor, source: Tensor | None = None) -> np.ndarray:
    """(b, c) whether the flux of the pixels where the mean of draws shows light, as the telescope would see
    them (``seen``, (b, k, c, h, w)), differs from that mean's by more than ``FLUX_TOLERANCE`` of it and
    ``SIGNIFICANT`` standard deviations of the noise; ``source`` (b, 1, c, h, w) bool: only there."""
    image = torch.nan_to_num(seen.nanmean(1, keepdim=True))
    weight = model.noise.weight
    used = footprint_of(model, image, source) * (weight > 0)
    light = (image * used).sum((-1, -2))
    difference = ((data - image) * used).sum((-1, -2)).abs()
    variance = (used / weight.clamp_min(1e-30)).sum((-1, -2))
    variance = variance * model.noise.sum_inflation
    found = (difference > SIGNIFICANT * variance.sqrt()) & (difference > FLUX_TOLERANCE * light)
    return (found & (light > SIGNIFICANT * variance.sqrt()))[:, 0].cpu().numpy()
