"""Parts of galaxies: random fields and star-forming clumps on maps, Sersic spheroids, shells and points on
the sky grid. Lengths are pixels of the map that is filled; the pixel response is integrated where a profile
is steep."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter, map_coordinates

SPAN = 100.0  # of the luminosities of clumps


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
    rng: np.random.Generator, density: np.ndarray, count: int, slope: float, size_pix: float
) -> np.ndarray:
    """Clumps drawn where ``density`` (n, n) is high, with luminosities dN/dL ~ L**-slope over a factor of
    ``SPAN``; sums to 1. Brighter clumps are larger, as L**0.2; ``size_pix`` is the median sigma."""
    n = density.shape[1]
    cumulative = np.cumsum(density.ravel(), dtype=np.float64)
    pick = np.searchsorted(cumulative, rng.random(count) * cumulative[-1]).clip(0, density.size - 1)
    x = pick % n + rng.random(count) - 0.5
    y = pick // n + rng.random(count) - 0.5
    p = 1.0 - slope
    u = rng.random(count)
    flux = (1.0 + u * (SPAN**p - 1.0)) ** (1.0 / p) if abs(p) > 1e-3 else SPAN**u
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


@dataclass(frozen=True)
class Spheroid:
    """A Sersic profile. Radii in pixels, angle in radians; ``boxy`` 2 is an ellipse, more is boxy."""

    x_pix: float
    y_pix: float
    r_eff_pix: float
    n: float
    axis_ratio: float
    angle: float
    boxy: float = 2.0
    twist: float = 0.0


def sersic_b(n: float) -> float:
    """b_n of the Sersic profile (Ciotti & Bertin 1999, series good to 1e-4 for n > 0.36)."""
    return 2.0 * n - 1.0 / 3.0 + 4.0 / (405.0 * n) + 46.0 / (25515.0 * n * n)


@njit(cache=True, fastmath=True)
def _paint(image: np.ndarray, profile: tuple[float, ...]) -> None:
    x0, y0, re, n, q, angle, boxy, twist, b = profile
    npix = image.shape[0]
    for iy in range(npix):
        for ix in range(npix):
            near = (ix - x0) ** 2 + (iy - y0) ** 2
            sub = 9 if near < 4.0 else (5 if near < 36.0 else 1)
            total = 0.0
            for jy in range(sub):
                for jx in range(sub):
                    dx = ix - x0 + (jx + 0.5) / sub - 0.5
                    dy = iy - y0 + (jy + 0.5) / sub - 0.5
                    a = angle + twist * math.log1p(math.sqrt(dx * dx + dy * dy) / re)
                    u = abs(dx * math.cos(a) + dy * math.sin(a))
                    v = abs(-dx * math.sin(a) + dy * math.cos(a)) / q
                    if boxy == 2.0:
                        r = math.sqrt(u * u + v * v) * math.sqrt(q)
                    else:
                        r = (u**boxy + v**boxy) ** (1.0 / boxy) * math.sqrt(q)
                    total += math.exp(-b * (max(r, 1e-4) / re) ** (1.0 / n))
            image[iy, ix] = total / (sub * sub)


def paint_spheroid(spheroid: Spheroid, npix: int) -> np.ndarray:
    """The spheroid's image (npix, npix) float32, normalised to sum 1 on the grid."""
    image = np.zeros((npix, npix), dtype=np.float32)
    _paint(image, tuple(map(float, (*astuple(spheroid), sersic_b(spheroid.n)))))
    return image / image.sum()


def paint_point(x_pix: float, y_pix: float, npix: int) -> np.ndarray:
    """A point source of flux 1, shared among the four nearest pixels so that its centroid is exact."""
    image = np.zeros((npix, npix), dtype=np.float32)
    ix, iy = math.floor(x_pix), math.floor(y_pix)
    fx, fy = x_pix - ix, y_pix - iy
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            if 0 <= iy + dy < npix and 0 <= ix + dx < npix:
                image[iy + dy, ix + dx] += wx * wy
    return image


def paint_shells(rng: np.random.Generator, spheroid: Spheroid, npix: int) -> np.ndarray:
    """Sharp-edged shells around a spheroid, interleaved on both sides of its major axis; sums to 1.

    Each shell brightens outwards to its edge, inside a cone (the look of Hernquist & Quinn 1988).
    """
    y, x = np.mgrid[:npix, :npix].astype(np.float32)
    dx, dy = x - spheroid.x_pix, y - spheroid.y_pix
    radius = np.hypot(dx, dy * 1.0)
    image = np.zeros((npix, npix), dtype=np.float32)
    edge = spheroid.r_eff_pix * rng.uniform(0.8, 1.3)
    side = int(rng.integers(2))
    opening = rng.uniform(0.3, 0.8)
    for number in range(int(rng.integers(3, 9))):
        direction = spheroid.angle + math.pi * ((number + side) % 2) + rng.normal(0.0, 0.15)
        offset = np.arctan2(dy, dx) - direction
        cone = np.exp((np.cos(offset) - 1.0) / (0.5 * opening**2))
        depth = np.clip((edge - radius) / (0.35 * edge), 0.0, None)
        profile = np.where(
            depth > 0, np.exp(-2.0 * depth) * np.clip((edge - radius) / (0.08 * edge), 0.0, 1.0), 0.0
        )
        image += (cone * profile * rng.lognormal(0.0, 0.4) / edge**1.5).astype(np.float32)
        edge *= rng.uniform(1.15, 1.45)
        if edge > 0.48 * npix:
            break
    return image / max(float(image.sum()), 1e-20)
