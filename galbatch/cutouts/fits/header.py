"""FITS images by header and position: where an image's pixels lie, and what its numbers mean."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from astropy.io import fits

from galbatch.cutouts.fits.source import ByteSource
from galbatch.errors import InputError

BLOCK = 2880
_MAX_HEADER = 2000 * BLOCK
_MAX_HDUS = 2000
Header: TypeAlias = "fits.Header | dict[str, Any]"  # cards by keyword; of what stands for an image, a dict
_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True)
class ImageHDU:
    """One image of a file: ``shape`` (ny, nx) or (n, ny, nx); ``offset`` of its first byte; ``header`` as
    text."""

    path: str
    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    offset: int
    bscale: float
    bzero: float
    blank: int | None
    header_text: str
    compressed: bool = False

    @cached_property
    def header(self) -> fits.Header:
        return parse_header(self.header_text)

    @property
    def grid(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.shape[-2], self.shape[-1]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def parse_header(text: str) -> fits.Header:
    """A header from its cards; what astropy would warn about is tolerated, cards that cannot be parsed are
    left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = fits.Header.fromstring(text)
        good = []
        for card in header.cards:
            try:
                _ = card.keyword, card.value
            except Exception:
                continue
            good.append(card)
        return header if len(good) == len(header.cards) else fits.Header(good)


def primary_header(source: ByteSource) -> fits.Header:
    """The first header of a file, which may hold no pixels but cards on all its images."""
    return parse_header(_read_header(source, 0, first=True)[0] or "")


def scan_images(source: ByteSource) -> list[ImageHDU]:
    """All image HDUs with pixels (tile-compressed ones too). Raises ``InputError`` for what is not FITS or
    is cut short."""
    images, position, size = [], 0, source.stamp.size
    if size == 0:
        raise InputError(f"{source.path} is empty (0 bytes).")
    for index in range(_MAX_HDUS):
        text, offset = _read_header(source, position, first=index == 0)
        if text is None:
            break
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image, span = _parse_hdu(source.path, index, fits.Header.fromstring(text), text, offset)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{source.path}: header of extension {index} is malformed: {error}.") from error
        if offset + span > size:
            raise InputError(
                f"{source.path} is truncated: extension {index} needs {offset + span} bytes, the file has "
                f"{size}. Copy it again."
            )
        if image is not None:
            images.append(image)
        position = offset + -(-span // BLOCK) * BLOCK
        if position >= size:
            break
    return images


def _read_header(source: ByteSource, start: int, first: bool) -> tuple[str | None, int]:
    block, text = BLOCK * 4, b""
    while len(text) < _MAX_HEADER:
        part = source.read(start + len(text), block)
        text += part
        if first and not text.startswith(b"SIMPLE  ="):
            raise InputError(f"{source.path} is not a FITS file: it does not start with SIMPLE.")
        if not first and not text.startswith(b"XTENSION"):
            return None, 0
        for i in range(0, len(text) - 79, 80):
            if text[i : i + 8] == b"END     ":
                try:
                    return text[: i + 80].decode("ascii"), start + -(-(i + 80) // BLOCK) * BLOCK
                except UnicodeDecodeError as error:
                    raise InputError(f"{source.path}: a header holds bytes that are not ASCII.") from error
        if len(part) < block:
            break
        block = min(4 * block, 1 << 20)
    raise InputError(
        f"{source.path} is truncated or damaged: a header that starts at byte {start} has no END card."
    )


def _parse_hdu(path: str, index: int, header: Header, text: str, offset: int) -> tuple[ImageHDU | None, int]:
    bitpix, naxis = header["BITPIX"], header["NAXIS"]
    if bitpix not in _DTYPES or not isinstance(naxis, int) or not 0 <= naxis <= 99:
        raise InputError(f"{path}: extension {index} has BITPIX = {bitpix!r}, NAXIS = {naxis!r}.")
    axes = [header[f"NAXIS{k + 1}"] for k in range(naxis)]
    counts = [*axes, header.get("PCOUNT", 0), header.get("GCOUNT", 1)]
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**48 for n in counts):
        raise InputError(f"{path}: extension {index} has impossible axes {counts}.")
    span = abs(bitpix) // 8 * counts[-1] * (counts[-2] + math.prod(axes)) if naxis else 0
    kind = "IMAGE" if index == 0 else str(header["XTENSION"]).strip().upper()
    name = str(header.get("EXTNAME", "PRIMARY" if index == 0 else "")).strip().upper()
    compressed = kind == "BINTABLE" and header.get("ZIMAGE") is True
    if compressed:
        bitpix = header["ZBITPIX"]
        axes = [header[f"ZNAXIS{k + 1}"] for k in range(header["ZNAXIS"])]
    while len(axes) > 2 and axes[-1] == 1:
        axes = axes[:-1]
    if (kind != "IMAGE" and not compressed) or len(axes) not in (2, 3) or not all(axes):
        return None, span
    return ImageHDU(
        path,
        name,
        index,
        tuple(reversed(axes)),
        _DTYPES[bitpix],
        offset,
        _number(header, "BSCALE", 1.0),
        _number(header, "BZERO", 0.0),
        header.get("BLANK") if bitpix > 0 else None,
        text,
        compressed,
    ), span


def _number(header: Header, key: str, default: float) -> float:
    value = float(header.get(key, default))
    if not math.isfinite(value):
        raise ValueError(f"{key} = {value}")
    return value


def choose(images: list[ImageHDU], path: str, ext: tuple[str, ...]) -> ImageHDU:
    """The image named first in ``ext`` (names or indices); the only image when none is named or the names
    are a layout's and just one image exists. Raises ``InputError`` with what the file holds."""
    for want in ext:
        for image in images:
            if (want.isdigit() and image.index == int(want)) or image.name == want.upper():
                return image
    if len(images) == 1 and len(ext) != 1:
        return images[0]
    if not ext and images:
        return images[0]
    held = ", ".join(f"{i.name or i.index}" for i in images) or "no image"
    raise InputError(
        f"{path} has no image extension {' or '.join(ext) or 'at all'}: it holds {held}. "
        "Name one as path[EXTNAME]."
    )


def scaled(block: np.ndarray, image: ImageHDU, dtype: np.dtype) -> np.ndarray:
    """Physical values: BSCALE, BZERO and BLANK applied."""
    if block.dtype.kind == "f":
        if image.bscale == 1.0 and image.bzero == 0.0:
            return block.astype(dtype) if dtype.kind == "f" else np.nan_to_num(block).astype(dtype)
        return (block.astype(np.float64) * image.bscale + image.bzero).astype(dtype)
    if dtype.kind != "f":
        if image.bscale == 1.0 and float(image.bzero).is_integer():
            return (
                block.astype(np.int64) + np.int64(image.bzero)
                if image.bzero < 2**63
                else block.astype(np.int64)
            )
        return (block * image.bscale + image.bzero).astype(np.int64)
    values = block.astype(np.float64) * image.bscale + image.bzero
    if image.blank is not None:
        values[block == image.blank] = np.nan
    return values.astype(np.float32)


def read_image(source: ByteSource, image: ImageHDU, dtype: type[np.generic] = np.float32) -> np.ndarray:
    """A whole image or cube, in native byte order. Raises ``InputError`` if it is cut short."""
    raw = source.read(image.offset, image.nbytes)
    if len(raw) < image.nbytes:
        raise InputError(
            f"{image.path} is truncated: {image.name} needs {image.nbytes} bytes, {len(raw)} are there."
        )
    return scaled(np.frombuffer(raw, image.dtype).reshape(image.shape), image, np.dtype(dtype))
