"""A dusty disc seen at any inclination: emission and extinction integrated along each line of sight.

The disc is given by three face-on maps (old stars, young stars, dust column) and a vertical profile for
each: sech^2 for stars, exponential for dust. Symbols: ``s`` is distance along the line of sight towards
the observer, ``z`` height above the disc's plane, ``tau`` optical depth in the red band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True)
class DiscGeometry:
    """How a disc is seen. Lengths in image pixels, angles in radians."""

    inclination: float
    position_angle: float
    x_pix: float
    y_pix: float
    height_old_pix: float
    height_young_pix: float
    height_dust_pix: float
    warp: float = 0.0
    warp_phase: float = 0.0


@njit(cache=True, fastmath=True)
def _march(
    maps: np.ndarray, step_pix: float, npix: int, view: tuple[float, ...], ratios: np.ndarray, out: np.ndarray
) -> None:
    """Fill ``out`` (2 bands + 1, npix, npix): old and young stars by band, then tau in red."""
    cos_i, sin_i, cos_p, sin_p, x0, y0, h_o, h_y, h_d, warp, warp_phase = view
    bands = len(ratios)
    light = np.empty(2 * bands)
    m = maps.shape[0]
    r_max = 0.5 * (m - 2) * step_pix
    z_max = 5.0 * h_o
    n_steps = int(22 + 46 * sin_i**6)
    c_w, s_w = math.cos(warp_phase), math.sin(warp_phase)
    for iy in range(npix):
        for ix in range(npix):
            u = (ix - x0) * cos_p + (iy - y0) * sin_p
            v = -(ix - x0) * sin_p + (iy - y0) * cos_p
            if abs(u) >= r_max:
                continue
            # disc coordinates along the ray: X = u, Y = v cos_i - s sin_i, Z = v sin_i + s cos_i
            chord = math.sqrt(r_max * r_max - u * u)
            lo, hi = -1e9, 1e9
            if sin_i > 1e-4:
                lo = (v * cos_i - chord) / sin_i
                hi = (v * cos_i + chord) / sin_i
            elif abs(v) >= chord:
                continue
            reach = z_max + abs(warp) * r_max
            if cos_i > 1e-4:
                lo = max(lo, (-reach - v * sin_i) / cos_i)
                hi = min(hi, (reach - v * sin_i) / cos_i)
            elif abs(v) > reach:
                continue
            if hi <= lo:
                continue
            middle = min(max(-v * sin_i / max(cos_i, 0.02), lo), hi)
            for _ in range(4):  # where the ray meets the warped mid-plane
                yd = v * cos_i - middle * sin_i
                bend = warp * (u * c_w + yd * s_w) * math.sqrt(u * u + yd * yd) / r_max
                middle = min(max((bend - v * sin_i) / max(cos_i, 0.02), lo), hi)
            width = min(1.5 * h_d / max(cos_i, 1e-3), 0.25 * (hi - lo))
            t_lo = math.asinh((lo - middle) / width)
            t_hi = math.asinh((hi - middle) / width)
            dt = (t_hi - t_lo) / n_steps
            tau = 0.0
            light[:] = 0.0
            for k in range(n_steps):
                t = t_hi - (k + 0.5) * dt
                s = middle + width * math.sinh(t)
                ds = width * math.cosh(t) * dt
                yd = v * cos_i - s * sin_i
                z = abs(
                    v * sin_i + s * cos_i - warp * (u * c_w + yd * s_w) * math.sqrt(u * u + yd * yd) / r_max
                )
                fx = u / step_pix + 0.5 * (m - 1)
                fy = yd / step_pix + 0.5 * (m - 1)
                jx, jy = int(fx), int(fy)
                if jx < 0 or jy < 0 or jx >= m - 1 or jy >= m - 1:
                    continue
                fx -= jx
                fy -= jy
                w00, w01, w10, w11 = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
                e = math.exp(-2.0 * z / h_o)
                old = 2.0 * e / (h_o * (1.0 + e) * (1.0 + e)) * ds
                e = math.exp(-2.0 * z / h_y)
                young = 2.0 * e / (h_y * (1.0 + e) * (1.0 + e)) * ds
                dust = 0.5 * math.exp(-z / h_d) / h_d * ds
                p, q = maps[jy, jx], maps[jy, jx + 1]
                r, w = maps[jy + 1, jx], maps[jy + 1, jx + 1]
                old *= w00 * p[0] + w01 * q[0] + w10 * r[0] + w11 * w[0]
                young *= w00 * p[1] + w01 * q[1] + w10 * r[1] + w11 * w[1]
                dust *= w00 * p[2] + w01 * q[2] + w10 * r[2] + w11 * w[2]
                mid = tau + 0.5 * dust
                for j in range(bands):
                    dimmed = math.exp(-ratios[j] * mid)
                    light[2 * j] += old * dimmed
                    light[2 * j + 1] += young * dimmed
                tau += dust
            for j in range(2 * bands):
                out[j, iy, ix] = light[j]
            out[2 * bands, iy, ix] = tau


def project_disc(
    maps: np.ndarray, step_pix: float, geometry: DiscGeometry, npix: int, ratios: Sequence[float] = (1.0, 1.8)
) -> np.ndarray:
    """The disc on the sky: (2 bands + 1, npix, npix) float32.

    ``maps`` (m, m, 3) holds face-on surface brightness of old and young stars and the face-on red optical
    depth, on a grid of ``step_pix`` image pixels. ``ratios`` (bands,): optical depth over that in the red.
    The planes returned are old and young stars of the first band, of the second, ... (surface brightness per
    image pixel) and the total red optical depth.
    """
    g = geometry
    out = np.zeros((2 * len(ratios) + 1, npix, npix), dtype=np.float32)
    tilt, turn = g.inclination, g.position_angle
    turned = abs(math.cos(tilt)), abs(math.sin(tilt)), math.cos(turn), math.sin(turn)
    heights = g.height_old_pix, g.height_young_pix, g.height_dust_pix
    view = tuple(map(float, (*turned, g.x_pix, g.y_pix, *heights, g.warp, g.warp_phase)))
    wide = np.asarray(ratios, dtype=np.float64)
    _march(np.ascontiguousarray(maps, dtype=np.float32), float(step_pix), npix, view, wide, out)
    return out


def front_fraction(geometry: DiscGeometry, npix: int) -> np.ndarray:
    """Share of a spheroid's light in front of the disc's mid-plane, per pixel (npix, npix).

    For a spheroid of density r**-3 the light in front of a plane crossed at depth s, on a ray that passes
    the centre at distance b, is (1 + s / sqrt(s^2 + b^2)) / 2 with s positive behind the centre.
    """
    g = geometry
    y, x = np.mgrid[:npix, :npix].astype(np.float32)
    x -= g.x_pix
    y -= g.y_pix
    v = -x * math.sin(g.position_angle) + y * math.cos(g.position_angle)
    tangent = abs(math.sin(g.inclination)) / max(abs(math.cos(g.inclination)), 0.02)
    s = v * tangent
    b = np.hypot(x, y) + 0.5
    return np.asarray(0.5 * (1.0 + s / np.sqrt(s * s + b * b)), dtype=np.float32)
