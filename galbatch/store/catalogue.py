"""``catalog.parquet``, the product: one row a source, joined from plan and parts while streaming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.store.columns import FIXED, ColumnInfo, table_metadata
from galbatch.store.healpix import healpix_nested
from galbatch.store.layout import STATUS
from galbatch.store.parts import FAILURE_COLUMNS, Part, as_status, read_attempt, read_part, unpacked
from galbatch.store.paths import RunPaths, replacing
from galbatch.store.plan import PASS

_HEAD = ("source_id", "ra", "dec")
_GROUP_BYTES = 48 << 20  # of numbers in a row group
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
    paths: RunPaths, info: dict[str, ColumnInfo], template: dict[str, np.ndarray] | None = None
) -> Counter:
    """Write ``catalog.parquet`` and ``failures.parquet`` from plan and parts; returns the sources by status.

    Memory is bounded by one row group. Columns are those of any part, in the order in which they first occur;
    a part that lacks one gets NaN; a run without parts has those of ``template``. Raises ``RunError`` when a
    part is missing or its ids are not the plan's.
    """
    batches = sorted(paths.committed())
    try:
        return _merge(paths, info, _schema(paths, batches[:1], template or {}))
    except _MoreColumns:  # rare: only then is every part asked for its columns first
        return _merge(paths, info, _schema(paths, batches, template or {}))


class _MoreColumns(Exception):
    """A part has columns that the schema of the catalogue lacks."""


def _merge(paths: RunPaths, info: dict[str, ColumnInfo], schema: pa.Schema) -> Counter:
    counts: Counter = Counter()
    dtypes = {f.name: _dtype(f.type) for f in schema}
    schema = schema.with_metadata(
        table_metadata(schema.names, dtypes, info | FIXED, _text_lengths(paths, schema))
    )
    with (
        replacing(paths.catalogue) as tmp,
        _writer(tmp, schema) as out,
        replacing(paths.failures) as failed_tmp,
        pq.ParquetWriter(failed_tmp, _FAILURE_SCHEMA) as failed,
        _behind(out.write_table) as write,
    ):
        held: list[pa.Table] = []
        for table, parts in _joined(paths, schema):
            counts.update({n["values"]: n["counts"] for n in pc.value_counts(table["status"]).to_pylist()})
            lost = [
                _failures(paths, batch, part)
                for batch, part in parts
                if FAILURE_COLUMNS[0] in part.table.column_names
            ]
            if lost:
                failed.write_table(pa.concat_tables(lost).combine_chunks())
            held.append(table)
            if sum(t.nbytes for t in held) > _GROUP_BYTES // 2:
                write(pa.concat_tables(held))
                held = []
        if held:
            write(pa.concat_tables(held))
    return counts


@contextmanager
def _behind(work: Callable[[pa.Table], None]) -> Iterator[Callable[[pa.Table], None]]:
    """``work`` in a thread of its own, one table at a time: the next is read while one is compressed."""
    with ThreadPoolExecutor(1) as thread:
        last: list[Future] = []

        def submit(table: pa.Table) -> None:
            while last:
                last.pop().result()
            last.append(thread.submit(work, table))

        yield submit
        while last:
            last.pop().result()


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
    with pq.ParquetFile(paths.plan) as plan:
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
    seen: set = set()
    for batch in batches:
        kind = read_attempt(paths, batch).get("columns")  # parts with the same columns are looked at once
        if kind is None or kind not in seen:
            seen.add(kind)
            for field in read_part(paths, batch).schema:
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


def _joined(paths: RunPaths, schema: pa.Schema) -> Iterator[tuple[pa.Table, list[tuple[int, Part]]]]:
    """Tables of the catalogue in order, each of many batches with the same columns, and their parts."""
    committed, known = paths.committed(), {*schema.names, *FAILURE_COLUMNS}
    with pq.ParquetFile(paths.plan) as plan:
        for group in range(plan.num_row_groups):
            rows = plan.read_row_group(group)
            held: list[tuple[int, Part]] = []
            start = 0
            for batch, first, part in _parts(paths, rows, committed):
                full = (first - start) * part.numbers.itemsize >= _GROUP_BYTES
                if held and (full or part.schema is not held[0][1].schema):
                    yield _join(held, rows.slice(start, first - start), schema), held
                    held, start = [], first
                if not held and not known.issuperset(part.schema.names):
                    raise _MoreColumns
                held.append((batch, part))
            if held:
                yield _join(held, rows.slice(start), schema), held


def _parts(paths: RunPaths, rows: pa.Table, committed: set[int]) -> Iterator[tuple[int, int, Part]]:
    """The batches of these rows of the plan: number, first row, part. Raises ``RunError`` where a part is
    missing or another's."""
    batches, ids = rows["batch"].to_numpy(), rows["source_id"].combine_chunks()
    for batch in np.unique(batches).tolist():
        first, stop = np.searchsorted(batches, [batch, batch + 1]).tolist()
        if batch not in committed:
            raise RunError(
                f"{paths.part(batch)}: missing, so the run is not finished. "
                f"Run `galbatch resume {paths.root}`."
            )
        part, planned = read_part(paths, batch), ids.slice(first, stop - first)
        found = part.ids
        if not found.equals(planned) and found.to_pylist() != planned.to_pylist():
            raise RunError(
                f"{paths.part(batch)}: its source ids are not those of batch {batch} in plan.parquet. "
                "The file belongs to another plan: delete it and resume."
            )
        yield batch, first, part


def _join(parts: list[tuple[int, Part]], plan: pa.Table, schema: pa.Schema) -> pa.Table:
    in_plan = dict(zip(plan.column_names, plan.columns, strict=True))
    in_parts = {name: _column(values) for name, values in unpacked([part.numbers for _, part in parts])}
    for name in {*parts[0][1].table.column_names} - {*FAILURE_COLUMNS}:
        in_parts[name] = pa.chunked_array([chunk for _, part in parts for chunk in part.table[name].chunks])
    in_parts["status"] = as_status(in_parts["status"])
    columns = []
    for field in schema:
        column = _pick(field, plan, in_plan, in_parts)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.table(columns, schema=schema)


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return pa.array(values)


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


def _failures(paths: RunPaths, batch: int, part: Part) -> pa.Table:
    rows = part.table.select(FAILURE_COLUMNS).append_column("source_id", part.ids)
    lost = rows.filter(pc.equal(part.status, "failed"))
    n, note = lost.num_rows, read_attempt(paths, batch)
    worker = f"{note.get('host', '')}:{note.get('pid', '')}"
    columns = [
        lost["source_id"].cast(pa.string()),
        *(lost[name] for name in FAILURE_COLUMNS),
        pa.array([note.get("attempt", 0)] * n, pa.int32()),
        pa.array([worker] * n, pa.string()),
        pa.array([note.get("time", np.nan)] * n, pa.float64()),
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
