"""Approximate inverse of 1/v + W Q W, Q = A^T N^-1 A, for conjugate gradients, at one pair of transforms.

With one weight s for all pixels the operator is diagonal in Fourier space: C = 1/v + s Q_0, Q_0 the
stationary part of Q. Here s = W^2 p / p_0 differs from pixel to pixel, by a thousand and more: the envelope W
falls from the core to the sky, and a bright galaxy's own noise makes the precision p of its core much lower
than the sky's. C^-1/2 2 / (1 + s / s_0) C^-1/2, with C at s_0, the geometric mean of the extremes, is right
there, and falls with s as the inverse does (docs/decisions/0011).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from galbatch.forward import ForwardModel
from galbatch.sampler.covariance import inverse_root, times, transposed, with_diagonal

if TYPE_CHECKING:
    from torch import Tensor


NEARBY_PIX = 3.0  # standard deviation of the neighbourhood that a local precision is the mean of, fine pixels


def relative_precision(model: ForwardModel) -> torch.Tensor:
    """(b, 1, c, H, W): mean of 1 / sigma^2 over the valid pixels nearby, over that of the stamp; the largest
    where there are none."""
    weight = model.noise.weight
    seen = _nearby(model.from_detector((weight > 0).float(), model.fine))
    mean = _nearby(model.from_detector(weight, model.fine)) / seen.clamp_min(1e-9)
    highest = mean.where(seen > 0.5, 0).amax((-1, -2), keepdim=True)
    local = torch.minimum(mean, highest).where(seen > 0.02, highest)
    return local.clamp_min(1e-30) / model.mean_weight().clamp_min(1e-30)


class Preconditioner:
    def __init__(self, model: ForwardModel) -> None:
        self.grid = model.fine
        self.precision, self.local = model.circulant_precision(), relative_precision(model)

    def inverse_of(
        self, inverse: torch.Tensor, window: torch.Tensor | None = None
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """The approximate inverse for this 1/v and W, from half spectra to half spectra."""
        weight = self.local if window is None else window.square() * self.local
        middle = (weight.amin((-1, -2), keepdim=True) * weight.amax((-1, -2), keepdim=True)).sqrt()
        root, gain = inverse_root(with_diagonal(inverse, middle * self.precision)), 2 / (1 + weight / middle)
        back = transposed(root)
        return lambda r: times(back, torch.fft.rfft2(gain * torch.fft.irfft2(times(root, r), s=self.grid)))


def _nearby(image: Tensor) -> Tensor:
    """Mean with Gaussian weights, on a periodic grid."""
    y, x = (
        torch.exp(-0.5 * (torch.fft.fftfreq(n, device=image.device) * n / NEARBY_PIX) ** 2)
        for n in image.shape[-2:]
    )
    kernel = torch.fft.rfft2((y / y.sum())[:, None] * (x / x.sum()))
    return torch.fft.irfft2(torch.fft.rfft2(image) * kernel, s=image.shape[-2:])
