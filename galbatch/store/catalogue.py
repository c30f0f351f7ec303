"""``catalog.parquet``, the product: one row per source, joined from plan and parts while streaming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.columns import SOURCE, Column
from galbatch.errors import RunError
from galbatch.store.healpix import healpix_nested
from galbatch.store.layout import STATUS
from galbatch.store.metadata import table_metadata
from galbatch.store.parts import FAILURE_COLUMNS, join_parts, part_bytes, part_head, read_note, read_part
from galbatch.store.paths import RunPaths, replacing
from galbatch.store.plan import PASS

_HEAD = ("source_id", "ra", "dec")
Item = TypeVar("Item")
_GROUP_BYTES = 24 << 20  # of parts that are joined at once; a row group has once to twice as many
_FAILURE_SCHEMA = pa.schema(
    [
        ("source_id", pa.string()),
        ("stage", pa.string()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("attempt", pa.int32()),
        ("worker", pa.string()),
        ("time", pa.float64()),
    ]
)


def merge_catalogue(
    paths: RunPaths, info: dict[str, Column], template: dict[str, np.ndarray] | None = None
) -> Counter:
    """Write ``catalog.parquet`` and ``failures.parquet`` from plan and parts; returns the sources by status.

    Memory is bounded by one row group. Columns are those of any part, in the order in which they first occur;
    a part that lacks one gets NaN; a run without parts has those of ``template``. Raises ``RunError`` when a
    part is missing or damaged, or its ids are not the plan's.
    """
    batches = sorted(paths.committed())
    try:
        return _merge(paths, info, _schema(paths, batches[:1], template or {}))
    except _MoreColumns:  # rare: only then is every part asked for its columns first
        return _merge(paths, info, _schema(paths, batches, template or {}))


class _MoreColumns(Exception):
    """A part has columns that the schema of the catalogue lacks."""


def _merge(paths: RunPaths, info: dict[str, Column], schema: pa.Schema) -> Counter:
    counts: Counter = Counter()
    dtypes = {f.name: _dtype(f.type) for f in schema}
    schema = schema.with_metadata(
        table_metadata(schema.names, dtypes, info | SOURCE, _text_lengths(paths, schema))
    )
    with (
        replacing(paths.catalogue) as tmp,
        _writer(tmp, schema) as out,
        replacing(paths.failures) as failed_tmp,
        pq.ParquetWriter(failed_tmp, _FAILURE_SCHEMA) as failed,
        _behind(out.write_table) as write,
    ):
        held: list[pa.Table] = []
        size = 0
        for table, lost, n_bytes in _joined(paths, schema):
            counts.update({n["values"]: n["counts"] for n in pc.value_counts(table["status"]).to_pylist()})
            if lost.num_rows:
                failed.write_table(lost)
            held.append(table)
            size += n_bytes
            if size > _GROUP_BYTES:
                write(pa.concat_tables(held).combine_chunks())
                held, size = [], 0
        if held:
            write(pa.concat_tables(held).combine_chunks())
    return counts


@contextmanager
def _behind(work: Callable[[pa.Table], None]) -> Iterator[Callable[[pa.Table], None]]:
    """``work`` in a thread of its own, one call at a time: the next table is joined while one is
    compressed."""
    with ThreadPoolExecutor(1) as thread:
        last: list[Future] = []

        def submit(table: pa.Table) -> None:
            while last:
                last.pop().result()
            last.append(thread.submit(work, table))

        yield submit
        while last:
            last.pop().result()


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items of an iterator; a thread of its own makes the next one."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item


def _text_lengths(paths: RunPaths, schema: pa.Schema) -> dict[str, int]:
    """Longest text of every text column: astropy's reader wants it in the footer's schema, before the first
    row."""
    lengths = {f.name: 1 for f in schema if _is_text(f.type)}
    if "status" in lengths:
        lengths["status"] = max(map(len, STATUS))
    plan_names = {n: n.removeprefix(PASS) for n in pq.read_schema(paths.plan).names}
    sources = {
        n: out for n, out in plan_names.items() if out in lengths and (n in _HEAD or n.startswith(PASS))
    }
    with pq.ParquetFile(paths.plan, pre_buffer=False) as plan:
        for rows in plan.iter_batches(columns=list(sources)) if sources else ():
            for name, out in sources.items():
                lengths[out] = max(lengths[out], pc.max(pc.utf8_length(rows[name])).as_py() or 1)
    return lengths


def _schema(paths: RunPaths, batches: list[int], template: dict[str, np.ndarray]) -> pa.Schema:
    """Columns of the catalogue: identity, pass-through, then what the parts of ``batches`` hold."""
    plan = pq.read_schema(paths.plan)
    fields = [plan.field(name) for name in _HEAD]
    fields += [plan.field(n).with_name(n.removeprefix(PASS)) for n in plan.names if n.startswith(PASS)]
    found: dict[str, pa.DataType] = {}
    for batch in batches:
        for field in read_part(paths, batch).rows.schema:
            found.setdefault(field.name, field.type)
    if not found:
        found = {
            n: pa.string() if v.dtype == object else pa.from_numpy_dtype(v.dtype) for n, v in template.items()
        }
    drop = {*_HEAD, *FAILURE_COLUMNS}
    taken = {f.name for f in fields}
    for name, kind in found.items():
        if name in drop:
            continue
        if name in taken:  # the catalogue has a column of this name already: both are kept
            position = [f.name for f in fields].index(name)
            fields[position] = fields[position].with_name(f"input_{name}")
        fields.append(pa.field(name, kind, nullable=not pa.types.is_floating(kind)))
    if "_healpix_29" not in taken:
        fields.append(pa.field("_healpix_29", pa.int64()))
    return pa.schema(fields)


def _writer(path, schema: pa.Schema) -> pq.ParquetWriter:
    text = [f.name for f in schema if _is_text(f.type)]
    floats = [f.name for f in schema if pa.types.is_floating(f.type)]
    keys = [n for n in (*_HEAD, "flags", "_healpix_29") if n in schema.names]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=text,
        use_byte_stream_split=floats,
        write_statistics=keys,
    )


@dataclass(frozen=True)
class _Committed:
    """A batch of the plan: its number, its rows in the plan's row group, its note and the bytes of its
    part."""

    batch: int
    rows: slice
    note: dict[str, Any]
    data: bytes


def _joined(paths: RunPaths, schema: pa.Schema) -> Iterator[tuple[pa.Table, pa.Table, int]]:
    """Tables of the catalogue in order, each of many batches with the same columns, those of the failures,
    and about how many bytes (to ask the table takes as long as to write it)."""
    committed, known = paths.committed(), {*schema.names, *FAILURE_COLUMNS}
    with pq.ParquetFile(paths.plan, pre_buffer=False) as plan:
        for group in range(plan.num_row_groups):
            rows = plan.read_row_group(group)
            for parts in _ahead(_alike(_committed(paths, rows["batch"].to_numpy(), committed))):
                start, stop = parts[0].rows.start, parts[-1].rows.stop
                planned, table = rows.slice(start, stop - start), join_parts([part.data for part in parts])
                if not known.issuperset(table.column_names):
                    raise _MoreColumns
                _check_ids(paths, parts, planned["source_id"], table["source_id"])
                n_bytes = sum(len(part.data) for part in parts) + planned.nbytes
                yield _join(planned, table, schema), _failures(planned, table, parts), n_bytes


def _committed(paths: RunPaths, batches: np.ndarray, committed: set[int]) -> Iterator[_Committed]:
    """The batches of a row group of the plan. Raises ``RunError`` where a part is missing or damaged."""
    for batch in np.unique(batches).tolist():
        if batch not in committed:
            raise RunError(
                f"{paths.part(batch)}: missing, so the run is not finished. "
                f"Run `galbatch resume {paths.root}`."
            )
        note = read_note(paths, batch)
        rows = slice(*np.searchsorted(batches, [batch, batch + 1]).tolist())
        yield _Committed(batch, rows, note, part_bytes(paths, batch, note))


def _alike(parts: Iterator[_Committed]) -> Iterator[list[_Committed]]:
    """Those that follow each other with the same columns, up to ``_GROUP_BYTES``."""
    held: list[_Committed] = []
    size = 0
    for part in parts:
        if held and (size >= _GROUP_BYTES or part_head(part.data) != part_head(held[0].data)):
            yield held
            held, size = [], 0
        held.append(part)
        size += len(part.data)
    if held:
        yield held


def _check_ids(
    paths: RunPaths, parts: list[_Committed], planned: pa.ChunkedArray, found: pa.ChunkedArray
) -> None:
    """Raise ``RunError`` when the ids of the parts are not the plan's."""
    if found.equals(planned):
        return
    first = parts[0].rows.start
    for part in parts:
        place, rows = part.rows.start - first, part.rows.stop - part.rows.start
        if found.slice(place, rows).to_pylist() != planned.slice(place, rows).to_pylist():
            raise RunError(
                f"{paths.part(part.batch)}: its source ids are not those of batch {part.batch} in "
                "plan.parquet. The file belongs to another plan: delete it and resume."
            )


