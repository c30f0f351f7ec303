"""Compact light that an image leaves in the data: the matched filter of the smallest feature a prior knows,
a point at its resolution.

With the gradient of the log-likelihood, g = A^T N^-1 (y - A x), a feature of shape b at a place has the
amplitude b.g / b.Qb, Q = A^T N^-1 A, and the significance b.g / sqrt(b.Qb), of variance one where x is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from galbatch.forward import ForwardModel, target_transfer
from galbatch.sampler.spectra import parseval

if TYPE_CHECKING:
    from torch import Tensor


LEAST_COVERAGE = 0.5  # of the pixels under a feature: a place that is masked or off the stamp says nothing


class CompactFilter:
    """For one observation. ``fwhm_pix``: of the feature, in fine pixels."""

    def __init__(self, model: ForwardModel, fwhm_pix: float) -> None:
        self.shape = model.fine
        device, sums = model.otf_fine.device, parseval(model.fine, model.otf_fine.device)
        self.transfer = torch.as_tensor(
            target_transfer(fwhm_pix, self.shape), dtype=torch.float32, device=device
        )
        self.height = float((self.transfer * sums).sum())
        information = (model.circulant_precision() * self.transfer.square() * sums).sum(
            (-1, -2), keepdim=True
        )
        # b.Qb follows the weights under the feature as the telescope sees it: exact for white noise
        seen_as = torch.fft.irfft2(model.otf_fine * self.transfer, s=self.shape).square()
        seen_as = torch.fft.rfft2(seen_as / seen_as.sum((-1, -2), keepdim=True)).conj()

        def under(image: Tensor) -> Tensor:
            """Mean (b, 1, c, H, W) of a detector image under a feature at each place."""
            spectrum = torch.fft.rfft2(model.from_detector(image, self.shape))
            return torch.fft.irfft2(spectrum * seen_as, s=self.shape)

        weight = model.noise.weight
        self.seen = under((weight > 0).to(weight.dtype)) > LEAST_COVERAGE
        weight = under(weight / model.mean_weight().clamp_min(1e-30))
        self.information = (information * weight.clamp_min(1e-9)).clamp_min(1e-30)  # a band without pixels

    def __call__(self, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Significance and height (b, k, c, H, W) from ``gradient``, of the same shape."""
        matched = torch.fft.irfft2(torch.fft.rfft2(gradient) * self.transfer, s=self.shape)
        matched = matched.where(self.seen, 0)
        return matched / self.information.sqrt(), matched / self.information * self.height
