"""``plan.parquet``: every row of the catalogue, sorted by tile then row, with its batch and slot.

Plan row ``i`` is position ``i`` on the source axis of the posterior store: batch ``i // n``, slot ``i % n``.
Catalogue columns that only pass through are kept under the prefix ``cat:``, so that the merge needs no other
file.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.errors import InputError, RunError
from galbatch.store.paths import local_parent, opened, place_of, replacing
from galbatch.store.selection import row_group

PASS = "cat:"
CUT = "cut:"  # prefix of catalogue columns that say how a source is cut
_UNSAFE = re.compile(r"[^A-Za-z0-9_.]+")
_ROW_GROUP = 65_536


@dataclass(frozen=True)
class PlanBatch:
    """The rows of one batch: its number and numpy columns (source_id, ra, dec, tile, x, y, prescreen_flags,
    ...)."""

    batch: int
    columns: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """Number of the batch and, where the plan knows it, the tile of its first source (``+2``: two more
        tiles)."""
        tiles = dict.fromkeys(str(tile) for tile in self.columns.get("tile", ()) if tile)
        if not tiles:
            return f"galbatch-batch-{self.batch:06d}"
        first = _UNSAFE.sub("_", next(iter(tiles)))[:40]
        return f"galbatch-batch-{self.batch:06d}-tile-{first}" + (
            f"+{len(tiles) - 1}" if len(tiles) > 1 else ""
        )

    def __len__(self) -> int:
        return len(self.columns["source_id"])

    def take(self, slots: np.ndarray) -> PlanBatch:
        """The same batch with these rows only."""
        return PlanBatch(self.batch, {name: values[slots] for name, values in self.columns.items()})


def to_cut(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of rows of a plan that say how they are cut, as a survey names them."""
    own = {name: columns[name] for name in ("source_id", "ra", "dec")}
    return own | {n.removeprefix(CUT): v for n, v in columns.items() if n.startswith(CUT)}


