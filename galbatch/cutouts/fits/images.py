"""Open images of a survey: a plane of the survey file becomes something to read stamps from, whatever its
packing.

Stamps are read by position: neighbouring rows as one span, others row by row. One ``ImagePool`` per process
holds the images open. Files are pinned (size, modification time) when first seen, anywhere; a file that is
not as pinned raises ``InputError``.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from galbatch.cutouts.fits.header import Header, ImageHDU, choose, scaled, scan_images
from galbatch.cutouts.fits.remote import FileStamp, RemoteBytes
from galbatch.cutouts.fits.source import ByteSource, LocalBytes, open_bytes
from galbatch.cutouts.fits.unpack import gunzipped, untiled
from galbatch.errors import InputError

_ROW_US, _STAMP_US, _BYTE_US = 0.4, 12.0, 1.2e-4  # a row gathered; a stamp, and a byte, of a span
_MAX_SPAN = 1 << 26
GZIP = b"\x1f\x8b"  # how a gzip file begins


@dataclass(frozen=True)
class Plane:
    """One image: its file (absolute path or URL), extension names to try in order (a number is an index), and
    whether a run may go on without it."""

    path: str
    ext: tuple[str, ...] = ()
    optional: bool = False


def read_boxes(
    source: ByteSource,
    image: ImageHDU,
    y0: ArrayLike,
    x0: ArrayLike,
    h: int,
    w: int,
    fill: float | int = np.nan,
) -> tuple[np.ndarray, np.ndarray]:
    """Stamps (n, h, w) whose first pixels are (y0, x0) (n,) int, which may lie outside; there ``fill``.

    Returns (stamps, ok): float32 for floats and scaled integers, int64 for plain integers when ``fill`` is
    an integer; ``ok`` (n,) False where bytes could not be read.
    """
    y0, x0 = np.asarray(y0, np.int64), np.asarray(x0, np.int64)
    out = np.empty((len(y0), h, w), np.int64 if isinstance(fill, int) else np.float32)
    reading = _Reading(source, image, y0, x0, out)
    out[~reading.whole] = fill
    if len(y0):
        for members, span in _groups(y0, h, reading.stride, isinstance(source, RemoteBytes)):
            (reading.span if span else reading.rows)(members)
    out[~reading.ok] = fill
    return out, reading.ok


def _groups(y0: np.ndarray, h: int, stride: int, remote: bool) -> list[tuple[np.ndarray, bool]]:
    """Sources sorted by row: runs to read as one span of whole rows (True), and all others row by row
    (False)."""
    order = np.argsort(y0, kind="stable")
    alone = h * _ROW_US
    groups: list[tuple[list[int], float]] = []
    run: list[int] = []
    last, cost = 0, 0.0
    for i in order.tolist():
        top = int(y0[i])
        extra = min(h, top + h - last) if run else h
        price = _STAMP_US + extra * stride * _BYTE_US
        if run and (price > alone or remote or (last - int(y0[run[0]]) + extra) * stride > _MAX_SPAN):
            groups.append((run, cost))
            run, cost, price = [], 0.0, _STAMP_US + h * stride * _BYTE_US
        run.append(i)
        cost += price
        last = top + h
    groups.append((run, cost))
    out, single = [], []
    for run, cost in groups:
        if remote or cost > len(run) * alone:
            single.extend(run)
        else:
            out.append((np.array(run), True))
    return [*out, (np.array(single), False)] if single else out


class _Reading:
    """Stamps of an image on their way into ``out`` (n, h, w): which lie on it as a whole, which could be
    read."""

    def __init__(
        self, source: ByteSource, image: ImageHDU, y0: np.ndarray, x0: np.ndarray, out: np.ndarray
    ) -> None:
        self.source, self.image, self.y0, self.x0, self.out = source, image, y0, x0, out
        (self.ny, self.nx), (_, h, w) = image.grid, out.shape
        self.size = np.dtype(image.dtype).itemsize
        self.stride = self.nx * self.size
        self.whole = (y0 >= 0) & (y0 + h <= self.ny) & (x0 >= 0) & (x0 + w <= self.nx)
        self.ok = np.ones(len(y0), bool)

    def span(self, members: np.ndarray) -> None:
        """All from one piece of whole rows."""
        top = max(int(self.y0[members].min()), 0)
        bottom = min(int(self.y0[members].max()) + self.out.shape[1], self.ny)
        if bottom <= top:
            return
        raw = self.source.read_block(self.image.offset + top * self.stride, (bottom - top) * self.stride)
        rows = len(raw) // self.stride
        block = raw[: rows * self.stride].view(self.image.dtype).reshape(rows, self.nx)
        for i in members:
            ya, yb, xa, xb = self._on_image(i)
            if ya < yb and xa < xb:
                if yb - top > rows:
                    self.ok[i] = False
                else:
                    self._put(i, block[ya - top : yb - top, xa:xb])

    def rows(self, members: np.ndarray) -> None:
        """Each by its own rows."""
        (h, w), whole = self.out.shape[1:], members[self.whole[members]]
        starts = self.image.offset + self.y0[whole] * self.stride + self.x0[whole] * self.size
        plain = _plain_float32(self.image) and self.out.dtype == np.float32
        if isinstance(self.source, LocalBytes) and plain:
            self.ok[whole] &= self.source.read_stamps(starts, self.stride, self.out, whole)
        elif whole.size:
            starts = starts[:, None] + np.arange(h) * self.stride
            raw, good = self.source.read_rows(starts.ravel(), w * self.size)
            stamps = raw.view(self.image.dtype).reshape(-1, h, w)
            self.out[whole] = scaled(stamps, self.image, self.out.dtype)
            self.ok[whole] &= good.reshape(-1, h).all(axis=1)
        for i in members[~self.whole[members]]:
            ya, yb, xa, xb = self._on_image(i)
            if ya < yb and xa < xb:
                starts = self.image.offset + np.arange(ya, yb) * self.stride + xa * self.size
                raw, good = self.source.read_rows(starts, (xb - xa) * self.size)
                self._put(i, raw.view(self.image.dtype).reshape(yb - ya, xb - xa))
                self.ok[i] &= good.all()

    def _on_image(self, i: int) -> tuple[int, int, int, int]:
        """First and last + 1 row and column of the part of a stamp that lies on the image."""
        (h, w), y, x = self.out.shape[1:], int(self.y0[i]), int(self.x0[i])
        return max(y, 0), min(y + h, self.ny), max(x, 0), min(x + w, self.nx)

    def _put(self, i: int, part: np.ndarray) -> None:
        y, x = max(-int(self.y0[i]), 0), max(-int(self.x0[i]), 0)
        own = self.out[i, y : y + part.shape[0], x : x + part.shape[1]]
        own[...] = scaled(part, self.image, self.out.dtype)


def _plain_float32(image: ImageHDU) -> bool:
    """Whether numbers need their bytes swapped and no more."""
    swapped = sys.byteorder == "little" and np.dtype(image.dtype) == np.dtype(">f4")
    return swapped and image.bscale == 1.0 and image.bzero == 0.0


_MAX_OPEN = 256


@dataclass
class OpenImage:
    """An image and the open file it lies in. ``path`` is what the survey file names."""

    path: str
    hdu: ImageHDU
    source: ByteSource

    @property
    def header(self) -> Header:
        return self.hdu.header

    @property
    def shape(self) -> tuple[int, int]:
        return self.hdu.grid

    def boxes(
        self, y0: ArrayLike, x0: ArrayLike, h: int, w: int, fill: float | int = np.nan
    ) -> tuple[np.ndarray, np.ndarray]:
        """Stamps (n, h, w) with first pixels (y0, x0), ``fill`` outside, and which could be read (n,)."""
        self.source.check()
        return read_boxes(self.source, self.hdu, y0, x0, h, w, fill=fill)


class UniformNoise(OpenImage):
    """What stands for the error map that a survey does not have (``err = "measure"``): one everywhere, on the
    grid of an image, so that the scatter of blank sky is the whole error."""

    def __init__(self, like: OpenImage) -> None:
        super().__init__("(no error map: blank sky is measured)", like.hdu, like.source)

    @property
    def header(self) -> Header:
        return {}

    def boxes(
        self, y0: ArrayLike, x0: ArrayLike, h: int, w: int, fill: float | int = np.nan
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ``OpenImage.boxes``."""
        n = len(np.asarray(y0))
        return np.ones((n, h, w), np.float32), np.ones(n, bool)


