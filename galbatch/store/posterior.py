"""The posterior store: a Zarr v3 group laid out whole before any worker starts, then filled shard by shard.

One batch is one shard of every array, written once and whole: two processes that write parts of one shard
lose data without an error. Chunk = one source with all its draws, the unit in which it is read; single
images share a chunk of at most ``CHUNK_BYTES``.

Shards are the bytes that zarr-python would write, made and checked without its tasks, which cost more than
the compression: compressed chunks one after the other, then an index of (offset, length) pairs of
little-endian 64-bit integers and its CRC-32C. Arrays of other things than images have one Zstandard chunk per
batch, texts as ``vlen-utf8``.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numcodecs import CRC32C, BitRound, VLenUTF8, Zstd, blosc
from zarr.codecs import BloscCodec, ZstdCodec

from galbatch.errors import RunError
from galbatch.store.bucket import BucketPath
from galbatch.store.checksums import Digest, digest_bytes
from galbatch.store.layout import WCS_PARAMETERS, ArraySpec, StoreLayout
from galbatch.store.paths import move_in, write_atomic, zarr_place

KEEP_BITS = 10
CHUNK_BYTES = 1 << 18
AT_ONCE = 8  # requests to a bucket, which answers each in tens of milliseconds
CNAME: Final = "zstd"
LEVEL = 1
BLOCK_BYTES = 1 << 18  # larger blocks than Blosc chooses at level 1: smaller files, and 1.4 times as fast
CHUNK_LEVEL = 0
_ROUND, _ZSTD = BitRound(KEEP_BITS), Zstd(CHUNK_LEVEL)
_INDEX = np.dtype("<u8")

blosc.use_threads = False  # threads end in any order, and blocks lie in the order in which they end


def create_store(path: Path, layout: StoreLayout) -> None:
    """Write all metadata of the store (atomically: a store either has its whole template or does not
    exist)."""
    if isinstance(path, BucketPath):
        with tempfile.TemporaryDirectory(prefix="galbatch-") as folder:
            create_store(Path(folder) / path.name, layout)
            move_in(Path(folder) / path.name, path)
        return
    building = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    group = zarr.create_group(building, zarr_format=3, attributes=layout.attributes())
    sizes = layout.sizes()
    for spec in layout.arrays().values():
        _create_array(group, spec, layout.batch, sizes)
    for name, values in (("band", layout.bands), ("wcs_parameter", WCS_PARAMETERS)):
        axis = group.create_array(name, shape=(len(values),), dtype=str, dimension_names=(name,))
        axis[:] = np.array(values, dtype=object)
    with warnings.catch_warnings():
        # written once here and never changed: what the warning fears cannot happen
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(building)
    building.rename(path)


def _create_array(group: zarr.Group, spec: ArraySpec, batch: int, sizes: dict[str, int]) -> None:
    shape = spec.shape(sizes)
    block = (batch, *shape[1:])
    if spec.is_image:
        width = 1 if spec.dtype == "uint8" else 4
        codec: BloscCodec | ZstdCodec = BloscCodec(
            cname=CNAME, clevel=LEVEL, shuffle="bitshuffle", typesize=width, blocksize=BLOCK_BYTES
        )
    else:
        codec = ZstdCodec(level=CHUNK_LEVEL, checksum=False)
    group.create_array(
        spec.name,
        shape=shape,
        chunks=(_chunk_sources(spec, batch, sizes), *shape[1:]) if spec.is_image else block,
        dtype=str if spec.dtype == "str" else spec.dtype,
        fill_value=spec.fill,
        dimension_names=spec.dims,
        shards=block if spec.is_image else None,
        compressors=codec,
        attributes={"description": spec.description} | ({"keep_bits": KEEP_BITS} if spec.rounded else {}),
    )


def _chunk_sources(spec: ArraySpec, batch: int, sizes: dict[str, int]) -> int:
    """Sources a chunk: one with all its draws; of single images as many as make a chunk worth its
    overhead."""
    bytes_each = np.dtype(spec.dtype).itemsize * int(np.prod(spec.shape(sizes)[1:]))
    return max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * bytes_each <= CHUNK_BYTES))


def open_store(path: Path) -> Any:
    """The store, for reading. Raises ``RunError`` when it is not there or its template is damaged."""
    try:
        return zarr.open_group(zarr_place(path), mode="r")
    except ValueError as err:
        raise RunError(
            f"{path}/zarr.json: cannot be read ({err}). Restore it, or start again with --overwrite."
        ) from err
    except (FileNotFoundError, KeyError) as err:
        raise _no_store(path) from err


def _no_store(path: Path) -> RunError:
    return RunError(f"{path}: no posterior store. The run never started, or the folder is not a run.")


def write_shards(
    path: Path, layout: StoreLayout, batch: int, arrays: dict[str, np.ndarray]
) -> dict[str, Digest]:
    """Write one batch whole and read it back; returns the digest of every file by its path in the store.

    ``arrays``: (n, ...) by name, n at most ``layout.batch``; missing rows and arrays get the fill value.
    Raises ``RunError`` when what is read back differs from what was written.
    """
    if not path.joinpath("zarr.json").is_file():
        raise _no_store(path)
    sizes = layout.sizes()

    def write(spec: ArraySpec) -> tuple[str, Digest]:
        block = _whole_block(spec, arrays.get(spec.name), (layout.batch, *spec.shape(sizes)[1:]))
        file = "/".join([spec.name, "c", str(batch), *["0"] * (len(spec.dims) - 1)])
        chunk = _chunk_sources(spec, layout.batch, sizes) if spec.is_image else 0
        return file, write_checked(path / file, block, chunk)

    with ThreadPoolExecutor(AT_ONCE if isinstance(path, BucketPath) else 1) as pool:
        return dict(pool.map(write, layout.arrays().values()))


def _whole_block(spec: ArraySpec, values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(object if spec.dtype == "str" else spec.dtype)
    if values is not None and values.shape == shape and values.dtype == kind:
        block = values
    else:
        block = np.full(shape, spec.fill, kind)
        if values is not None:
            block[: len(values)] = values
    return round_mantissa(block) if spec.rounded else block


def round_mantissa(values: np.ndarray) -> np.ndarray:
    """Float32 rounded to ``KEEP_BITS`` explicit mantissa bits, ties to even; non-finite values stay."""
    return np.asarray(_ROUND.encode(np.ascontiguousarray(values, np.float32))).view(np.float32)


def write_checked(path: Path, block: np.ndarray, chunk: int = 0) -> Digest:
    """Write a block whole to ``path``, atomically, read it back; returns the digest of the file.

    ``chunk``: rows of a chunk of a shard; 0: not a shard. Raises ``RunError`` when the bytes read back, or
    what they decode to, are not what was written.
    """
    if block.dtype == object:
        block = np.frombuffer(VLenUTF8().encode(block.ravel()), np.uint8)
    block, step = np.ascontiguousarray(block), chunk or len(block)
    pieces = [block[first : first + step] for first in range(0, len(block), step)]
    encoded = [_blosc(rows) if chunk else _ZSTD.encode(rows) for rows in pieces]
    data = b"".join([*encoded, _index(encoded)] if chunk else encoded)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data, synced=False)
    if (back := path.read_bytes()) != data:
        raise _unreliable(path, data, back)
    for rows, piece in zip(pieces, encoded, strict=True):
        found = blosc.decompress(piece) if chunk else bytes(_ZSTD.decode(piece))
        if found != rows.tobytes():
            raise _unreliable(path, rows.tobytes(), found)
    return digest_bytes(data)


def _blosc(rows: np.ndarray) -> bytes:
    return blosc.compress(rows, CNAME.encode(), LEVEL, blosc.BITSHUFFLE, BLOCK_BYTES)


def _unreliable(path: Path, written: bytes, found: bytes) -> RunError:
    return RunError(
        f"{path}: wrote CRC {zlib.crc32(written):08x}, read back {zlib.crc32(found):08x}. "
        "The disk, file system or memory is not reliable: check it, then resume."
    )


def _index(encoded: list[bytes]) -> bytes:
    lengths = np.array([len(piece) for piece in encoded], _INDEX)
    pairs = np.stack([np.cumsum(lengths, dtype=_INDEX) - lengths, lengths], axis=1).tobytes()
    return bytes(CRC32C(location="end").encode(pairs))