class PlanWriter:
    """Sorts rows by tile while they stream in, and in a tile by strips of ``strip_pix`` rows of its image (0:
    one strip), so that a strip is read once; memory stays bounded by ``spill_rows`` rows.

    Use as a context; ``add`` row blocks in catalogue order; the file appears, whole, when the context ends.
    """

    def __init__(self, path: Path, batch: int, spill_rows: int = 500_000, strip_pix: int = 0) -> None:
        self.path, self.batch, self.spill_rows = place_of(path), batch, spill_rows
        self.strip_pix = strip_pix
        self.n_rows, self._buffered, self._spills = 0, 0, 0
        self._buckets: dict[tuple[str, int], list[pa.Table]] = {}
        self._files: dict[tuple[str, int], list[Path]] = {}
        self._schema: pa.Schema | None = None
        self._scratch: Path | None = None

    def __enter__(self) -> PlanWriter:
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._write()
        finally:
            if self._scratch is not None:
                shutil.rmtree(self._scratch, ignore_errors=True)

    def add(self, core: dict[str, np.ndarray], passing: dict[str, object] | None = None) -> None:
        """Append rows. ``core`` holds galbatch's own columns, among them ``tile``; ``passing`` the
        catalogue's."""
        columns = core | {PASS + name: values for name, values in (passing or {}).items()}
        table = pa.table({name: _array(values) for name, values in columns.items()})
        n = table.num_rows
        table = table.append_column("source_row", pa.array(np.arange(self.n_rows, self.n_rows + n)))
        if self._schema is None:
            self._schema = table.schema
        table = _conform(table, self._schema)
        tiles = np.asarray(core["tile"]).astype(str)
        strips = self._strips(core["y"]) if self.strip_pix else np.zeros(n, np.int64)
        for home in sorted(set(zip(tiles.tolist(), strips.tolist(), strict=True))):
            pick = np.flatnonzero((tiles == home[0]) & (strips == home[1]))
            rows = table if len(pick) == n else table.take(pa.array(pick))
            self._buckets.setdefault(home, []).append(rows)
        self.n_rows += n
        self._buffered += n
        if self._buffered >= self.spill_rows:
            self._spill()

    def _strips(self, y: np.ndarray) -> np.ndarray:
        """Number of the strip of every row (n,); -1 where it has no place on an image."""
        known = np.isfinite(y) & (np.abs(y) < 2**31)
        return np.where(known, np.floor(np.where(known, y, 0) / self.strip_pix), -1).astype(np.int64)

    def _spill(self) -> None:
        if self._scratch is None:
            self._scratch = Path(
                tempfile.mkdtemp(prefix=".plan-", suffix=".tmp", dir=local_parent(self.path))
            )
        for number, (home, tables) in enumerate(sorted(self._buckets.items(), key=lambda b: b[0])):
            file = self._scratch / f"{self._spills:06d}-{number:06d}.parquet"
            pq.write_table(pa.concat_tables(tables), file, compression="zstd", use_dictionary=False)
            self._files.setdefault(home, []).append(file)
        self._buckets, self._buffered = {}, 0
        self._spills += 1

    def _pieces(self) -> Iterator[pa.Table]:
        """Row blocks in the order of the plan; rows outside every tile (tile '') come last."""
        for home in sorted({*self._files, *self._buckets}, key=lambda h: (h[0] == "", h)):
            for file in self._files.get(home, []):
                yield pq.read_table(file)
            yield from self._buckets.get(home, [])

    def _write(self) -> None:
        if self._schema is None:
            raise InputError("The catalogue has no columns to plan: it must have source_id, ra and dec.")
        schema = self._schema.append(pa.field("batch", pa.int64())).append(pa.field("slot", pa.int32()))
        group = max(1, _ROW_GROUP // self.batch) * self.batch
        with (
            replacing(self.path) as tmp,
            pq.ParquetWriter(
                tmp, schema, compression="zstd", compression_level=1, use_dictionary=["tile"]
            ) as out,
        ):
            start = 0
            for table in _regroup(self._pieces(), group):
                row = np.arange(start, start + table.num_rows)
                table = table.append_column("batch", pa.array(row // self.batch))
                out.write_table(table.append_column("slot", pa.array((row % self.batch).astype(np.int32))))
                start += table.num_rows


def _array(values: Any) -> pa.Array:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    values = np.asarray(values)
    return pa.array(values.astype(object) if values.dtype.kind == "U" else values)


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as err:
        raise InputError(
            f"The catalogue changes its column types on the way ({err}): store every column with one type."
        ) from err


def _regroup(pieces: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in blocks of ``size`` (the last may be smaller)."""
    held, count = [], 0
    for piece in pieces:
        while piece.num_rows:
            take = min(size - count, piece.num_rows)
            held.append(piece.slice(0, take))
            piece, count = piece.slice(take), count + take
            if count == size:
                yield pa.concat_tables(held).combine_chunks()
                held, count = [], 0
    if count:
        yield pa.concat_tables(held).combine_chunks()


def iter_plan(path: Path) -> Iterator[PlanBatch]:
    """The batches of a plan in order, read row group by row group; pass-through columns are left in the
    file."""
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            yield from _batches(file, group)


def plan_batch(path: Path, row: int) -> PlanBatch:
    """The batch that holds a row of the plan; its row group alone is read."""
    with _opened(path) as file:
        group, first = row_group(file.metadata, row)
        batches = list(_batches(file, group))
        return batches[(row - first) // len(batches[0])]


def _batches(file: pq.ParquetFile, group: int) -> Iterator[PlanBatch]:
    names = [n for n in file.schema_arrow.names if not n.startswith(PASS)]
    table = file.read_row_group(group, columns=names)
    columns = {n: _numpy(table[n]) for n in names}
    batch = columns.pop("batch")
    edges = np.flatnonzero(np.diff(batch)) + 1
    for start, stop in zip([0, *edges], [*edges, len(batch)], strict=True):
        if stop > start:
            yield PlanBatch(int(batch[start]), {k: v[start:stop] for k, v in columns.items()})


def plan_rows(path: Path) -> int:
    """Number of rows, from the footer."""
    with _opened(path) as file:
        return file.metadata.num_rows


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The plan, for reading. Raises ``RunError`` when it is damaged."""
    try:
        with pq.ParquetFile(opened(path), pre_buffer=False) as file:
            yield file
    except (OSError, pa.ArrowException) as err:
        raise RunError(
            f"{path}: cannot be read ({err}). A run cannot go on without its plan: "
            "start again with --overwrite."
        ) from err


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    values = column.to_numpy()
    return values.astype(str) if values.dtype == object else values
