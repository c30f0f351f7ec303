"""Open images of a survey: a plane of the survey file becomes something to read boxes from, whatever its
packing.

One ``ImagePool`` a process holds them open. Files are pinned (size, modification time) when first seen,
anywhere; a file that is not as pinned raises ``InputError``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from galbatch.cutouts.boxes import read_boxes
from galbatch.cutouts.cache import gunzipped, untiled
from galbatch.cutouts.config import Plane
from galbatch.cutouts.fitsfile import ImageHDU, choose, read_image, scan_images
from galbatch.cutouts.source import FileStamp, LocalBytes, RemoteBytes, open_bytes
from galbatch.errors import InputError

_MAX_OPEN = 256


@dataclass
class OpenImage:
    """An image and the open file it lies in. ``path`` is what the survey file names."""

    path: str
    hdu: ImageHDU
    source: LocalBytes | RemoteBytes

    @property
    def header(self):
        return self.hdu.header

    @property
    def shape(self) -> tuple[int, int]:
        return self.hdu.shape[-2:]

    def boxes(self, y0, x0, h: int, w: int, fill=np.nan):
        """Stamps (n, h, w) with first pixels (y0, x0), ``fill`` outside, and which could be read (n,)."""
        self.source.check()
        return read_boxes(self.source, self.hdu, y0, x0, h, w, fill=fill)

    def whole(self, dtype=np.float32) -> np.ndarray:
        self.source.check()
        return read_image(self.source, self.hdu, dtype)


@dataclass
class UniformNoise:
    """What stands for the error map that a survey does not have (``err = "measure"``): one everywhere, on the
    grid of ``like``, so that the scatter of blank sky is the whole error."""

    like: OpenImage
    path: str = "(no error map: blank sky is measured)"

    @property
    def header(self):
        return {}

    @property
    def hdu(self) -> ImageHDU:
        return self.like.hdu

    @property
    def shape(self) -> tuple[int, int]:
        return self.like.shape

    def boxes(self, y0, x0, h: int, w: int, fill=np.nan):
        """As ``OpenImage.boxes``."""
        return np.ones((len(y0), h, w), np.float32), np.ones(len(y0), bool)


class ImagePool:
    """Opens planes once and keeps them; pins their files. Not shared between processes."""

    def __init__(self, pins: dict[str, FileStamp] | None = None):
        self.pins: dict[str, FileStamp] = dict(pins or {})
        self._open: OrderedDict[tuple, OpenImage] = OrderedDict()
        self._scans: dict[str, tuple[LocalBytes | RemoteBytes, list[ImageHDU]]] = {}

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

    def source(self, path: str) -> tuple[LocalBytes | RemoteBytes, list[ImageHDU]]:
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
        packed = (
            source.path
            if not _is_packed(plane.path, source)
            else gunzipped(plane.path, self.pins[plane.path])
        )
        local = open_bytes(untiled(packed, self.pins[plane.path], hdu.index))
        plain = scan_images(local)
        if not plain:
            raise InputError(f"{plane.path} is damaged: its tile-compressed image unpacks to none.")
        return OpenImage(plane.path, plain[0], local)

    def _drop(self, key) -> None:
        self._open.pop(key)
        self._scans.pop(key[0], None)


def _is_gzip(source) -> bool:
    return source.read(0, 2) == b"\x1f\x8b"


def _is_packed(path: str, source) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"
