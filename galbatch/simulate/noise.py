"""Noise of a drizzled mosaic: sky and source variance, and correlation between neighbouring pixels.

A unit-variance white field is convolved with a small separable kernel, normalised so that the variance stays
1, and multiplied by the sigma map: a stationary autocorrelation modulated by the noise map.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import convolve1d

from galbatch.errors import InputError


def drizzle_kernel(lag_one: float) -> np.ndarray:
    """The 1-d kernel [a, 1, a] / norm whose output has autocorrelation ``lag_one`` between neighbours.

    With a = (1 - sqrt(1 - 2 L^2)) / (2 L), 2 a / (1 + 2 a^2) = L. Raises ``InputError`` outside [0, 0.66].
    """
    if not 0.0 <= lag_one <= 0.66:
        raise InputError(f"noise autocorrelation {lag_one} at lag 1: give a value from 0 to 0.66.")
    a = (1.0 - math.sqrt(1.0 - 2.0 * lag_one**2)) / (2.0 * lag_one) if lag_one > 0 else 0.0
    return np.array([a, 1.0, a]) / math.sqrt(1.0 + 2.0 * a * a)


def correlated_noise(rng: np.random.Generator, shape: tuple[int, int], lag_one: float) -> np.ndarray:
    """Unit-variance Gaussian noise (h, w) float64 whose neighbours correlate by ``lag_one``."""
    kernel = drizzle_kernel(lag_one)
    white = rng.standard_normal((shape[0] + 2, shape[1] + 2))
    field = convolve1d(convolve1d(white, kernel, axis=0), kernel, axis=1)
    return np.asarray(field[1:-1, 1:-1])


def sigma_map(sky_sigma: np.ndarray, signal: np.ndarray, njy_per_electron: float) -> np.ndarray:
    """Standard deviation per pixel: sky, and Poisson noise of the noise-free ``signal`` (nJy per pixel)."""
    return np.asarray(np.sqrt(sky_sigma**2 + njy_per_electron * np.clip(signal, 0.0, None)))


def depth_map(shape: tuple[int, int], sky_sigma: float, step: float, gradient: float) -> np.ndarray:
    """Sky noise of two overlapping exposures: deep at the left, ``step`` times noisier at the right.

    The border is slanted, and the noise grows by ``gradient`` (a fraction) from bottom to top.
    """
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array([shape[0] - 1, shape[1] - 1])[:, None, None]
    shallow = x > 0.62 - 0.12 * y
    return np.asarray(sky_sigma * np.where(shallow, step, 1.0) * (1.0 + gradient * y))
