"""Stamps of a band whose pixel scale is no integer multiple of the finest band's, brought to one by area
overlap.

A target pixel gathers the flux of the pixels that it overlaps (drizzling with pixfrac 1, Fruchter & Hook
2002): flux is conserved, the variance is ``sum w^2 var`` and what the correlation of the input adds, a target
pixel is bad when any of it comes from a bad pixel. Output pixels share input pixels: their noise is
correlated, also where that of the input is not.
"""

from __future__ import annotations

import numpy as np

from galbatch.cutouts.noise import positive_definite


def overlap(n_out: int, n_in: int, step: float) -> np.ndarray:
    """(n_out, n_in) overlap, in input pixels, of output pixels ``step`` wide; the centres of pixels n // 2
    coincide."""
    low_out = (np.arange(n_out) - n_out // 2 - 0.5) * step
    low_in = np.arange(n_in) - n_in // 2 - 0.5
    low = np.maximum(low_out[:, None], low_in[None, :])
    high = np.minimum(low_out[:, None] + step, low_in[None, :] + 1.0)
    return np.clip(high - low, 0.0, None)


def input_size(n_out: int, step: float) -> int:
    """How many input pixels cover ``n_out`` output pixels, with one to spare on each side."""
    return 2 * int(np.ceil((n_out // 2 + 1) * step)) + 3


def resample_stamps(
    data: np.ndarray, var: np.ndarray, bad: np.ndarray, h: int, w: int, step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, hi, wi) data, variance and bad pixels to (n, h, w)."""
    wy, wx = overlap(h, data.shape[1], step), overlap(w, data.shape[2], step)

    def apply(a: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.einsum("ij,njk,lk->nil", y, a, x, optimize=True)

    touched = apply(bad.astype(np.float64), wy, wx) > 1e-9
    out = apply(np.where(bad, 0.0, data).astype(np.float64), wy, wx)
    spread = apply(np.where(bad, 0.0, var), wy**2, wx**2)
    return (np.where(touched, np.nan, out).astype(np.float32), np.where(touched, np.inf, spread), touched)


def resample_acf(acf: np.ndarray | None, step: float, lags: int = 7) -> tuple[np.ndarray, float]:
    """Of noise with autocorrelation ``acf`` (r, r) in input pixels (None: white) after ``resample_stamps``:
    its autocorrelation (lags, lags) in output pixels, the mean over their positions, and the factor by which
    its variance exceeds ``sum w^2 var``."""
    r = np.ones((1, 1)) if acf is None else np.asarray(acf, np.float64)
    reach, half = r.shape[0] // 2, lags // 2
    n = 40 + 2 * half
    weight = overlap(n, input_size(n, step), step)
    middle = weight[half : n - half]
    pairs = np.zeros((lags, 2 * reach + 1))  # mean over i of sum_j w(i, j) w(i + m, j + l)
    for m in range(lags):
        shifted = weight[m : m + len(middle)]
        for k in range(-reach, reach + 1):
            pairs[m, k + reach] = np.mean(np.sum(middle * np.roll(shifted, -k, axis=1), axis=1))
    covariance = pairs @ r @ pairs.T
    variance = covariance[half, half]
    white = pairs[half, reach] ** 2
    return positive_definite(covariance / variance), float(variance / white)


def resample_labels(labels: np.ndarray, h: int, w: int, step: float) -> np.ndarray:
    """(n, hi, wi) integers to (n, h, w) by the nearest pixel."""

    def index(n_out: int, n_in: int) -> np.ndarray:
        return np.clip(np.rint((np.arange(n_out) - n_out // 2) * step).astype(int) + n_in // 2, 0, n_in - 1)

    return labels[:, index(h, labels.shape[1])[:, None], index(w, labels.shape[2])[None, :]]


def resample_psf(psf: np.ndarray, step: float) -> np.ndarray:
    """(p, p) PSF at the input scale to (q, q), q odd, at the output scale; its sum is kept."""
    p = psf.shape[0]
    q = 2 * int(np.floor((p // 2) / step)) + 1
    weight = overlap(q, p, step)
    out = weight @ psf.astype(np.float64) @ weight.T
    return (out * (psf.sum() / out.sum())).astype(np.float32)