class ImagePool:
    """Opens planes once and keeps them; pins their files. Not shared between processes."""

    def __init__(self, pins: dict[str, FileStamp] | None = None) -> None:
        self.pins: dict[str, FileStamp] = dict(pins or {})
        self._open: OrderedDict[tuple, OpenImage] = OrderedDict()
        self._scans: dict[str, tuple[ByteSource, list[ImageHDU]]] = {}

    def open(self, plane: Plane) -> OpenImage:
        """The image of ``plane``. Raises ``InputError`` if it is missing, damaged, changed, or has no such
        extension."""
        key = (plane.path, plane.ext)
        if key not in self._open:
            self._open[key] = self._load(plane)
            if len(self._open) > _MAX_OPEN:
                self._drop(next(iter(self._open)))
        self._open.move_to_end(key)
        return self._open[key]

    def source(self, path: str) -> tuple[ByteSource, list[ImageHDU]]:
        """The unpacked bytes of a file and its images."""
        if path not in self._scans:
            source = open_bytes(path, self.pins.get(path))
            self.pins.setdefault(path, source.stamp)
            if source.read(0, 2) == GZIP:
                local = gunzipped(path, source.stamp)
                source.close()
                source = open_bytes(local)
                source.path = path
            self._scans[path] = source, scan_images(source)
        return self._scans[path]

    def _load(self, plane: Plane) -> OpenImage:
        source, images = self.source(plane.path)
        hdu = choose(images, plane.path, plane.ext)
        if not hdu.compressed:
            return OpenImage(plane.path, hdu, source)
        if isinstance(source, RemoteBytes):
            raise InputError(f"{plane.path} is tile-compressed and remote: download it first.")
        pin = self.pins[plane.path]
        unpacked = source.path if source.stamp == pin else gunzipped(plane.path, pin)
        local = open_bytes(untiled(unpacked, pin, hdu.index))
        plain = scan_images(local)
        if not plain:
            raise InputError(f"{plane.path} is damaged: its tile-compressed image unpacks to none.")
        return OpenImage(plane.path, plain[0], local)

    def _drop(self, key: tuple[str, tuple[str, ...]]) -> None:
        self._open.pop(key)
        self._scans.pop(key[0], None)
