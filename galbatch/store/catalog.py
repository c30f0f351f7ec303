"""``catalog.parquet``, the product, and ``statistics.parquet`` beside it: one row per source in each, joined
from plan and parts while streaming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.columns import PLACE, Column
from galbatch.errors import RunError
from galbatch.store.layout import STATUS
from galbatch.store.ledger import FAILURE_SCHEMA, failures_of
from galbatch.store.parts import FAILURE_COLUMNS, join_parts, part_bytes, part_head, read_note, read_part
from galbatch.store.paths import RunPaths, opened, replacing
from galbatch.store.plan import PASS
from galbatch.store.sky import healpix_nested
from galbatch.store.tables import dtype_name, is_text, table_metadata
from galbatch.store.threads import behind, prefetched

_HEAD = ("source_id", "ra", "dec")
_GROUP_BYTES = 24 << 20  # of parts that are joined at once; a row group has once to twice as many


def merge_catalog(
    paths: RunPaths,
    info: dict[str, Column],
    template: dict[str, np.ndarray] | None = None,
    into: RunPaths | None = None,
) -> Counter:
    """Write ``catalog.parquet``, ``statistics.parquet`` and ``failures.parquet`` from plan and parts; returns
    the sources by status.

    Memory is bounded by one row group. Columns are those of any part, in the table and the order of ``info``;
    those that it does not know follow in the catalogue. A part that lacks one gets NaN; a run without parts
    has those of ``template``. ``into``: another folder for the tables, then of the committed batches alone.
    Raises ``RunError`` when a part is missing or damaged, or its ids are not the plan's."""
    batches = sorted(paths.committed())
    try:
        return _merge(paths, info, _schemas(paths, info, batches[:1], template or {}), into)
    except _MoreColumns:  # rare: only then is every part asked for its columns first
        return _merge(paths, info, _schemas(paths, info, batches, template or {}), into)


class _MoreColumns(Exception):
    """A part has columns that the schemas of the tables lack."""


def _merge(
    paths: RunPaths, info: dict[str, Column], schemas: dict[str, pa.Schema], into: RunPaths | None
) -> Counter:
    counts: Counter = Counter()
    out = into or paths
    files = {"catalog": out.catalog, "statistics": out.statistics}
    with ExitStack() as stack:  # the catalogue is put in its place last
        tables = {
            name: stack.enter_context(_table(paths, files[name], schema, info))
            for name, schema in schemas.items()
        }
        failed = stack.enter_context(_written(out.failures, FAILURE_SCHEMA))

        def write_all(joined: dict[str, pa.Table]) -> None:
            for name, table in tables.items():
                table.write_table(joined[name])

        write = stack.enter_context(behind(write_all))
        held: list[dict[str, pa.Table]] = []
        size = 0
        for joined, lost, n_bytes in _joined(paths, schemas, into is not None):
            status = pc.value_counts(joined["catalog"]["status"])
            counts.update({n["values"]: n["counts"] for n in status.to_pylist()})
            if lost.num_rows:
                failed.write_table(lost)
            held.append(joined)
            size += n_bytes
            if size > _GROUP_BYTES:
                write(_together(held))
                held, size = [], 0
        if held:
            write(_together(held))
    return counts


def _together(held: list[dict[str, pa.Table]]) -> dict[str, pa.Table]:
    return {name: pa.concat_tables([joined[name] for joined in held]).combine_chunks() for name in held[0]}


