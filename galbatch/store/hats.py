"""The tables of a run as a HATS collection of HEALPix partitions (Hierarchical Adaptive Tiling Scheme, IVOA
note 2025), which LSDB and hats open: ``catalog``, ``statistics`` of the same sources, and the margin of the
catalogue. Streamed; needs nothing but Arrow.

Of a run that goes on, the partitions whose sources are all committed are written; a later export adds those
that were finished since. What is written of a partition is never replaced.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.columns import Column
from galbatch.errors import RunError
from galbatch.store.catalog import merge_catalog
from galbatch.store.folder import ExportFolder, earlier_export, one_line, open_export, refuse_file
from galbatch.store.paths import RunPaths, local_parent, opened, place_of, write_atomic
from galbatch.store.sky import (
    INDEX,
    INDEX_ORDER,
    Homes,
    Partitions,
    by_partition,
    healpix_nested,
    partition_sky,
)

ROWS_PER_PARTITION, BYTES_PER_PARTITION = 1_000_000, 160 << 20  # whichever is less; bytes in memory
BLOCK_BYTES = 48 << 20
MARGIN_ARCSEC = 10.0
CATALOG, STATISTICS, MARGIN = "catalog", "statistics", f"catalog_{MARGIN_ARCSEC:g}arcs"
_WRITTEN_AT_ONCE = 1 << 16
_LIMIT = "rows_per_partition"


@dataclass(frozen=True)
class Exported:
    """The ``partitions`` written, and how many wait for sources that are not done yet (``waiting``)."""

    partitions: Partitions
    waiting: int = 0


def write_hats(
    paths: RunPaths,
    out: Path,
    rows_per_partition: int = 0,
    on_rows: Callable[[int], object] = lambda rows: None,
    info: dict[str, Column] | None = None,
) -> Exported:
    """Write the tables of a run as a new HATS collection, or add to an earlier export of it.

    ``rows_per_partition``: 0 for as many as ``BYTES_PER_PARTITION`` hold, or as in the earlier export.
    ``on_rows`` is called with the number of rows done; ``info``: the columns of a run that goes on. Memory is
    bounded by a block and a partition; scratch space on the disk of ``out`` by the largest table in memory.
    Raises ``RunError`` when no partition is finished, no row has a position, ``out`` holds something else, or
    its disk is too small.
    """
    refuse_file(out := place_of(out))
    with _scratch(out) as folder, ExitStack() as stack:
        if going_on := not paths.catalog.exists():
            if not paths.committed():
                raise RunError(f"{paths.root}: no batch is committed yet, so there is nothing to export.")
            merge_catalog(paths, info or {}, into=RunPaths(folder))
        tables = RunPaths(folder) if going_on else paths
        catalog = stack.enter_context(pq.ParquetFile(opened(tables.catalog), pre_buffer=False))
        files = [catalog]
        if tables.statistics.exists():
            files.append(stack.enter_context(pq.ParquetFile(opened(tables.statistics), pre_buffer=False)))
        row_bytes = max(_row_bytes(file.metadata) for file in files)
        fitting = int(np.clip(BYTES_PER_PARTITION // row_bytes, 1, ROWS_PER_PARTITION))
        limit = int(rows_per_partition or earlier_export(out).get(_LIMIT) or fitting)
        places = (healpix_nested(r["ra"].to_numpy(), r["dec"].to_numpy()) for r in _plan_rows(paths))
        known = (table[INDEX].to_numpy() for table in _groups(catalog, INDEX))
        everywhere = partition_sky(places if going_on else known, limit)
        ready = everywhere.take(~_open_partitions(paths, everywhere)) if going_on else everywhere
        if not len(everywhere):
            raise RunError(f"{paths.root} has no row with a position: there is nothing to export.")
        if not len(ready):
            raise RunError(
                f"{paths.root}: none of its {len(everywhere)} partitions is finished. Export later."
            )
        _refuse_full_disk(folder, row_bytes * int(everywhere.rows.sum()))
        into = _Collection(
            open_export(out, "hats", paths, **{_LIMIT: limit}), ready, folder / "scratch.arrow"
        )
        into.dataset(CATALOG, lambda: _groups(catalog), ready.homes, on_rows)
        for statistics in files[1:]:
            into.dataset(STATISTICS, partial(_beside, statistics, catalog), ready.homes)
        if not going_on:
            into.dataset(MARGIN, lambda: _groups(catalog), ready.margins(MARGIN_ARCSEC))
        into.describe(margin=not going_on)
    return Exported(ready, len(everywhere) - len(ready))


def _open_partitions(paths: RunPaths, partitions: Partitions) -> np.ndarray:
    """(n,) bool: partitions with a source that is not committed."""
    committed, waiting = np.array(sorted(paths.committed())), np.zeros(len(partitions), bool)
    for rows in _plan_rows(paths):
        open_rows = ~np.isin(rows["batch"].to_numpy(), committed)
        ra, dec = (rows[name].to_numpy()[open_rows] for name in ("ra", "dec"))
        home = partitions.home(healpix_nested(ra, dec))
        waiting[home[home >= 0]] = True
    return waiting


def _plan_rows(paths: RunPaths) -> Iterator[pa.Table]:
    with pq.ParquetFile(opened(paths.plan), pre_buffer=False) as plan:
        yield from _groups(plan, "ra", "dec", "batch")


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A new folder beside ``out``, or in the system's temporary one where that is in a bucket; gone in the
    end."""
    folder = local_parent(out.absolute()) / f".{out.name}.{uuid.uuid4().hex[:12]}.tmp"
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