def _join(plan: pa.Table, parts: pa.Table, schema: pa.Schema) -> pa.Table:
    in_plan, in_parts = (dict(zip(t.column_names, t.columns, strict=True)) for t in (plan, parts))
    columns = []
    for field in schema:
        column = _pick(field, plan, in_plan, in_parts)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.table(columns, schema=schema)


def _pick(field: pa.Field, plan: pa.Table, in_plan: dict, in_parts: dict):
    name = field.name
    if name in _HEAD:
        return in_plan[name]
    if name in in_parts:
        return in_parts[name]
    if name == "_healpix_29" and name in in_plan:
        return in_plan[name]
    for passing in (PASS + name, PASS + name.removeprefix("input_")):
        if passing in in_plan:
            return in_plan[passing]
    if name == "_healpix_29":
        return pa.array(healpix_nested(plan["ra"].to_numpy(), plan["dec"].to_numpy()))
    if pa.types.is_floating(field.type):
        return pa.array(np.full(plan.num_rows, np.nan))
    if pa.types.is_fixed_size_list(field.type):
        empty = pa.array(np.full(plan.num_rows * field.type.list_size, np.nan), field.type.value_type)
        return pa.FixedSizeListArray.from_arrays(empty, field.type.list_size)
    return pa.nulls(plan.num_rows, field.type)


def _failures(plan: pa.Table, table: pa.Table, parts: list[_Committed]) -> pa.Table:
    failed = pc.equal(table["status"], "failed")
    lost = table.select(["source_id", *FAILURE_COLUMNS]).filter(failed)
    by_batch = {part.batch: part.note for part in parts}
    notes = [by_batch[batch] for batch in plan["batch"].filter(failed).to_pylist()]
    workers = [f"{note.get('host', '')}:{note.get('pid', '')}" for note in notes]
    columns = [
        lost["source_id"].cast(pa.string()),
        *(lost[name] for name in FAILURE_COLUMNS),
        pa.array([note.get("attempt", 0) for note in notes], pa.int32()),
        pa.array(workers, pa.string()),
        pa.array([note.get("time", np.nan) for note in notes], pa.float64()),
    ]
    return pa.table(columns, schema=_FAILURE_SCHEMA)


def _dtype(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"({kind.list_size},){_dtype(kind.value_type)}"
    if _is_text(kind):
        return "str"
    try:
        return np.dtype(kind.to_pandas_dtype()).name
    except (NotImplementedError, TypeError):
        return "object"


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
