"""The catalogue as a HATS collection of HEALPix partitions (Hierarchical Adaptive Tiling Scheme, IVOA note
2025), which LSDB and hats open. Streamed from ``catalog.parquet``; needs nothing but Arrow.

Three passes, none of which holds more than one partition: count the rows of every fine pixel; sort block
after block into one scratch file beside the result, cut where partitions end; put the pieces of each
partition together.
"""

from __future__ import annotations

import itertools
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.store.export_folder import one_line, refuse_file
from galbatch.store.paths import RunPaths

INDEX, INDEX_ORDER = "_healpix_29", 29
MAX_ORDER = 10
ROWS_PER_PARTITION, BYTES_PER_PARTITION = 1_000_000, 160 << 20  # whichever is less; bytes in memory
BLOCK_BYTES = 48 << 20
_WRITTEN_AT_ONCE = 1 << 16


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


def write_hats(
    paths: RunPaths,
    out: Path,
    rows_per_partition: int = 0,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> Partitions:
    """Write the catalogue of a finished run as a new HATS folder; returns its partitions.

    ``rows_per_partition``: 0 for as many as ``BYTES_PER_PARTITION`` hold. ``on_rows`` is called with the
    number of rows done. Memory is bounded by a block and a partition; scratch space on the disk of ``out``
    by the catalogue in memory. Raises ``RunError`` when the run has no catalogue or no row with a position,
    ``out`` is there already, or its disk is too small.
    """
    if not paths.catalogue.exists():
        raise RunError(
            f"{paths.catalogue}: not written yet. Finish the run with `galbatch resume {paths.root}`."
        )
    refuse_file(out := Path(out))
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} is not empty: nothing was written. Name a new folder with --out.")
    with pq.ParquetFile(paths.catalogue, pre_buffer=False) as catalogue, _scratch(out) as folder:
        row_bytes = _row_bytes(catalogue.metadata)
        limit = rows_per_partition or int(np.clip(BYTES_PER_PARTITION // row_bytes, 1, ROWS_PER_PARTITION))
        partitions = partition_sky(_indices(catalogue), limit)
        if not len(partitions):
            raise RunError(f"{paths.catalogue} has no row with a position: there is nothing to export.")
        _refuse_full_disk(folder, row_bytes * int(partitions.rows.sum()))
        size = _write_dataset(catalogue, folder, partitions, on_rows)
        (folder / "partition_info.csv").write_text(_partition_info(partitions))
        (folder / "hats.properties").write_text(_properties(out.name, partitions, size))
        folder.replace(out)
    return partitions


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A new folder beside ``out``, gone in the end unless it was renamed."""
    folder = out.absolute().with_name(f".{out.name}.{uuid.uuid4().hex[:12]}.tmp")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _row_bytes(metadata: pq.FileMetaData) -> int:
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    return 1 + sum(g.total_byte_size for g in groups) // max(1, metadata.num_rows)


def _refuse_full_disk(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 2 * size:
        raise RunError(
            f"{folder.parent} has {free / 1e9:.2f} GB free; the export and its scratch file need up to "
            f"{2 * size / 1e9:.2f} GB. Name a folder on another disk with --out."
        )


def _indices(catalogue: pq.ParquetFile) -> Iterator[np.ndarray]:
    for group in range(catalogue.num_row_groups):
        yield catalogue.read_row_group(group, columns=[INDEX])[INDEX].to_numpy()


def partition_sky(indices: Iterator[np.ndarray], limit: int) -> Partitions:
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
    return Partitions(*np.array(found, np.int64).reshape(-1, 3).T, left_out)


def _write_dataset(
    catalogue: pq.ParquetFile, folder: Path, partitions: Partitions, on_rows: Callable[[int], object]
) -> int:
    """Write all partition files; returns their bytes in memory."""
    scratch, size = folder / "scratch.arrow", 0
    pieces = _sort_into(catalogue, scratch, partitions)
    schema = catalogue.schema_arrow.remove_metadata()
    (folder / "dataset").mkdir()
    pq.write_metadata(schema, folder / "dataset" / "_common_metadata")
    with pa.OSFile(str(scratch)) as file, pa.ipc.open_file(file) as spilled:
        for order, pixel, numbers in zip(partitions.order, partitions.pixel, pieces, strict=True):
            table = pa.Table.from_batches([spilled.get_batch(k) for k in numbers])
            size += table.nbytes
            _write_partition(folder, table, int(order), int(pixel))
            on_rows(table.num_rows)
    scratch.unlink()
    return size


def _sort_into(catalogue: pq.ParquetFile, scratch: Path, partitions: Partitions) -> list[list[int]]:
    """Write the rows to ``scratch`` in batches that belong to one partition each; returns the numbers of the
    batches by partition."""
    homes: list[int] = []
    schema = catalogue.schema_arrow.remove_metadata()
    with pa.OSFile(str(scratch), "wb") as file, pa.ipc.new_file(file, schema) as out:
        for block in _blocks(catalogue):
            homes += _sort_block(block, out, partitions.starts)
    found = np.array(homes)
    return [np.flatnonzero(found == k).tolist() for k in range(len(partitions))]


def _sort_block(block: pa.Table, out: pa.RecordBatchWriter, starts: np.ndarray) -> list[int]:
    """Write the rows of a block in the order of the sky, cut where partitions begin; returns the partition of
    every batch."""
    index = block[INDEX].to_numpy()
    rows, homes = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :], []
    block = block.take(pa.array(rows)).replace_schema_metadata(None).combine_chunks()
    home = np.searchsorted(starts, index[rows], side="right") - 1
    edges = [0, *(np.flatnonzero(np.diff(home)) + 1).tolist(), len(home)]
    for first, stop in itertools.pairwise(edges):
        for batch in block.slice(first, stop - first).to_batches() if stop > first else ():
            out.write_batch(batch)
            homes.append(int(home[first]))
    return homes


def _blocks(catalogue: pq.ParquetFile) -> Iterator[pa.Table]:
    """The rows of the catalogue, about ``BLOCK_BYTES`` at a time, of which nothing is kept here."""
    held: list[pa.Table] = []
    for group in range(catalogue.num_row_groups):
        held.append(catalogue.read_row_group(group, use_threads=False))
        if group == catalogue.num_row_groups - 1 or sum(t.nbytes for t in held) >= BLOCK_BYTES:
            yield pa.concat_tables([held.pop(0) for _ in range(len(held))])


def _dir(pixel: int) -> int:
    return pixel // 10_000 * 10_000


def _write_partition(folder: Path, table: pa.Table, order: int, pixel: int) -> None:
    place = folder / "dataset" / f"Norder={order}" / f"Dir={_dir(pixel)}"
    place.mkdir(parents=True, exist_ok=True)
    rows = np.argsort(table[INDEX].to_numpy(), kind="stable")
    floats = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    text = [f.name for f in table.schema if pa.types.is_string(f.type)]
    with pq.ParquetWriter(
        place / f"Npix={pixel}.parquet",
        table.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=text,
        use_byte_stream_split=floats,
    ) as out:
        for first in range(0, len(rows), _WRITTEN_AT_ONCE):
            out.write_table(table.take(pa.array(rows[first : first + _WRITTEN_AT_ONCE])))


def _partition_info(partitions: Partitions) -> str:
    lines = ["Norder,Npix,Dir,num_rows"]
    for order, pixel, rows in zip(partitions.order, partitions.pixel, partitions.rows, strict=True):
        lines.append(f"{order},{pixel},{_dir(pixel)},{rows}")
    return "\n".join(lines) + "\n"


def _properties(name: str, partitions: Partitions, size: int) -> str:
    fields = {
        "obs_collection": one_line(name, ascii_only=True).replace("\\", "/"),
        "dataproduct_type": "object",
        "hats_nrows": partitions.rows.sum(),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": INDEX,
        "hats_col_healpix_order": INDEX_ORDER,
        "hats_max_rows": partitions.rows.max(),
        "hats_order": partitions.order.max(),
        "hats_builder": "galbatch",
        "hats_version": "v0.1",
        "hats_estsize": size // 1024,
    }
    return "".join(f"{key}={value}\n" for key, value in fields.items())
