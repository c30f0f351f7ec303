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
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from galbatch.cutouts.cache import gunzipped, untiled
from galbatch.cutouts.config import Plane
from galbatch.cutouts.fitsfile import ImageHDU, choose, scaled, scan_images
from galbatch.cutouts.remote import FileStamp, RemoteBytes
from galbatch.cutouts.source import ByteSource, LocalBytes, open_bytes
from galbatch.errors import InputError

if TYPE_CHECKING:
    from galbatch.cutouts.fitsfile import Header

_ROW_US, _STAMP_US, _BYTE_US = 0.4, 12.0, 1.2e-4  # a row gathered; a stamp, and a byte, of a span
_MAX_SPAN = 1 << 26


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
    ny, nx = image.shape[-2:]
    dtype = np.dtype(image.dtype)
    integer = isinstance(fill, int)
    out = np.empty((len(y0), h, w), np.int64 if integer else np.float32)
    out[~_whole(y0, x0, h, w, ny, nx)] = fill
    ok = np.ones(len(y0), bool)
    if len(y0) == 0:
        return out, ok
    for members, span in _groups(y0, h, nx * dtype.itemsize, isinstance(source, RemoteBytes)):
        (_from_span if span else _from_rows)(source, image, members, y0, x0, out, ok)
    out[~ok] = fill
    return out, ok


def _whole(y: np.ndarray, x: np.ndarray, h: int, w: int, ny: int, nx: int) -> np.ndarray:
    """Which stamps lie on the image as a whole."""
    return (y >= 0) & (y + h <= ny) & (x >= 0) & (x + w <= nx)


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


def _from_span(
    source: ByteSource,
    image: ImageHDU,
    members: np.ndarray,
    y0: np.ndarray,
    x0: np.ndarray,
    out: np.ndarray,
    ok: np.ndarray,
) -> None:
    ny, nx = image.shape[-2:]
    dtype, h, w = np.dtype(image.dtype), out.shape[1], out.shape[2]
    top = max(int(y0[members].min()), 0)
    bottom = min(int(y0[members].max()) + h, ny)
    if bottom <= top:
        return
    raw = source.read_block(image.offset + top * nx * dtype.itemsize, (bottom - top) * nx * dtype.itemsize)
    rows = len(raw) // (nx * dtype.itemsize)
    block = raw[: rows * nx * dtype.itemsize].view(dtype).reshape(rows, nx)
    for i in members:
        ya, yb = max(y0[i], 0), min(y0[i] + h, ny)
        xa, xb = max(x0[i], 0), min(x0[i] + w, nx)
        if ya >= yb or xa >= xb:
            continue
        if yb - top > rows:
            ok[i] = False
            continue
        out[i, ya - y0[i] : yb - y0[i], xa - x0[i] : xb - x0[i]] = scaled(
            block[ya - top : yb - top, xa:xb], image, out.dtype
        )


def _from_rows(
    source: ByteSource,
    image: ImageHDU,
    members: np.ndarray,
    y0: np.ndarray,
    x0: np.ndarray,
    out: np.ndarray,
    ok: np.ndarray,
) -> None:
    ny, nx = image.shape[-2:]
    h, w = out.shape[1:]
    y, x = y0[members], x0[members]
    whole = _whole(y, x, h, w, ny, nx)
    size = np.dtype(image.dtype).itemsize
    if isinstance(source, LocalBytes) and _plain_float32(image) and out.dtype == np.float32:
        starts = image.offset + (y[whole] * nx + x[whole]) * size
        ok[members[whole]] &= source.read_stamps(starts, nx * size, out, members[whole])
    elif whole.any():
        starts = image.offset + ((y[whole, None] + np.arange(h)) * nx + x[whole, None]) * size
        raw, good = source.read_rows(starts.ravel(), w * size)
        out[members[whole]] = scaled(raw.view(image.dtype).reshape(-1, h, w), image, out.dtype)
        ok[members[whole]] &= good.reshape(-1, h).all(axis=1)
    for i in members[~whole]:
        ok[i] &= _crossing_edge(source, image, int(y0[i]), int(x0[i]), out[i])


def _plain_float32(image: ImageHDU) -> bool:
    """Whether numbers need their bytes swapped and no more."""
    swapped = sys.byteorder == "little" and np.dtype(image.dtype) == np.dtype(">f4")
    return swapped and image.bscale == 1.0 and image.bzero == 0.0


def _crossing_edge(source: ByteSource, image: ImageHDU, y: int, x: int, stamp: np.ndarray) -> bool:
    """Fill a stamp that lies on the image in part; whether all of its pixels could be read."""
    ny, nx = image.shape[-2:]
    h, w = stamp.shape
    ya, yb, xa, xb = max(y, 0), min(y + h, ny), max(x, 0), min(x + w, nx)
    if ya >= yb or xa >= xb:
        return True
    size = np.dtype(image.dtype).itemsize
    raw, good = source.read_rows(image.offset + (np.arange(ya, yb) * nx + xa) * size, (xb - xa) * size)
    stamp[ya - y : yb - y, xa - x : xb - x] = scaled(
        raw.view(image.dtype).reshape(yb - ya, xb - xa), image, stamp.dtype
    )
    return bool(good.all())


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


@dataclass
class UniformNoise:
    """What stands for the error map that a survey does not have (``err = "measure"``): one everywhere, on the
    grid of ``like``, so that the scatter of blank sky is the whole error."""

    like: OpenImage
    path: str = "(no error map: blank sky is measured)"

    @property
    def header(self) -> Header:
        return {}

    @property
    def hdu(self) -> ImageHDU:
        return self.like.hdu

    @property
    def shape(self) -> tuple[int, int]:
        return self.like.shape

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
            if _is_gzip(source):
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
        packed = gunzipped(plane.path, pin) if _is_packed(plane.path) else source.path
        local = open_bytes(untiled(packed, pin, hdu.index))
        plain = scan_images(local)
        if not plain:
            raise InputError(f"{plane.path} is damaged: its tile-compressed image unpacks to none.")
        return OpenImage(plane.path, plain[0], local)

    def _drop(self, key: tuple[str, tuple[str, ...]]) -> None:
        self._open.pop(key)
        self._scans.pop(key[0], None)


def _is_gzip(source: ByteSource) -> bool:
    return source.read(0, 2) == b"\x1f\x8b"


def _is_packed(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"
