"""The file of one batch of one array: the bytes that zarr-python would write, made and checked without its
tasks, which cost more than the compression.

An image array has one shard per batch (Zarr v3 ``sharding_indexed``): compressed chunks one after the other,
then an index of (offset, length) pairs of little-endian 64-bit integers and its CRC-32C. Every other array
has one Zstandard chunk per batch, texts as ``vlen-utf8``.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numcodecs
import numpy as np
from numcodecs import CRC32C, blosc

from galbatch.errors import RunError
from galbatch.store.bucket import BucketPath
from galbatch.store.checksums import Digest, digest_bytes

CNAME: Final = "zstd"
LEVEL = 1
BLOCK_BYTES = 1 << 18  # larger blocks than Blosc chooses at level 1: smaller files, and 1.4 times as fast
CHUNK_LEVEL = 0
_INDEX = np.dtype("<u8")

blosc.use_threads = False  # threads end in any order, and blocks lie in the order in which they end


def write_checked(path: Path, block: np.ndarray, chunk: int = 0) -> tuple[int, Digest]:
    """Write a block whole to ``path``, atomically, read it back; returns the CRC-32 of its values and the
    digest of the file.

    ``chunk``: rows of a chunk of a shard; 0: not a shard. Raises ``RunError`` when the bytes read back, or
    what they decode to, are not what was written.
    """
    written = found = 0
    encoded = []
    for rows in _chunks(block, chunk):
        written = _sum(rows, written)
        encoded.append(_compress(rows) if chunk else _pack(rows))
    data = b"".join([*encoded, _index(encoded)] if chunk else encoded)
    _replace(path, data)
    if (back := path.read_bytes()) != data:
        raise _unreliable(path, zlib.crc32(data), zlib.crc32(back))
    for piece in encoded:
        found = zlib.crc32(blosc.decompress(piece), found) if chunk else _sum(_unpack(piece, block), found)
    if found != written:
        raise _unreliable(path, written, found)
    return written, digest_bytes(data)


def _unreliable(path: Path, written: int, found: int) -> RunError:
    return RunError(
        f"{path}: wrote CRC {written:08x}, read back {found:08x}. "
        "The disk, file system or memory is not reliable: check it, then resume."
    )


def checksum(block: np.ndarray) -> int:
    """CRC-32 of the values (strings: of their UTF-8, NUL-separated)."""
    return _sum(block, 0)


def _sum(block: np.ndarray, start: int) -> int:
    if block.dtype.kind in "OUST":
        return zlib.crc32("\0".join(map(str, block.ravel())).encode(), start)
    return zlib.crc32(np.ascontiguousarray(block).data, start)


def _chunks(block: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    block = np.ascontiguousarray(block)
    for first in range(0, len(block), chunk or len(block)):
        yield block[first : first + (chunk or len(block))]


def _compress(rows: np.ndarray) -> bytes:
    return blosc.compress(rows, CNAME.encode(), LEVEL, blosc.BITSHUFFLE, BLOCK_BYTES)


def _pack(rows: np.ndarray) -> bytes:
    if rows.dtype == object:
        rows = numcodecs.VLenUTF8().encode(rows.ravel())
    return numcodecs.Zstd(CHUNK_LEVEL).encode(rows)


def _unpack(data: bytes, like: np.ndarray) -> np.ndarray:
    plain = numcodecs.Zstd(CHUNK_LEVEL).decode(data)
    return numcodecs.VLenUTF8().decode(plain) if like.dtype == object else np.frombuffer(plain, like.dtype)


def _index(encoded: list[bytes]) -> bytes:
    lengths = np.array([len(piece) for piece in encoded], _INDEX)
    pairs = np.stack([np.cumsum(lengths, dtype=_INDEX) - lengths, lengths], axis=1).tobytes()
    return bytes(CRC32C(location="end").encode(pairs))


def _replace(path: Path, data: bytes) -> None:
    if isinstance(path, BucketPath):
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
