"""HEALPix: the nested index of positions (Gorski et al. 2005, ApJ 622, 759), and rows put into partitions of
the sky, in bounded memory: sorted block after block into one scratch file, cut where partitions end; the
pieces of a partition are put together when it is written.

Order 29 is the finest that fits 64 bits; HATS and LSDB use it as ``_healpix_29`` to partition a catalogue.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

INDEX, INDEX_ORDER = "_healpix_29", 29
MAX_ORDER = 10
_CELL_ARCSEC = 0.4 * 58.63 * 3600 / (1 << INDEX_ORDER)  # less than the width of any pixel of order 29
_RING, _DIRECTIONS = 1.25, 48  # a corner of 36 degrees that comes within a radius of 1 has one of these in it
Homes = Callable[[pa.Table], tuple[np.ndarray, np.ndarray]]


def healpix_nested(ra_deg: np.ndarray, dec_deg: np.ndarray, order: int = INDEX_ORDER) -> np.ndarray:
    """(n,) int64 nested index at ``order`` of ICRS positions in degrees; -1 where a position is not
    finite, or beyond a pole."""
    ra = np.asarray(ra_deg, dtype=np.float64)
    dec = np.asarray(dec_deg, dtype=np.float64)
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    phi = np.deg2rad(np.where(good, ra, 0.0)) % (2 * np.pi)
    z = np.sin(np.deg2rad(np.where(good, dec, 0.0)))
    t = phi / (np.pi / 2)  # longitude in quarter turns [0, 4)
    t = np.where(t >= 4, 0.0, t)
    cap = _polar(t, z, np.deg2rad(np.where(good, dec, 0.0)), 1 << order)
    belt = _equatorial(t, z, 1 << order)
    face, ix, iy = (np.where(np.abs(z) <= 2 / 3, b, c) for b, c in zip(belt, cap, strict=True))
    index = (face.astype(np.int64) << (2 * order)) + _spread(ix) + (_spread(iy) << 1)
    return np.where(good, index, -1)


def _equatorial(t: np.ndarray, z: np.ndarray, nside: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base face 0-11 and x, y pixel inside it, for ``z`` = sin(dec) up to 2/3."""
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