def _groups(file: pq.ParquetFile, *columns: str) -> Iterator[pa.Table]:
    """The rows of a file, group by group; all columns where none is named."""
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=list(columns) or None, use_threads=False)
        yield table.replace_schema_metadata(None)


def _beside(statistics: pq.ParquetFile, catalog: pq.ParquetFile) -> Iterator[pa.Table]:
    """The statistics with the positions of their sources, which lie in the same rows of the catalogue."""
    places = _groups(catalog, "source_id", "ra", "dec", INDEX)
    for table, place in zip(_groups(statistics), places, strict=True):
        if not place["source_id"].equals(table["source_id"]):
            raise RunError("The statistics are not of the rows of the catalogue: see `galbatch verify`.")
        for at, name in ((1, "ra"), (2, "dec"), (table.num_columns + 2, INDEX)):
            table = table.add_column(at, name, place[name])
        yield table


def _blocks(groups: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The rows of a table, about ``BLOCK_BYTES`` at a time, of which nothing is kept here."""
    held: list[pa.Table] = []
    for table in groups:
        held.append(table)
        del table
        if sum(t.nbytes for t in held) >= BLOCK_BYTES:
            yield pa.concat_tables([held.pop(0) for _ in range(len(held))])
    if held:
        yield pa.concat_tables([held.pop(0) for _ in range(len(held))])


class _Collection:
    """The folder of a collection, filled dataset by dataset."""

    def __init__(self, folder: ExportFolder, partitions: Partitions, scratch: Path) -> None:
        self.folder, self.partitions, self.scratch = folder, partitions, scratch

    def dataset(
        self,
        name: str,
        groups: Callable[[], Iterator[pa.Table]],
        homes: Homes,
        on_rows: Callable[[int], object] = lambda rows: None,
    ) -> None:
        """Write the partitions of a table and, last, what describes them."""
        schema, size = next(groups()).schema, 0
        numbers: list[int] = []
        rows: list[int] = []
        root = self.folder.path / name
        self._file(f"{name}/dataset/_common_metadata", lambda path: pq.write_metadata(schema, path))
        for number, table in by_partition(_blocks(groups()), schema, homes, self.scratch):
            order, pixel = int(self.partitions.order[number]), int(self.partitions.pixel[number])
            inside = f"Norder={order}/Dir={_dir(pixel)}/Npix={pixel}.parquet"
            self._file(f"{name}/dataset/{inside}", partial(_write_partition, table=table))
            numbers, rows, size = [*numbers, number], [*rows, table.num_rows], size + table.nbytes
            on_rows(table.num_rows)
        found = self.partitions.take(np.array(numbers, int), np.array(rows, np.int64))
        write_atomic(root / "partition_info.csv", _partition_info(found).encode())
        write_atomic(root / "hats.properties", _properties(name, found, size).encode())

    def describe(self, margin: bool) -> None:
        """Write ``collection.properties``, with which the folder is a collection."""
        title = one_line(self.folder.path.name, ascii_only=True).replace("\\", "/")
        fields = {"obs_collection": title, "hats_primary_table_url": CATALOG}
        if margin:
            fields |= {"all_margins": MARGIN, "default_margin": MARGIN}
        write_atomic(self.folder.path / "collection.properties", _lines(fields))

    def _file(self, name: str, write: Callable[[Path], object]) -> None:
        (self.folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        self.folder.place(name, write)


def _dir(pixel: int) -> int:
    return pixel // 10_000 * 10_000


def _write_partition(path: Path, table: pa.Table) -> None:
    rows = np.argsort(table[INDEX].to_numpy(), kind="stable")
    floats = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    text = [f.name for f in table.schema if pa.types.is_string(f.type)]
    with pq.ParquetWriter(
        path,
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
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": partitions.rows.sum(),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": INDEX,
        "hats_col_healpix_order": INDEX_ORDER,
        "hats_max_rows": partitions.rows.max(initial=0),
        "hats_order": partitions.order.max(initial=0),
        "hats_builder": "galbatch",
        "hats_version": "v0.1",
        "hats_estsize": size // 1024,
    }
    if name == MARGIN:
        fields |= {"dataproduct_type": "margin", "hats_primary_table_url": CATALOG}
        fields["hats_margin_threshold"] = MARGIN_ARCSEC
    return _lines(fields).decode()


def _lines(fields: Mapping[str, object]) -> bytes:
    return "".join(f"{key}={value}\n" for key, value in fields.items()).encode()
