"""Errors that no error map holds, independent from pixel to pixel: in proportion to the light (flat fields,
say), or what resampling of undersampled exposures leaves, in proportion to how much the light changes between
neighbouring pixels.

The second is measured. No light of a source can vary faster than its PSF lets pass. Where the transfer
function is below ``PASSES``, the data hold errors alone: their scatter in a source, over that of the noise
map (calibrated on the stamp's own faint pixels), says how large they are. What is wrong at the frequencies of
the source itself (a PSF too broad, say) cannot be seen this way, and shows in chi2.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

PASSES = 5e-3  # of the light
MIN_BEYOND = 0.05  # share of the frequencies of the stamp that must be free of light
BRIGHT_SIGMA, FAINT_SIGMA = 20.0, 2.0
MIN_BRIGHT, MIN_FAINT = 12, 100
MEDIAN_OF_CHI2 = 0.455  # of one degree of freedom
SIGNIFICANT = 4.0  # standard deviations of the scatter
LARGEST = 1.0


def floor_variance(
    setting: float | str, data: np.ndarray, var: np.ndarray, bad: np.ndarray, psf: np.ndarray, psf_step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Variance (n, h, w) of these errors, and their rms over the light of the bright pixels (n,), as a
    fraction.

    ``setting``: the fraction of the light, or "measure". ``data``, ``var`` (n, h, w), ``bad`` pixels
    unusable; ``psf`` (n, p, p) with ``psf_step`` pixels of the data to a pixel of the PSF.
    """
    out, floor = np.zeros(data.shape), np.zeros(len(data))
    with np.errstate(invalid="ignore"):
        bright = ~bad & (data > BRIGHT_SIGMA * np.sqrt(var))
    for i in np.nonzero(bright.sum((1, 2)) >= (MIN_BRIGHT if setting == "measure" else 0))[0]:
        clean = np.where(bad[i] | ~np.isfinite(data[i]), 0, data[i]).astype(np.float64)
        light = ndimage.uniform_filter(clean, 3).clip(min=0)
        if setting == "measure":
            change = _change(clean, np.where(bad[i], 0, var[i]))
            share = measure_share(
                clean, var[i], bad[i], light, change, beyond(psf[i], psf_step, data.shape[1:])
            )
            out[i] = (share * change) ** 2
            floor[i] = np.sqrt(out[i][bright[i]].sum() / (light[bright[i]] ** 2).sum())
        else:
            out[i], floor[i] = (setting * light) ** 2, setting
    return out, floor


def _change(data: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Standard deviation of the light over 3 x 3 pixels, the noise taken off."""
    mean = ndimage.uniform_filter(data, 3)
    return np.sqrt(
        (ndimage.uniform_filter(data**2, 3) - mean**2 - ndimage.uniform_filter(var, 3)).clip(min=0)
    )


def beyond(psf: np.ndarray, psf_step: float, shape: tuple[int, int]) -> np.ndarray:
    """(h, w // 2 + 1) bool: frequencies of a stamp that neither the PSF (p, p) nor its aliases let pass."""
    p = np.arange(psf.shape[0])
    axes = []
    for f in (np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])):
        aliases = (f[None] + np.array([0.0, -1.0, 1.0])[:, None]) if psf_step < 0.99 else f[None]
        axes.append(np.exp(-2j * np.pi * psf_step * aliases[..., None] * p))
    passed = np.abs(np.einsum("afp,pq,bgq->abfg", axes[0], psf, axes[1], optimize=True)).sum((0, 1))
    return passed < PASSES * max(psf.sum(), 1e-30)


def measure_share(
    data: np.ndarray,
    var: np.ndarray,
    bad: np.ndarray,
    light: np.ndarray,
    change: np.ndarray,
    free: np.ndarray,
) -> float:
    """Errors of one stamp (h, w) in units of ``change``; zero where the scatter does not ask for any, or
    cannot be measured."""
    h, w = data.shape
    kernel = fft.irfft2(free.astype(float), s=(h, w)) ** 2
    share = kernel.sum()  # of the power of white noise that is left
    if share < MIN_BEYOND:
        return 0.0

    def spread(u: np.ndarray) -> np.ndarray:
        return fft.irfft2(fft.rfft2(u) * fft.rfft2(kernel), s=(h, w)).clip(min=1e-30)

    window = np.outer(_taper(h), _taper(w))
    usable = ~bad & np.isfinite(var)
    scatter = fft.irfft2(fft.rfft2(_patched(data, bad) * window) * free, s=(h, w)) ** 2
    noise = spread(np.where(usable, var, np.median(var[usable])) * window**2)
    unit = spread((change * window) ** 2)
    inside = (window > 0.9) & ~ndimage.binary_dilation(bad, iterations=2)
    sn = light / np.sqrt(np.where(usable, var, np.inf))
    bright, faint = inside & (sn > BRIGHT_SIGMA), inside & (np.abs(sn) < FAINT_SIGMA)
    if bright.sum() < MIN_BRIGHT:
        return 0.0
    if faint.sum() >= MIN_FAINT:
        noise *= np.median(scatter[faint] / noise[faint]) / MEDIAN_OF_CHI2
    scatter, noise, unit = scatter[bright], noise[bright], unit[bright]
    if (scatter / noise).mean() < 1 + SIGNIFICANT * np.sqrt(2 / max(bright.sum() * share, 1)):
        return 0.0
    low, high = 0.0, LARGEST
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if (scatter / (noise + middle**2 * unit)).mean() > 1 else (low, middle)
    return (low + high) / 2


def _taper(n: int) -> np.ndarray:
    """One in the middle, falling to zero over an eighth at each end."""
    edge = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / (n / 8)
    return np.sin(0.5 * np.pi * edge.clip(max=1)) ** 2


def _patched(data: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Bad pixels replaced by the mean of their good neighbours."""
    if not bad.any():
        return data
    good = (~bad).astype(np.float32)
    near = ndimage.gaussian_filter(data * good, 1.0) / ndimage.gaussian_filter(good, 1.0).clip(min=1e-3)
    return np.where(bad, near, data)
