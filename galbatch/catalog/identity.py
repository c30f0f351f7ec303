"""Ids of sources: each there, plain, of a length that every format holds, and no two alike. Streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_

from galbatch.errors import InputError
from galbatch.types import Finding, Flag

if TYPE_CHECKING:
    from galbatch.catalog.reader import Catalog


LONGEST_ID = 256
_LISTED = 10
_CONTROL = r"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]"  # of the UTF-8 bytes
_LAST = 2**63 - 1


def ids_to_numpy(path: str, column: pa.ChunkedArray, first_row: int = 0) -> np.ndarray:
    """Ids (n,) as int64, or as str in an object array. Raises ``InputError`` with rows (counted from 0) and
    remedy for those that are missing or that no product could hold."""
    for bad, what, remedy in _faults(column):
        rows = np.flatnonzero(np.asarray(pc.fill_null(bad, True)))
        if len(rows):
            raise InputError(
                f"{path}: source_id {what} in {'row' if len(rows) == 1 else f'{len(rows)} rows, e.g. row'} "
                f"{first_row + int(rows[0])} (counted from 0)"
                f"{_shown(column[int(rows[0])].as_py())}. {remedy}"
            )
    if is_.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()))
    return np.asarray(column.to_pylist(), dtype=object)


def _faults(column: pa.ChunkedArray) -> Iterator[tuple[pa.ChunkedArray, str, str]]:
    """(rows bool, what is wrong with them, remedy), one kind after the other."""
    yield pc.is_null(column), "is missing", "Every source needs an id: fill it in, or drop the row."
    if column.type == pa.uint64():
        yield (
            pc.greater(column, pa.scalar(_LAST, pa.uint64())),
            "is above 2^63 - 1",
            "Store the ids as text: they are kept to the last digit.",
        )
    if is_.is_string(column.type):
        yield (
            pc.greater(pc.utf8_length(column), LONGEST_ID),
            f"is longer than {LONGEST_ID} characters",
            "Give the source a shorter id, and keep the long text in another column.",
        )
        yield (
            pc.match_substring_regex(column.cast(pa.binary()), _CONTROL),
            "holds a control character (NUL, newline, tab or the like)",
            "Take it out: it breaks file names, tables and terminals.",
        )


def _shown(value: int | str | None) -> str:
    text = "" if value is None else repr(value)
    return f": {text[:60]}{'...' * (len(text) > 60)}" if text else ""


def check_ids(catalog: Catalog, subject: str) -> tuple[np.ndarray, list[Finding]]:
    """Flags (n,) int64 with DUPLICATE_ID, and what is wrong with the ids of the whole catalogue."""
    keys, flags = None, np.zeros(catalog.n_rows, np.int64)
    try:
        for start, rows in catalog.batches(["source_id"]):
            part = rows["source_id"] if rows["source_id"].dtype != object else _hashes(rows["source_id"])
            if keys is None:
                keys = np.empty(catalog.n_rows, part.dtype)
            keys[start : start + len(part)] = part
    except InputError as error:
        return flags, [Finding("error", "source_id", subject, str(error), "Correct source_id.")]
    double = np.array([], bool) if keys is None else duplicates(keys)
    if not double.any():
        return flags, []
    flags[double] = int(Flag.DUPLICATE_ID)
    at = np.flatnonzero(double)[:_LISTED]
    listed = catalog.take(at, ["source_id"]).column(0).to_pylist()
    return flags, [
        Finding(
            "error",
            "duplicate_id",
            subject,
            f"{int(double.sum())} rows share their source_id with "
            f"another, e.g. {', '.join(map(str, listed))} (rows {', '.join(map(str, at))}, counted from 0)",
            "Give every source its own id.",
        )
    ]


def duplicates(keys: np.ndarray) -> np.ndarray:
    """(n,) bool: rows whose key occurs more than once."""
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return np.isin(keys, twice) if len(twice) else np.zeros(len(keys), bool)


def _hashes(ids: np.ndarray) -> np.ndarray:
    """64 bits of each id: ten million different ids share one once in 400,000 catalogues."""
    return np.fromiter(map(hash, ids), np.int64, len(ids))
