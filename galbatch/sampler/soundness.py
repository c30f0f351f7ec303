"""Can a reconstruction be an image at its resolution, and does it hold the flux of the data?

**Sharper than the resolution.** An image of non-negative light seen with a Gaussian PSF is a sum of
Gaussians, so that its logarithm is nowhere more concave than that of one: with m(x +- d) at distance d,

    m(x)^2 <= m(x - d) m(x + d) exp(d^2 / s^2),    s = FWHM / 2.355.

Stripes, checkerboards and negative pixels in a bright core break this; no galaxy and no star does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from galbatch.sampler.diagnostics import footprint_of

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.forward.operator import ForwardModel


SIGNIFICANT = 5.0  # standard deviations
BROKEN_SHARE = 0.1  # of the peak
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


def broken_draws(x: torch.Tensor, fwhm_pix: float) -> torch.Tensor:
    """(b, k) which of the draws (b, k, c, H, W) are sharper than light at this resolution can be, by more
    than ``BROKEN_SHARE`` of their peak in a band."""
    each = torch.nan_to_num(x).flatten(0, 1)
    found = sharper_than_resolution(each, torch.zeros_like(each), fwhm_pix) > BROKEN_SHARE
    return found.any(-1).view(x.shape[:2])


def flux_differs(model: ForwardModel, data: Tensor, mean: Tensor, source: Tensor | None = None) -> np.ndarray:
    """(b, c) whether the flux of the pixels where the model shows light differs from the model's through the
    PSF by more than ``FLUX_TOLERANCE`` of it and ``SIGNIFICANT`` standard deviations of the noise;
    ``source`` (b, 1, c, h, w) bool: only there."""
    image = model.apply(mean[:, None])
    weight = model.noise.weight
    used = footprint_of(model, image, source) * (weight > 0)
    light = (image * used).sum((-1, -2))
    difference = ((data - image) * used).sum((-1, -2)).abs()
    variance = (used / weight.clamp_min(1e-30)).sum((-1, -2))
    variance = variance * model.noise.sum_inflation
    found = (difference > SIGNIFICANT * variance.sqrt()) & (difference > FLUX_TOLERANCE * light)
    return (found & (light > SIGNIFICANT * variance.sqrt()))[:, 0].cpu().numpy()
