"""The flux scale of a source: the convention 'smoothed_peak' that the prior was trained with.

S = max over the central half of the stamp of the image smoothed until a point source has a total FWHM of
``SCALE_FWHM_PIX`` fine pixels, masked pixels left out of the mean. A point source has the same S whatever the
PSF (a PSF too broad for that is smoothed with ``LEAST_FWHM_PIX``), so the law of x / S is that of the
galaxies and not of the telescope. S is floored at ``FLOOR`` times its own noise, so that an empty stamp has a
scale too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from galbatch.forward.psf import FWHM_TO_SIGMA, target_transfer, transfer
from galbatch.types import Observation

SCALE_FWHM_PIX = 6.0
LEAST_FWHM_PIX = 2.0
FLOOR = 3.0
HALVINGS = 20


def smoothed_peak_scale(obs: Observation, oversample: int = 1) -> np.ndarray:
    """Flux scale (b, c) per fine pixel, in the unit of the data; NaN where no central pixel is valid."""
    b, c, h, w = obs.data.shape
    valid = obs.valid
    variance = np.where(valid, obs.sigma, 0).astype(np.float64) ** 2
    grid = tuple(next_fast_len(n + 16, real=True) for n in (h, w))
    step = obs.psf_scale_arcsec or obs.pixel_scale_arcsec
    psf = obs.psf.reshape(b * c, *obs.psf.shape[2:]).astype(np.float64)
    otf = transfer(psf, step, obs.pixel_scale_arcsec, grid)
    smoothing = _smoothing(otf / otf[:, :1, :1].real, oversample, grid).reshape(b, c, grid[0], -1)
    kernel = irfft2(smoothing, s=grid)

    def smooth(u: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
        return irfft2(rfft2(u, s=grid) * spectrum, s=grid)[..., :h, :w]

    total = smooth(valid.astype(np.float64), smoothing)
    usable = total > 0.05
    total = np.where(usable, total, 1)
    signal = np.where(usable, smooth(np.where(valid, obs.data, 0), smoothing) / total, -np.inf)
    noise = np.sqrt(smooth(variance, rfft2(kernel**2)).clip(min=0)) / total
    centre = (..., slice(h // 4, h - h // 4), slice(w // 4, w - w // 4))
    signal, noise = signal[centre].reshape(b, c, -1), noise[centre].reshape(b, c, -1)
    best = signal.argmax(-1)[..., None]
    peak = np.take_along_axis(signal, best, -1)[..., 0]
    scale = np.maximum(peak, FLOOR * np.take_along_axis(noise, best, -1)[..., 0])
    return np.where(np.isfinite(peak) & (scale > 0), scale, np.nan) / oversample**2


def between_bands(scale: np.ndarray, there: np.ndarray, wavelengths: Sequence[float]) -> np.ndarray:
    """Scales (b, c) with those that are not ``there`` (b, c) taken from the bands beside them: linear in the
    logarithms of flux and wavelength, constant beyond the last. Sources without any are left as they are."""
    x, out = np.log(np.asarray(wavelengths, float)), np.array(scale, float)
    order = np.argsort(x)
    for i in np.flatnonzero(there.any(1) & ~there.all(1)):
        known = order[there[i, order]]
        out[i, ~there[i]] = np.exp(np.interp(x[~there[i]], x[known], np.log(scale[i, known])))
    return out


def _smoothing(otf: np.ndarray, oversample: int, grid: tuple[int, int]) -> np.ndarray:
    """Transfer functions (n, M, L // 2 + 1) of the Gaussians that bring the peak of each PSF to that of a
    Gaussian of ``SCALE_FWHM_PIX``: by bisection of their FWHM."""
    wanted = target_transfer(SCALE_FWHM_PIX / oversample, grid)
    weight = np.full(wanted.shape[1], 2.0)
    weight[0] = 1
    if grid[1] % 2 == 0:
        weight[-1] = 1
    fy, fx = np.fft.fftfreq(grid[0]), np.fft.rfftfreq(grid[1])
    strength = np.abs(otf) * weight
    goal = (wanted * weight).sum()
    low = np.full(len(otf), LEAST_FWHM_PIX / oversample)
    high = np.full(len(otf), SCALE_FWHM_PIX / oversample)

    def gaussian(fwhm: np.ndarray) -> list[np.ndarray]:
        """Along y (n, M) and along x (n, L // 2 + 1)."""
        variance = (fwhm * FWHM_TO_SIGMA)[:, None] ** 2
        return [np.exp(-2 * np.pi**2 * variance * f**2) for f in (fy, fx)]

    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        along_y, along_x = gaussian(middle)
        sharp = ((strength @ along_x[..., None])[..., 0] * along_y).sum(1) > goal
        low, high = np.where(sharp, middle, low), np.where(sharp, high, middle)
    along_y, along_x = gaussian(high)
    return along_y[:, :, None] * along_x[:, None]
