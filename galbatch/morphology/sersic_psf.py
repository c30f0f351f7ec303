"""The Sersic fit of observed stamps: the model is convolved with the PSF of each source.

Starts where the fit without a PSF ended. All sources of a batch take their steps together, so that the
convolutions are batches of FFTs; each source keeps its own damping and stops by itself, and
its result does not depend on its company.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import fft
from scipy.ndimage import map_coordinates

from galbatch.morphology.flags import MorphFlag

_PIECE = 16


def refit(
    first: np.ndarray, flags: np.ndarray, images: np.ndarray, maps: tuple[np.ndarray, ...], psf: np.ndarray
) -> None:
    """Replace the Sersic columns of ``first`` (n, 10) (pixels, order of the registry) and their bits in
    ``flags``.

    ``images`` (n, H, W); ``maps`` = (seg, seg_of, bad, bad_of, sigma, sigma_of); ``psf`` (n, p, p), any norm,
    its centre at (p - 1) / 2. Sources whose fit without PSF did not begin are left alone.
    """
    fitted = np.flatnonzero(
        np.isfinite(first[:, 0]) & np.isfinite(psf).all(axis=(1, 2)) & (psf.sum(axis=(1, 2)) > 0)
    )
    seg, seg_of, bad, bad_of, sigma, sigma_of = maps
    for k in range(0, fitted.size, _PIECE):
        part = fitted[k : k + _PIECE]
        data = np.ascontiguousarray(images[part], dtype=np.float64)
        weight = _weights(data, seg[seg_of[part]], bad[bad_of[part]], sigma[sigma_of[part]])
        data = np.where(weight > 0, data, 0.0)
        first[part], bits = _fit_piece(first[part], data, weight, psf[part], np.isfinite(first[part, 7]))
        flags[part] = (flags[part] & ~_bits("SERSIC_NOT_CONVERGED", "SERSIC_BOUND")) | bits


def _weights(data: np.ndarray, seg: np.ndarray, bad: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """1 / sigma on the pixels that enter the fit, as ``kernels.sersic.weights`` has it; all (n, H, W)."""
    known = np.isfinite(sigma).any(axis=(1, 2), keepdims=True)
    sigma = np.where(known, np.abs(sigma), 1.0)
    good = np.isfinite(data) & (data != 0) & ~bad & ((seg == 0) | (seg == 1))
    use = good & np.isfinite(sigma) & (sigma > 0)
    return np.divide(1.0, sigma, out=np.zeros(data.shape), where=use)


def psf_on_grid(psf: np.ndarray, psf_scale_arcsec: float, pixel_scale_arcsec: float) -> np.ndarray:
    """``psf`` (n, p, p), centre at (p - 1) / 2, summed into pixels of ``pixel_scale_arcsec``.

    Where the scales have no whole ratio it is first interpolated (cubic) to the next finer scale that has
    one.
    """
    ratio = pixel_scale_arcsec / psf_scale_arcsec
    r = max(math.ceil(ratio - 0.01), 1)
    if abs(ratio - r) > 0.01 * r:
        psf = _interpolated(psf, ratio / r)
    return _binned(psf, r) if r > 1 else psf


def _interpolated(psf: np.ndarray, step: float) -> np.ndarray:
    """``psf`` sampled every ``step`` of its own pixels about its centre, on an odd grid."""
    p = psf.shape[-1]
    half = math.floor((p - 1) / 2 / step)
    at = (p - 1) / 2 + step * np.arange(-half, half + 1)
    rows, columns = np.meshgrid(at, at, indexing="ij")
    return np.stack([map_coordinates(image, (rows, columns), order=3, mode="constant") for image in psf])


def _binned(psf: np.ndarray, r: int) -> np.ndarray:
    """Sums over r x r samples, the centre of ``psf`` at the centre of a pixel of the odd result."""
    p = psf.shape[-1]
    if (p - r) % 2:  # the centre would be between two samples: share each sample with its neighbours
        wide = np.pad(psf, ((0, 0), (0, 1), (0, 1)))
        psf = 0.25 * (wide + np.roll(wide, 1, 1) + np.roll(wide, 1, 2) + np.roll(wide, (1, 1), (1, 2)))
        p += 1
    n = -(-p // r)
    n += 1 - n % 2
    edge = (n * r - p) // 2
    padded = np.pad(psf, ((0, 0), (edge, edge), (edge, edge)))
    return padded.reshape(len(psf), n, r, n, r).sum(axis=(2, 4))


def _bits(*names: str) -> np.int64:
    return np.int64(sum(int(MorphFlag[name]) for name in names))


def _fit_piece(
    first: np.ndarray, data: np.ndarray, weight: np.ndarray, psf: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    from galbatch.morphology.kernels.sersic import MAX_STEPS
    from galbatch.morphology.kernels.sersic_steps import assess_models, propose_models

    n, ny, nx = data.shape
    p = _pack(first)
    trial, normal, gradient = p.copy(), np.zeros((n, 7, 7)), np.zeros((n, 7))
    chi2, damping = np.full(n, np.inf), np.full(n, np.nan)
    hits, status = np.zeros(n, np.int64), np.zeros(n, np.int64)
    convolve = _convolver(psf, ny, nx)
    for _ in range(MAX_STEPS):
        which = np.flatnonzero(status == 0)
        if not which.size:
            break
        images = np.empty((which.size, ny, 8, nx))
        propose_models(which, p, trial, normal, gradient, damping, images)
        images = convolve(images, which)
        assess_models(which, images, data, weight, p, trial, normal, gradient, chi2, damping, hits, status)
    out = _unpack(p, chi2, (weight > 0).sum(axis=(1, 2)), known)
    even = 1 - psf.shape[-1] % 2
    out[:, 5:7] += 0.5 * even  # the convolution centres an even PSF half a pixel low
    bits = np.where(status == 1, 0, _bits("SERSIC_NOT_CONVERGED")) | np.where(
        hits > 0, _bits("SERSIC_BOUND"), 0
    )
    return out, bits


def _convolver(psf: np.ndarray, ny: int, nx: int) -> Callable[..., Any]:
    size = psf.shape[-1]
    shape = (fft.next_fast_len(ny + size - 1, True), fft.next_fast_len(nx + size - 1, True))
    kernel = fft.rfft2(psf / psf.sum(axis=(1, 2), keepdims=True), shape)
    low = (size - 1) // 2

    def convolve(images: np.ndarray, which: np.ndarray) -> np.ndarray:
        stacked = np.ascontiguousarray(images.transpose(0, 2, 1, 3))
        blurred = fft.irfft2(fft.rfft2(stacked, shape) * kernel[which, None], shape)
        return np.ascontiguousarray(blurred[:, :, low : low + ny, low : low + nx].transpose(0, 2, 1, 3))

    return convolve


def _pack(first: np.ndarray) -> np.ndarray:
    n, r_e, e, theta, amplitude, x, y = first[:, :7].T
    e = np.clip(e, 0.0, 0.95)
    shape = (np.log(r_e * np.sqrt(1 - e)), np.log(n), x, y, e * np.cos(2 * theta), e * np.sin(2 * theta))
    return np.ascontiguousarray(np.stack((amplitude, *shape), axis=1))


def _unpack(p: np.ndarray, chi2: np.ndarray, n_pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    e = np.hypot(p[:, 5], p[:, 6])
    out = np.full((len(p), 10), np.nan)
    out[:, 0], out[:, 1], out[:, 2] = np.exp(p[:, 2]), np.exp(p[:, 1]) / np.sqrt(1 - e), e
    out[:, 3] = np.mod(0.5 * np.arctan2(p[:, 6], p[:, 5]), np.pi)
    out[:, 4], out[:, 5], out[:, 6] = p[:, 0], p[:, 3], p[:, 4]
    from galbatch.morphology.kernels.sersic import information_criteria

    for i in np.flatnonzero(known):
        out[i, 7], out[i, 8], out[i, 9] = information_criteria.py_func(  # type: ignore[attr-defined]
            chi2[i], int(n_pixels[i])
        )
    return out
