"""Approximate inverse of 1/v + A^T N^-1 A, for conjugate gradients.

With one precision for all pixels the operator is diagonal in Fourier space. A bright galaxy's own noise makes
the precision of its core a hundred or a thousand times lower than that of the sky, and the solve slow. So the
image is cut by windows, a partition of unity by the local precision, and each part sees the operator of its
own level: sum_j w_j (1/v + Q_j)^-1 w_j, sum_j w_j^2 = 1 (positive definite).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from galbatch.forward import ForwardModel

NEARBY_PIX = 3.0  # standard deviation of the neighbourhood that a local precision is the mean of, fine pixels
LEVEL_RATIO = 30.0  # of the precisions of two levels
UNIFORM = 10.0  # range of local precisions that one level serves
MOST_LEVELS = 4


def local_precision(model: ForwardModel) -> torch.Tensor:
    """(b, 1, c, H, W): mean of 1 / sigma^2 over the valid pixels nearby, the largest where there are none."""
    weight = model.noise.weight
    seen = _nearby(model.from_detector((weight > 0).float(), model.fine))
    mean = _nearby(model.from_detector(weight, model.fine)) / seen.clamp_min(1e-9)
    highest = mean.where(seen > 0.5, 0).amax((-1, -2), keepdim=True)
    return torch.minimum(mean, highest).where(seen > 0.02, highest).clamp_min(1e-30)


def count_levels(local: torch.Tensor) -> torch.Tensor:
    """(b,) levels that each source's ``local_precision`` asks for."""
    span = (local.amax((-1, -2)) / local.amin((-1, -2))).amax((1, 2))
    levels = 1 + torch.ceil(span.log() / math.log(LEVEL_RATIO))
    return torch.where(span < UNIFORM, 1, levels.clamp(max=MOST_LEVELS)).long()


class Preconditioner:
    """``levels``: how many levels of precision to tell apart, the same for all sources."""

    def __init__(self, model: ForwardModel, levels: int = 1):
        self.grid = model.fine
        if levels == 1:
            self.windows, self.precisions = None, [model.circulant_precision()]
            return
        local = local_precision(model).log()
        low, high = local.amin((-1, -2), keepdim=True), local.amax((-1, -2), keepdim=True)
        place = (local - low) / (high - low).clamp_min(1e-6) * (levels - 1)
        shares = [(1 - (place - j).abs()).clamp_min(0) for j in range(levels)]
        self.windows = [share.sqrt() for share in shares]
        correlated, white = (model.from_detector(part, model.fine) for part in model.noise.precisions)
        self.precisions = []
        for j, share in enumerate(shares):
            level = torch.exp(low + (high - low) * j / (levels - 1))
            a, b = ((share * part).sum((-1, -2), keepdim=True) for part in (correlated, white))
            total = (a + b).clamp_min(1e-30)
            self.precisions.append(model.stationary_precision(level * a / total, level * b / total))

    def inverse_of(self, inverse: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """The approximate inverse for this 1/v, from half spectra to half spectra."""
        gains = [1 / (inverse + precision) for precision in self.precisions]
        if self.windows is None:
            return lambda r: r * gains[0]
        return lambda r: self._windowed(gains, r)

    def _windowed(self, gains, r):
        image = torch.fft.irfft2(r, s=self.grid)
        parts = (
            window * torch.fft.irfft2(torch.fft.rfft2(window * image) * gain, s=self.grid)
            for window, gain in zip(self.windows, gains, strict=True)
        )
        return torch.fft.rfft2(sum(parts))


def _nearby(image):
    """Mean with Gaussian weights, on a periodic grid."""
    y, x = (
        torch.exp(-0.5 * (torch.fft.fftfreq(n, device=image.device) * n / NEARBY_PIX) ** 2)
        for n in image.shape[-2:]
    )
    kernel = torch.fft.rfft2((y / y.sum())[:, None] * (x / x.sum()))
    return torch.fft.irfft2(torch.fft.rfft2(image) * kernel, s=image.shape[-2:])
