"""Nested HEALPix index of sky positions (Gorski et al. 2005, ApJ 622, 759), vectorised.

Order 29 is the finest that fits 64 bits; HATS and LSDB use it as ``_healpix_29`` to partition a catalogue.
"""

from __future__ import annotations

import numpy as np

ORDER = 29


def healpix_nested(ra_deg: np.ndarray, dec_deg: np.ndarray, order: int = ORDER) -> np.ndarray:
    """(n,) int64 nested index at ``order`` of ICRS positions in degrees; -1 where a position is not
    finite, or beyond a pole."""
    ra = np.asarray(ra_deg, dtype=np.float64)
    dec = np.asarray(dec_deg, dtype=np.float64)
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    phi = np.deg2rad(np.where(good, ra, 0.0)) % (2 * np.pi)
    z = np.sin(np.deg2rad(np.where(good, dec, 0.0)))
    face, ix, iy = _face_pixel(phi / (np.pi / 2), z, np.deg2rad(np.where(good, dec, 0.0)), 1 << order)
    index = (face.astype(np.int64) << (2 * order)) + _spread(ix) + (_spread(iy) << 1)
    return np.where(good, index, -1)


def _face_pixel(
    t: np.ndarray, z: np.ndarray, dec: np.ndarray, nside: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base face 0-11 and x, y pixel inside it. ``t`` = longitude in quarter turns [0, 4), ``z`` =
    sin(dec)."""
    t = np.where(t >= 4, 0.0, t)
    equatorial = np.abs(z) <= 2 / 3
    face_e, x_e, y_e = _equatorial(t, z, nside)
    face_p, x_p, y_p = _polar(t, z, dec, nside)
    face, x = np.where(equatorial, face_e, face_p), np.where(equatorial, x_e, x_p)
    return face, x, np.where(equatorial, y_e, y_p)


def _equatorial(t: np.ndarray, z: np.ndarray, nside: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ascending = np.floor(nside * (0.5 + t - 0.75 * z)).astype(np.int64)
    descending = np.floor(nside * (0.5 + t + 0.75 * z)).astype(np.int64)
    up, down = ascending // nside, descending // nside
    face = np.where(up == down, (up & 3) + 4, np.where(up < down, up & 3, (down & 3) + 8))
    return face, descending & (nside - 1), nside - 1 - (ascending & (nside - 1))


def _polar(
    t: np.ndarray, z: np.ndarray, dec: np.ndarray, nside: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    quarter = np.minimum(np.floor(t).astype(np.int64), 3)
    frac = t - quarter
    colat = np.pi / 2 - np.abs(dec)
    # nside sqrt(3 (1 - |z|)), precise at the pole
    root = nside * np.sqrt(3.0) * np.sqrt(2.0) * np.sin(colat / 2)
    jp = np.minimum(np.floor(frac * root).astype(np.int64), nside - 1)
    jm = np.minimum(np.floor((1 - frac) * root).astype(np.int64), nside - 1)
    north = z >= 0
    face = np.where(north, quarter, quarter + 8)
    return face, np.where(north, nside - 1 - jm, jp), np.where(north, nside - 1 - jp, jm)


def compact(v: np.ndarray) -> np.ndarray:
    """Every second bit of non-negative integers below 2^62, from the lowest on: undoes ``_spread``."""
    v = np.asarray(v, dtype=np.int64) & 0x5555555555555555
    for shift, keep in (
        (1, 0x3333333333333333),
        (2, 0x0F0F0F0F0F0F0F0F),
        (4, 0x00FF00FF00FF00FF),
        (8, 0x0000FFFF0000FFFF),
        (16, 0x00000000FFFFFFFF),
    ):
        v = (v | (v >> shift)) & keep
    return v


def _spread(v: np.ndarray) -> np.ndarray:
    """Put a zero bit between the bits of non-negative integers below 2^31."""
    v = np.asarray(v, dtype=np.int64)
    for shift, keep in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        v = (v | (v << shift)) & keep
    return v