@contextmanager
def _written(path: Path, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    with replacing(path) as tmp, pq.ParquetWriter(tmp, schema, **options) as out:
        yield out


def _table(paths: RunPaths, path: Path, schema: pa.Schema, info: dict[str, Column]) -> AbstractContextManager:
    """A table of the run, open for writing."""
    dtypes = {f.name: dtype_name(f.type) for f in schema}
    lengths = _text_lengths(paths, schema)
    return _written(
        path,
        schema.with_metadata(table_metadata(schema.names, dtypes, info | PLACE, lengths)),
        compression="zstd",
        compression_level=1,
        use_dictionary=[f.name for f in schema if is_text(f.type)],
        use_byte_stream_split=[f.name for f in schema if pa.types.is_floating(f.type)],
        write_statistics=[n for n in (*_HEAD, "flags", "_healpix_29") if n in schema.names],
    )


def _text_lengths(paths: RunPaths, schema: pa.Schema) -> dict[str, int]:
    """Longest text of every text column: astropy's reader wants it in the footer's schema, before the first
    row."""
    lengths = {f.name: 1 for f in schema if is_text(f.type)}
    if "status" in lengths:
        lengths["status"] = max(map(len, STATUS))
    plan_names = {n: n.removeprefix(PASS) for n in pq.read_schema(opened(paths.plan)).names}
    sources = {
        n: out for n, out in plan_names.items() if out in lengths and (n in _HEAD or n.startswith(PASS))
    }
    with pq.ParquetFile(opened(paths.plan), pre_buffer=False) as plan:
        for rows in plan.iter_batches(columns=list(sources)) if sources else ():
            for name, out in sources.items():
                lengths[out] = max(lengths[out], pc.max(pc.utf8_length(rows[name])).as_py() or 1)
    return lengths


def _schemas(
    paths: RunPaths, info: dict[str, Column], batches: list[int], template: dict[str, np.ndarray]
) -> dict[str, pa.Schema]:
    """Columns of both tables: identity, pass-through, then what the parts of ``batches`` hold."""
    plan = pq.read_schema(opened(paths.plan))
    fields = [plan.field(name) for name in _HEAD]
    fields += [plan.field(n).with_name(n.removeprefix(PASS)) for n in plan.names if n.startswith(PASS)]
    found = _found(paths, batches, template)
    statistics, taken = [plan.field(_HEAD[0])], [f.name for f in fields]
    order = {name: place for place, name in enumerate(info)}
    for name in sorted(found, key=lambda name: order.get(name, len(order))):
        field = pa.field(name, found[name], nullable=not pa.types.is_floating(found[name]))
        if name in info and info[name].table == "statistics":
            statistics.append(field)
            continue
        if name in taken:  # the catalogue has a column of this name already: both are kept
            place = taken.index(name)
            fields[place] = fields[place].with_name(f"input_{name}")
        fields.append(field)
    if "_healpix_29" not in taken:
        fields.append(pa.field("_healpix_29", pa.int64()))
    return {"catalog": pa.schema(fields), "statistics": pa.schema(statistics)}


def _found(paths: RunPaths, batches: list[int], template: dict[str, np.ndarray]) -> dict[str, pa.DataType]:
    """Columns of the parts of ``batches`` that go into the tables, and their types."""
    found: dict[str, pa.DataType] = {}
    for batch in batches:
        for field in read_part(paths, batch).schema:
            found.setdefault(field.name, field.type)
    if not found:
        found = {
            n: pa.string() if v.dtype == object else pa.from_numpy_dtype(v.dtype) for n, v in template.items()
        }
    return {n: kind for n, kind in found.items() if n not in (*_HEAD, *FAILURE_COLUMNS)}


@dataclass(frozen=True)
class _Committed:
    """A batch of the plan: its number, its rows in the plan's row group, its note and the bytes of its
    part."""

    batch: int
    rows: slice
    note: dict[str, Any]
    data: bytes


def _joined(
    paths: RunPaths, schemas: dict[str, pa.Schema], partial: bool
) -> Iterator[tuple[dict[str, pa.Table], pa.Table, int]]:
    """Both tables piece by piece, each of many batches with the same columns, those of the failures, and
    about how many bytes (to ask the tables takes as long as to write them)."""
    committed, known = paths.committed(), {*FAILURE_COLUMNS}.union(*(s.names for s in schemas.values()))
    with pq.ParquetFile(opened(paths.plan), pre_buffer=False) as plan:
        for group in range(plan.num_row_groups):
            rows = plan.read_row_group(group)
            for parts in prefetched(_alike(_committed(paths, rows["batch"].to_numpy(), committed, partial))):
                start, stop = parts[0].rows.start, parts[-1].rows.stop
                planned, table = rows.slice(start, stop - start), join_parts([part.data for part in parts])
                if not known.issuperset(table.column_names):
                    raise _MoreColumns
                _check_ids(paths, parts, planned["source_id"], table["source_id"])
                n_bytes = sum(len(part.data) for part in parts) + planned.nbytes
                tables = {name: _join(planned, table, schema) for name, schema in schemas.items()}
                yield tables, failures_of(planned, table, {part.batch: part.note for part in parts}), n_bytes


def _committed(
    paths: RunPaths, batches: np.ndarray, committed: set[int], partial: bool
) -> Iterator[_Committed]:
    """The batches of a row group of the plan, ``partial``: those that are committed. Raises ``RunError``
    where a part is missing or damaged."""
    for batch in np.unique(batches).tolist():
        if batch not in committed:
            if partial:
                continue
            raise RunError(
                f"{paths.part(batch)}: missing, so the run is not finished. "
                f"Run `galbatch resume {paths.quoted}`."
            )
        note = read_note(paths, batch)
        rows = slice(*np.searchsorted(batches, [batch, batch + 1]).tolist())
        yield _Committed(batch, rows, note, part_bytes(paths, batch, note))


def _alike(parts: Iterator[_Committed]) -> Iterator[list[_Committed]]:
    """Those that follow each other with the same columns, up to ``_GROUP_BYTES``."""
    held: list[_Committed] = []
    size = 0
    for part in parts:
        follows = held and part.rows.start == held[-1].rows.stop
        if held and (size >= _GROUP_BYTES or not follows or part_head(part.data) != part_head(held[0].data)):
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


def _pick(field: pa.Field, plan: pa.Table, in_plan: dict, in_parts: dict) -> pa.Array | pa.ChunkedArray:
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