@dataclass(frozen=True)
class Partitions:
    """HEALPix pixels in the order of the sky: ``order``, ``pixel``, ``rows`` (n,) int64; ``left_out``: rows
    without a position."""

    order: np.ndarray
    pixel: np.ndarray
    rows: np.ndarray
    left_out: int

    def __len__(self) -> int:
        return len(self.order)

    @property
    def starts(self) -> np.ndarray:
        """First index of order 29 of every partition."""
        return self.pixel << 2 * (INDEX_ORDER - self.order)

    def home(self, index: np.ndarray) -> np.ndarray:
        """Number of the partition of every index of order 29 (n,); -1 for none."""
        found = np.searchsorted(self.starts, index, side="right") - 1
        ends = self.pixel + 1 << 2 * (INDEX_ORDER - self.order)
        return np.where((found >= 0) & (index < ends[found]), found, -1) if len(self) else found

    def take(self, kept: np.ndarray, rows: np.ndarray | None = None) -> Partitions:
        """Those with ``kept`` (n,) bool, or of these numbers; with ``rows`` of their own."""
        rows = self.rows[kept] if rows is None else rows
        return Partitions(self.order[kept], self.pixel[kept], rows, self.left_out)

    def homes(self, block: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a block that have a partition, in the order of the sky, and the partition of each."""
        index = block[INDEX].to_numpy()
        rows = np.argsort(index, kind="stable")
        home = self.home(index[rows])
        return rows[home >= 0], home[home >= 0]

    def margins(self, arcsec: float) -> Homes:
        """As ``homes``, for the rows within ``arcsec`` of a partition that is not theirs, and some beyond."""

        def margin(block: pa.Table) -> tuple[np.ndarray, np.ndarray]:
            index = block[INDEX].to_numpy()
            own = self.home(index)
            near = np.flatnonzero((own >= 0) & (self._to_edge(index, own) < _RING * arcsec))
            ring = _around(block["ra"].to_numpy()[near], block["dec"].to_numpy()[near], _RING * arcsec)
            home = self.home(healpix_nested(*ring))
            other = (home >= 0) & (home != own[near][:, None])
            pairs = np.unique(np.stack([home[other], np.nonzero(other)[0]]), axis=1)
            return near[pairs[1]], pairs[0]

        return margin

    def _to_edge(self, index: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Arcsec (n,) from the edges of the own partition, at least."""
        depth = INDEX_ORDER - self.order[own]
        inside = index & (1 << 2 * depth) - 1
        x, y, side = compact(inside), compact(inside >> 1), 1 << depth
        return np.minimum.reduce([x, y, side - 1 - x, side - 1 - y]) * _CELL_ARCSEC


def _around(ra: np.ndarray, dec: np.ndarray, arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) positions in degrees on a small circle about each of (n,)."""
    angle, d = np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS, np.radians(arcsec / 3600)
    a, b = np.radians(ra)[:, None], np.radians(dec)[:, None]
    up = np.arcsin(np.clip(np.sin(b) * np.cos(d) + np.cos(b) * np.sin(d) * np.cos(angle), -1, 1))
    east = np.arctan2(np.sin(angle) * np.sin(d) * np.cos(b), np.cos(d) - np.sin(b) * np.sin(up))
    return np.degrees(a + east) % 360, np.degrees(up)


def partition_sky(indices: Iterable[np.ndarray], limit: int) -> Partitions:
    """Pixels of order 0, split until none has more than ``limit`` rows or ``MAX_ORDER`` is reached.
    ``indices`` of order 29; a negative one is of no position."""
    fine, left_out = np.zeros(12 << 2 * MAX_ORDER, np.int64), 0
    for index in indices:
        inside = index[index >= 0]
        left_out += len(index) - len(inside)
        pixels, rows = np.unique(inside >> 2 * (INDEX_ORDER - MAX_ORDER), return_counts=True)
        fine[pixels] += rows
    counts = [fine]
    while len(counts[-1]) > 12:
        counts.append(counts[-1].reshape(-1, 4).sum(1))
    found, candidates = [], np.arange(12)
    for order, rows in enumerate(reversed(counts)):
        small = (rows[candidates] <= limit) | (order == MAX_ORDER)
        found += [(order, p, rows[p]) for p in candidates[small].tolist() if rows[p]]
        candidates = (4 * candidates[~small][:, None] + np.arange(4)).ravel()
    found.sort(key=lambda one: one[1] << 2 * (INDEX_ORDER - one[0]))
    orders, pixels, rows = np.array(found, np.int64).reshape(-1, 3).T
    return Partitions(orders, pixels, rows, left_out)


def by_partition(
    blocks: Iterable[pa.Table], schema: pa.Schema, homes: Homes, scratch: Path
) -> Iterator[tuple[int, pa.Table]]:
    """(number, table) of every partition that has rows of ``blocks``. ``scratch``: a file, which is made and
    deleted."""
    homes_of: list[int] = []
    try:
        with pa.OSFile(str(scratch), "wb") as file, pa.ipc.new_file(file, schema) as out:
            for block in blocks:
                homes_of += _spill(block, homes, out)
        found = np.array(homes_of, np.int64)
        with pa.OSFile(str(scratch)) as file, pa.ipc.open_file(file) as spilled:
            for home in np.unique(found).tolist():
                pieces = np.flatnonzero(found == home).tolist()
                yield home, pa.Table.from_batches([spilled.get_batch(k) for k in pieces])
    finally:
        scratch.unlink(missing_ok=True)


def _spill(block: pa.Table, homes: Homes, out: pa.RecordBatchWriter) -> list[int]:
    """Write the rows of a block in the order of ``homes``, cut where partitions begin; returns the partition
    of every batch."""
    rows, home = homes(block)
    block = block.take(pa.array(rows)).replace_schema_metadata(None).combine_chunks()
    edges, written = [0, *(np.flatnonzero(np.diff(home)) + 1).tolist(), len(home)], []
    for first, stop in itertools.pairwise(edges):
        for batch in block.slice(first, stop - first).to_batches() if stop > first else ():
            out.write_batch(batch)
            written.append(int(home[first]))
    return written
