"""Sersic spheroids, shells and point sources, painted straight on the sky grid.

Fluxes are per pixel; the pixel response is integrated where the profile is steep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit


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
def _paint(
    image: np.ndarray,
    x0: float,
    y0: float,
    re: float,
    n: float,
    q: float,
    angle: float,
    boxy: float,
    twist: float,
    b: float,
) -> None:
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
    s = spheroid
    image = np.zeros((npix, npix), dtype=np.float32)
    _paint(image, s.x_pix, s.y_pix, s.r_eff_pix, s.n, s.axis_ratio, s.angle, s.boxy, s.twist, sersic_b(s.n))
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
