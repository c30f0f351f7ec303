"""The posterior store: a Zarr v3 group laid out whole before any worker starts, then filled shard by shard.

One batch is one shard of every array, written once and whole: two processes that write parts of one shard
lose data without an error. Chunk = one source with all its draws, the unit in which it is read; single
images share a chunk of at most ``CHUNK_BYTES``.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from galbatch.errors import RunError
from galbatch.store.bucket import BucketPath
from galbatch.store.checksums import Digest
from galbatch.store.layout import WCS_PARAMETERS, ArraySpec, StoreLayout
from galbatch.store.place import local_parent, move_in, zarr_place
from galbatch.store.shards import BLOCK_BYTES, CHUNK_LEVEL, CNAME, LEVEL, checksum, write_checked

KEEP_BITS = 10
CHUNK_BYTES = 1 << 18
_IN_CACHE = 1 << 15
AT_ONCE = 8  # requests to a bucket, which answers each in tens of milliseconds


def create_store(path: Path, layout: StoreLayout) -> None:
    """Write all metadata of the store (atomically: a store either has its whole template or does not
    exist)."""
    parent = local_parent(path)
    if parent is None:
        with tempfile.TemporaryDirectory(prefix="galbatch-") as folder:
            create_store(Path(folder) / path.name, layout)
            move_in(Path(folder) / path.name, path)
        return
    building = parent / f".{path.name}.tmp"
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
) -> tuple[dict[str, int], dict[str, Digest]]:
    """Write one batch whole and read it back; returns the CRC-32 of every array's block, and the digest of
    every file by its path in the store.

    ``arrays``: (n, ...) by name, n at most ``layout.batch``; missing rows and arrays get the fill value.
    Raises ``RunError`` when what is read back differs from what was written.
    """
    if not path.joinpath("zarr.json").is_file():
        raise _no_store(path)
    sizes = layout.sizes()

    def write(spec: ArraySpec) -> tuple[str, int, Digest, str]:
        block = _whole_block(spec, arrays.get(spec.name), (layout.batch, *spec.shape(sizes)[1:]))
        file = "/".join([spec.name, "c", str(batch), *["0"] * (len(spec.dims) - 1)])
        chunk = _chunk_sources(spec, layout.batch, sizes) if spec.is_image else 0
        return spec.name, *write_checked(path / file, block, chunk), file

    with ThreadPoolExecutor(AT_ONCE if isinstance(path, BucketPath) else 1) as pool:
        written = list(pool.map(write, layout.arrays().values()))
    sums = {name: crc for name, crc, _, _ in written}
    files = {file: digest for _, _, digest, file in written}
    return sums, files


def _whole_block(spec: ArraySpec, values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(object if spec.dtype == "str" else spec.dtype)
    if values is not None and values.shape == shape and values.dtype == kind:
        block = values
    else:
        block = np.full(shape, spec.fill, kind)
        if values is not None:
            block[: len(values)] = values
    return round_mantissa(block) if spec.rounded else block


def read_sums(path: Path, layout: StoreLayout, batch: int) -> dict[str, int]:
    """CRC-32 of every array's block of a batch as it is on disk now. Raises whatever a damaged shard
    raises."""
    group = open_store(path)
    return {name: checksum(np.asarray(group[name][layout.rows(batch)])) for name in layout.arrays()}


def round_mantissa(values: np.ndarray, keep: int = KEEP_BITS) -> np.ndarray:
    """Float32 rounded to ``keep`` explicit mantissa bits, ties to even; non-finite values stay."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    result = np.empty_like(values)
    flat, out = values.reshape(-1), result.reshape(-1)
    for start in range(0, flat.size, _IN_CACHE):  # memory traffic is what this costs
        piece = slice(start, start + _IN_CACHE)
        _round(flat[piece], out[piece], 23 - keep)
    return result


def _round(values: np.ndarray, out: np.ndarray, drop: int) -> None:
    bits, rounded = values.view(np.uint32), out.view(np.uint32)
    np.right_shift(bits, np.uint32(drop), out=rounded)
    rounded &= np.uint32(1)
    rounded += bits
    rounded += np.uint32((1 << (drop - 1)) - 1)
    rounded &= np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    finite = np.isfinite(values)
    if not finite.all():
        np.copyto(out, values, where=~finite)
