"""The flux scale of a source: the convention 'psf_peak' that the prior was trained with.

S = max over the central half of the stamp of (h . (w y)) / (h . w), with h the PSF of unit sum, w = 1 / sigma^2 (zero
where masked) and '.' a correlation: the peak of the PSF-weighted mean surface brightness. It is floored at
``FLOOR`` times its own noise, sqrt(h^2 . w) / (h . w), so that an empty stamp has a scale too.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from galbatch.forward.psf import transfer
from galbatch.types import Observation

FLOOR = 3.0


def psf_peak_scale(obs: Observation, oversample: int = 1) -> np.ndarray:
    """Flux scale (b, c) per fine pixel, in the unit of the data; NaN where no central pixel is valid."""
    b, c, h, w = obs.data.shape
    valid = obs.valid
    weight = np.where(valid, 1 / np.where(valid, obs.sigma, 1).astype(np.float64) ** 2, 0)
    weighted = weight * np.where(valid, obs.data, 0)
    step = obs.psf_scale_arcsec or obs.pixel_scale_arcsec
    grid = tuple(next_fast_len(2 * n, real=True) for n in (h, w))
    otf = transfer(obs.psf.reshape(b * c, *obs.psf.shape[2:]).astype(np.float64), step, obs.pixel_scale_arcsec, grid)
    otf = otf.reshape(b, c, *otf.shape[1:])
    kernel = irfft2(otf / otf[..., :1, :1].real, s=grid).clip(min=0)
    kernel /= kernel.sum((-1, -2), keepdims=True)

    def correlate(u, k):
        return irfft2(rfft2(u, s=grid) * np.conj(rfft2(k)), s=grid)[..., :h, :w]

    total = correlate(weight, kernel)
    usable = total > 1e-6 * weight.max((-1, -2), keepdims=True).clip(min=1e-300)
    total = np.where(usable, total, 1)
    signal = np.where(usable, correlate(weighted, kernel) / total, -np.inf)
    noise = np.sqrt(correlate(weight, kernel**2).clip(min=0)) / total
    centre = (..., slice(h // 4, h - h // 4), slice(w // 4, w - w // 4))
    signal, noise = signal[centre].reshape(b, c, -1), noise[centre].reshape(b, c, -1)
    best = signal.argmax(-1)[..., None]
    peak = np.take_along_axis(signal, best, -1)[..., 0]
    floor = FLOOR * np.take_along_axis(noise, best, -1)[..., 0]
    scale = np.maximum(peak, floor)
    return np.where(np.isfinite(peak) & (scale > 0), scale, np.nan) / oversample**2
