"""Open images of a survey: a plane of the survey file becomes something to read stamps from, whatever its
packing.

Stamps are read by position, row by row. One ``ImagePool`` per process holds the images open. Files are pinned
(size, modification time) when first seen, anywhere; a file that is not as pinned raises ``InputError``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from galbatch.cutouts.cache import gunzipped, untiled
from galbatch.cutouts.config import Plane
from galbatch.cutouts.fitsfile import ImageHDU, choose, scaled, scan_images
from galbatch.cutouts.remote import FileStamp, RemoteBytes
from galbatch.cutouts.source import ByteSource, open_bytes
from galbatch.errors import InputError

if TYPE_CHECKING:
    from galbatch.cutouts.fitsfile import Header


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
    y, x = np.asarray(y0, np.int64), np.asarray(x0, np.int64)
    (ny, nx), size = image.grid, np.dtype(image.dtype).itemsize
    out = np.full((len(y), h, w), fill, np.int64 if isinstance(fill, int) else np.float32)
    ok = np.ones(len(y), bool)

    def rows(y: np.ndarray, x: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (..., width) that begin at (y, x) (...), and which could be read."""
        starts = image.offset + (y * nx + x) * size
        raw, good = source.read_rows(starts.ravel(), width * size)
        pixels = raw.view(image.dtype).reshape(*starts.shape, width)
        return scaled(pixels, image, out.dtype), np.asarray(good.reshape(starts.shape).all(axis=-1))

    whole = (y >= 0) & (y + h <= ny) & (x >= 0) & (x + w <= nx)
    if whole.any():
        out[whole], ok[whole] = rows(y[whole, None] + np.arange(h), x[whole, None], w)
    for i in np.flatnonzero(~whole):
        top, bottom, left, right = max(y[i], 0), min(y[i] + h, ny), max(x[i], 0), min(x[i] + w, nx)
        if top < bottom and left < right:
            part = np.s_[i, top - y[i] : bottom - y[i], left - x[i] : right - x[i]]
            out[part], ok[i] = rows(np.arange(top, bottom), left, int(right - left))
    out[~ok] = fill
    return out, ok


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
