"""Contact sheets of stamps as PNG, without a plotting library."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from torch import Tensor


def contact_sheet(images: Tensor, path: Path, columns: int = 12) -> None:
    """Grey PNG of (n, 1, H, W) images, each scaled to its peak, asinh stretch."""
    columns = min(columns, len(images))
    n = len(images) // columns * columns
    tiles = images[:n, 0].numpy()
    tiles = np.arcsinh(tiles / tiles.max(axis=(1, 2), keepdims=True) / 0.02) / np.arcsinh(50)
    size = tiles.shape[-1]
    sheet = tiles.reshape(n // columns, columns, size, size).transpose(0, 2, 1, 3).reshape(-1, columns * size)
    Path(path).write_bytes(grey_png((255 * np.clip(0.05 + 0.95 * sheet, 0, 1)).astype(np.uint8)))


def grey_png(pixels: np.ndarray) -> bytes:
    """(H, W) uint8 as a PNG file (ISO/IEC 15948), first row on top."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
