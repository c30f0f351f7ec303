"""Random structure on maps: Gaussian random fields and star-forming clumps.

All lengths are pixels of the map that is filled; all fields are float32 and dimensionless.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter, map_coordinates


@lru_cache(maxsize=32)
def _wavenumber(n: int, stretch: float) -> np.ndarray:
    """|k| on an n x n rfft grid, the first axis stretched (anisotropic correlation)."""
    ky = np.fft.fftfreq(n)[:, None] * n * stretch
    kx = np.fft.rfftfreq(n)[None, :] * n
    return np.sqrt(ky * ky + kx * kx).astype(np.float32)


def random_field(
    rng: np.random.Generator, n: int, slope: float, k_low: float = 2.0, stretch: float = 1.0
) -> np.ndarray:
    """A periodic Gaussian random field (n, n), zero mean, unit variance.

    The power spectrum is flat below ``k_low`` (cycles per map) and falls as ``k**-slope`` above.
    ``stretch`` > 1 makes the structure shorter along the second axis' normal, i.e. elongated in x.
    """
    k = _wavenumber(n, round(stretch, 1))
    amplitude = (1.0 + (k / k_low) ** 2) ** np.float32(-0.25 * slope)
    amplitude[0, 0] = 0.0
    white = np.fft.rfft2(rng.standard_normal((n, n), dtype=np.float32))
    field = np.fft.irfft2(white * amplitude, s=(n, n))
    return np.asarray(field / field.std(), dtype=np.float32)


def sheared_field(
    rng: np.random.Generator, log_r: np.ndarray, phi: np.ndarray, pitch: float, slope: float
) -> np.ndarray:
    """A random field wound up by differential rotation: elongated along spirals of ``pitch`` (radians).

    ``log_r`` and ``phi`` (radians) give the map's polar coordinates; the field is periodic in phi.
    """
    n = 128
    source = random_field(rng, n, slope, k_low=5.0, stretch=0.4)
    across = phi - log_r / math.tan(pitch)
    row = np.mod(log_r * (n / 6.0), n)
    column = np.mod(across * (n / (2.0 * math.pi)), n)
    return map_coordinates(source, [row, column], order=1, mode="grid-wrap", prefilter=False)


@njit(cache=True, fastmath=True)
def _stamp_blobs(image: np.ndarray, x: np.ndarray, y: np.ndarray, size: np.ndarray, flux: np.ndarray) -> None:
    ny, nx = image.shape
    for i in range(x.shape[0]):
        s = size[i]
        reach = 4.0 * s + 1.0
        x0, x1 = max(0, int(x[i] - reach)), min(nx - 1, int(x[i] + reach) + 1)
        y0, y1 = max(0, int(y[i] - reach)), min(ny - 1, int(y[i] + reach) + 1)
        norm = flux[i] / (2.0 * math.pi * s * s)
        for iy in range(y0, y1 + 1):
            for ix in range(x0, x1 + 1):
                r2 = (ix - x[i]) ** 2 + (iy - y[i]) ** 2
                image[iy, ix] += norm * math.exp(-0.5 * r2 / (s * s))


def clump_map(
    rng: np.random.Generator,
    density: np.ndarray,
    count: int,
    slope: float,
    size_pix: float,
    span: float = 100.0,
) -> np.ndarray:
    """Clumps drawn where ``density`` (n, n) is high, with luminosities dN/dL ~ L**-slope; sums to 1.

    ``span`` is L_max / L_min. Brighter clumps are larger, as L**0.2; ``size_pix`` is the median sigma.
    """
    n = density.shape[1]
    cumulative = np.cumsum(density.ravel(), dtype=np.float64)
    pick = np.searchsorted(cumulative, rng.random(count) * cumulative[-1]).clip(0, density.size - 1)
    x = pick % n + rng.random(count) - 0.5
    y = pick // n + rng.random(count) - 0.5
    p = 1.0 - slope
    u = rng.random(count)
    flux = (1.0 + u * (span**p - 1.0)) ** (1.0 / p) if abs(p) > 1e-3 else span**u
    size = size_pix * (flux / np.median(flux)) ** 0.2 * rng.lognormal(0.0, 0.25, count)
    image = np.zeros(density.shape, dtype=np.float32)
    _stamp_blobs(image, x, y, np.maximum(size, 0.45), flux)
    total = float(image.sum())
    return image / np.float32(total) if total > 0 else image


def softened(rng: np.random.Generator, images: np.ndarray, r_half_pix: float) -> np.ndarray:
    """A galaxy (bands, n, n) with the look of stars that have mixed: part of its light is spread over a tenth
    to a third of the half-light radius, often part of it into a halo, and what is faint is mottled.

    Alike in all bands. The amounts follow TNG50 galaxies and the cores of HST ones
    (docs/decisions/0036-a-second-law.md).
    """
    n, r = images.shape[-1], r_half_pix

    def spread(image: np.ndarray, share: float, sd_pix: float) -> np.ndarray:
        return (1 - share) * image + share * gaussian_filter(image, (0, sd_pix, sd_pix))

    images = spread(np.asarray(images, dtype=np.float64), rng.uniform(0.3, 0.95), rng.uniform(0.1, 0.35) * r)
    if rng.random() < 0.6:
        images = spread(images, rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9) * r)
    mottles = random_field(rng, n, rng.uniform(1.0, 3.0), k_low=n / (rng.uniform(0.6, 3.0) * r))
    light = gaussian_filter(images.sum(axis=0), 0.3 * r)
    faint = 1 - np.sqrt((light / light.max()).clip(0, 1))
    depth = rng.lognormal(math.log(0.13), 0.6)
    return np.asarray(images * np.exp((depth * faint * mottles).clip(-2, 1.5)))
