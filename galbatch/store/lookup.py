"""Where sources lie on the source axis of the store: looked up in the plan, row group after row group, so
that a few sources of a large run cost neither the memory nor the names of all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.store.place import opened

_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)


def find_sources(plan: Path, ids: Iterable[str] | None = None) -> dict[str, int]:
    """Row in the plan by id as text: of the sources of these ids and of those whose ids differ from them in
    the capitals of ASCII letters only; of all sources where ``ids`` is None.

    Raises ``RunError`` when the plan cannot be read.
    """
    found: dict[str, int] = {}
    try:
        with pq.ParquetFile(opened(plan), pre_buffer=False) as file:
            kind = file.schema_arrow.field("source_id").type
            wanted = None if ids is None else _wanted(ids, kind)
            for first, column in _row_groups(file, wanted):
                rows = np.arange(len(column)) if wanted is None else _rows(column, wanted)
                names = column.take(pa.array(rows)).to_pylist()
                found |= {str(name): first + row for name, row in zip(names, rows.tolist(), strict=True)}
    except (OSError, pa.ArrowException) as err:
        raise RunError(
            f"{plan}: cannot be read ({err}). `galbatch resume {plan.parent}` makes it again."
        ) from err
    return found


def row_group(metadata: pq.FileMetaData, row: int) -> tuple[int, int]:
    """The row group of a Parquet file that holds a row, and its first row. Raises ``IndexError``."""
    first = 0
    for group in range(metadata.num_row_groups):
        stop = first + metadata.row_group(group).num_rows
        if first <= row < stop:
            return group, first
        first = stop
    raise IndexError(f"row {row} of {first}")


def read_row(table: Path, row: int) -> dict[str, Any]:
    """The values of one row of a Parquet file by column; its row group alone is read."""
    with pq.ParquetFile(opened(table), pre_buffer=False) as file:
        group, first = row_group(file.metadata, row)
        return file.read_row_group(group, use_threads=False).slice(row - first, 1).to_pylist()[0]


def _wanted(ids: Iterable[str], kind: pa.DataType) -> pa.Array:
    """Ids in the type of the plan: texts without capitals, or those that are integers."""
    if not pa.types.is_integer(kind):
        return pc.ascii_lower(pa.array(ids, kind))
    return pa.array([int(text) for text in ids if _INTEGER.fullmatch(text) and abs(int(text)) < 2**63], kind)


def _row_groups(file: pq.ParquetFile, wanted: pa.Array | None) -> Iterator[tuple[int, pa.ChunkedArray]]:
    """First row and ids of every row group but those that, as their footer says, hold none of the integers
    ``wanted``."""
    first, column = 0, file.schema_arrow.names.index("source_id")
    for number in range(file.num_row_groups):
        about = file.metadata.row_group(number)
        ends = about.column(column).statistics
        if wanted is None or not _is_without(wanted, ends):
            yield first, file.read_row_group(number, columns=["source_id"])["source_id"]
        first += about.num_rows


def _is_without(wanted: pa.Array, ends: pq.Statistics | None) -> bool:
    if not pa.types.is_integer(wanted.type) or ends is None or not ends.has_min_max:
        return False
    values = wanted.to_numpy()
    return not np.any((values >= ends.min) & (values <= ends.max))


def _rows(column: pa.ChunkedArray, wanted: pa.Array) -> np.ndarray:
    same = column if pa.types.is_integer(wanted.type) else pc.ascii_lower(column)
    return np.flatnonzero(pc.is_in(same, wanted).to_numpy())
