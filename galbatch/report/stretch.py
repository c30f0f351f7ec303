"""The asinh stretch that all pictures of one source share (Lupton et al. 2004, PASP 116, 133).

``v`` is a surface brightness, ``a`` the softening: below ``a`` the stretch is linear, above it logarithmic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stretch:
    """Maps surface brightness to 0..1 through asinh; one for all panels, so that greys can be compared."""

    vmin: float
    vmax: float
    softening: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(...) surface brightness to (...) between 0 and 1, clipped; NaN stays NaN."""
        low, high = np.arcsinh(self.vmin / self.softening), np.arcsinh(self.vmax / self.softening)
        return np.clip((np.arcsinh(np.asarray(values) / self.softening) - low) / (high - low), 0.0, 1.0)

    def ticks(self) -> np.ndarray:
        """Round values to label on a colour bar: 0 and 1, 3, 10, 30, ... within the range."""
        exponents = np.arange(np.floor(np.log10(self.softening)), np.ceil(np.log10(self.vmax)) + 1)
        decades = np.sort(np.concatenate([10.0**exponents, 3 * 10.0**exponents]))
        decades = decades[(decades > self.softening) & (decades <= self.vmax)]
        return np.concatenate([[0.0], decades[decades == decades[-1]] if len(decades) < 2 else decades])


def shared_stretch(observed: np.ndarray, sigma: np.ndarray, mean: np.ndarray) -> Stretch:
    """The stretch of one source: black at -1.5 sigma of the sky, white at its brightest, soft at 2 sigma.

    ``observed``, ``sigma`` (h, w) and ``mean`` (H, W): surface brightness in one unit; masked pixels are NaN.
    """
    noise = sigma[np.isfinite(sigma) & (sigma > 0)]
    sky = float(np.median(noise)) if noise.size else 0.0
    values = np.concatenate([observed[np.isfinite(observed)], mean[np.isfinite(mean)]])
    peak = float(np.quantile(values, 0.9995)) if values.size else 1.0
    if sky <= 0:
        sky = max(abs(peak), 1e-30) / 100
    return Stretch(vmin=-1.5 * sky, vmax=max(peak, 5 * sky), softening=2 * sky)
