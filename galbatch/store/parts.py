"""Part files: one small Parquet file a batch, whose existence is the batch's commit."""

from __future__ import annotations

import json
import math
import os
import socket
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.store.checksums import DamagedBatch, digest_bytes, digest_file, seal, unseal
from galbatch.store.layout import STATUS, StoreLayout
from galbatch.store.paths import RunPaths, replacing, write_atomic
from galbatch.store.posterior import write_shards

FAILURE_COLUMNS = ("failure_stage", "failure_code", "failure_message")
NUMBERS = "numbers"
_ALL_ROWS = 1 << 20


@dataclass(frozen=True)
class BatchResult:
    """What one batch leaves behind.

    ``arrays``: (n, ...) per array of the store; ``columns``: (n,) per catalogue column, among them
    ``source_id``, ``status`` (str), ``flags`` and the three failure columns; ``seconds`` by stage;
    ``counters`` for the metrics.
    """

    batch: int
    arrays: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    seconds: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)


def commit_batch(paths: RunPaths, layout: StoreLayout, result: BatchResult, attempt: int = 1) -> dict:
    """Write a batch for good: shards, read-back, then the part by atomic rename. Safe to repeat.

    Returns a small record (counts, seconds, worker) for the scheduler's client; never arrays.
    """
    start = time.perf_counter()
    sums, shards = write_shards(paths.posterior, layout, result.batch, result.arrays)
    seconds = result.seconds | {"store": time.perf_counter() - start}
    counts = {s: int(np.sum(result.columns["status"] == s)) for s in STATUS[1:]}
    record = {
        "batch": result.batch,
        "sources": len(result.columns["source_id"]),
        **counts,
        "attempt": attempt,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "time": time.time(),
        "seconds": {k: round(v, 6) for k, v in seconds.items()},
        "counters": result.counters,
        "columns": _columns_hash(result.columns),
    }
    with replacing(paths.part(result.batch)) as part:
        write_part(part, result.batch, result.columns, sums)
        files = {f"{paths.posterior.name}/{name}": digest for name, digest in shards.items()}
        files[f"{paths.parts.name}/{paths.part(result.batch).name}"] = digest_file(part)
        write_atomic(paths.attempt(result.batch), seal(record | {"files": files}))
    return record


def write_part(path: Path, batch: int, columns: dict[str, np.ndarray], sums: dict[str, int]) -> None:
    """Write the part file of a batch to ``path``; equal input gives equal bytes.

    Columns of numbers, and the status as its place in ``STATUS``, are packed into one binary column
    ``numbers``, a record a row: a file of hundreds of tiny columns takes thirty times as long to read.
    Columns of failures are left out where nothing failed.
    """
    packed = columns | {"status": np.array([STATUS.index(s) for s in columns["status"]], np.int32)}
    table = {n: _column(v) for n, v in packed.items() if v.dtype.kind in "OUST"}
    order = [[n, str(table[n].type) if n in table else v.dtype.str, *v.shape[1:]] for n, v in packed.items()]
    notes = {"crc32": sums, "batch": batch, "columns": order}
    kind = np.dtype([(n, v.dtype.str, v.shape[1:]) for n, v in packed.items() if n not in table])
    record = np.empty(len(columns["source_id"]), kind)
    for name in kind.names or ():
        record[name] = packed[name]
    if not np.any(columns["status"] == "failed") and all(
        pc.all(pc.equal(table[n], "")).as_py() for n in FAILURE_COLUMNS
    ):
        table = {n: v for n, v in table.items() if n not in FAILURE_COLUMNS}
    table[NUMBERS] = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(kind.itemsize), len(record), [None, pa.py_buffer(record)]
    )
    rows = pa.table(table)
    with pq.ParquetWriter(
        path,
        rows.schema,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    ) as out:
        out.write_table(rows)
        out.add_key_value_metadata({f"galbatch.{k}": json.dumps(v) for k, v in notes.items()})


def _columns_hash(columns: dict[str, np.ndarray]) -> str:
    """The same for parts that have the same columns in the same order."""
    kinds = [(n, "str" if v.dtype.kind in "OUST" else v.dtype.str) for n, v in columns.items()]
    return f"{zlib.crc32(repr(kinds).encode()):08x}"


def _column(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(str).astype(object) if values.dtype.kind in "US" else values)


@dataclass(frozen=True)
class Part:
    """A committed part: ``table`` of its text, ``numbers`` (n,) a structured array of the rest, ``schema`` of
    all in the order of the batch, ``notes`` what the footer says."""

    table: pa.Table
    numbers: np.ndarray
    schema: pa.Schema
    notes: dict[bytes, bytes]

    @property
    def ids(self) -> pa.Array:
        """Source ids."""
        return self._column("source_id")

    @property
    def status(self) -> pa.Array:
        """Status of every source."""
        return as_status(self._column("status"))

    def _column(self, name):
        """In numbers or, ids that are words, in text."""
        if name in self.table.column_names:
            return self.table[name].combine_chunks()
        return pa.array(np.ascontiguousarray(self.numbers[name]))

    @property
    def sums(self) -> dict[str, int]:
        """CRC-32 of the batch's shards at the commit."""
        return json.loads(self.notes[b"galbatch.crc32"])


def as_status(column: pa.Array) -> pa.Array:
    """Words of a column of places in ``STATUS``."""
    return pa.array(STATUS).take(column)


def read_part(paths: RunPaths, batch: int) -> Part:
    """A committed part. Raises ``RunError`` naming the file when it cannot be read, ``DamagedBatch`` when it
    is not the one that was committed."""
    path = paths.part(batch)
    try:
        data = path.read_bytes()
        check_part(paths, batch, data)
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            table = pa.Table.from_batches(file.iter_batches(_ALL_ROWS, use_threads=False))
            notes = file.metadata.metadata
        schema, kind = _schema(notes[b"galbatch.columns"])
        packed = table[NUMBERS]
        packed = packed.chunk(0) if packed.num_chunks == 1 else packed.combine_chunks()
        numbers = np.frombuffer(packed.buffers()[1], kind, len(packed), packed.offset * kind.itemsize)
        return Part(table.drop_columns([NUMBERS]), numbers, schema, notes)
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise RunError(
            f"{path}: cannot be read ({err}). Delete this file and resume: its batch is made again."
        ) from err


@lru_cache(maxsize=64)
def _schema(columns: bytes) -> tuple[pa.Schema, np.dtype]:
    """Of all columns, and of the packed ones: those whose type is numpy's and not Arrow's."""
    fields, kinds = [], []
    for name, kind, *shape in json.loads(columns):
        if kind[0] in "<>|":
            kinds.append((name, kind, tuple(shape)))
            kind = pa.string() if name == "status" else pa.from_numpy_dtype(np.dtype(kind))
        else:
            kind = pa.type_for_alias(kind)
        fields.append(pa.field(name, pa.list_(kind, *shape) if shape else kind))
    return pa.schema(fields), np.dtype(kinds)


def unpacked(records: list[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and columns (n,) or (n, k) of the numbers of parts with the same columns, one after the other.

    They are transposed part by part, as words that divide every field: a part fits into the cache, and a
    column of one word a row needs no other copy.
    """
    kind = records[0].dtype
    fields = [(name, *kind.fields[name][:2]) for name in kind.names]
    word = math.gcd(4, *(form.itemsize for _, form, _ in fields))
    words = np.empty((kind.itemsize // word, sum(map(len, records))), f"u{word}")
    start = 0
    for record in records:
        stop = start + len(record)
        words[:, start:stop] = record.view(words.dtype).reshape(len(record), -1).T
        start = stop
    for name, form, offset in fields:
        rows = words[offset // word : (offset + form.itemsize) // word]
        yield name, np.ascontiguousarray(rows.T).view(form.base).reshape(-1, *form.shape)


def check_part(paths: RunPaths, batch: int, data: bytes) -> None:
    """Hold the bytes of a part to the note of its batch. Raises ``DamagedBatch``; says nothing where a folder
    of galbatch 0.1.0 holds no digests."""
    path = paths.part(batch)
    files = read_note(paths, batch).get("files")
    committed = files and files.get(f"{paths.parts.name}/{path.name}")
    if committed and committed != (found := digest_bytes(data)):
        raise DamagedBatch(
            f"{path}: not what was committed ({found[0]} bytes, SHA-256 {found[1][:12]}...; committed were "
            f"{committed[0]} bytes, {committed[1][:12]}...). Delete it and resume: its batch is made again.",
            batch,
        )


def read_note(paths: RunPaths, batch: int) -> dict:
    """The note of a batch: who wrote it and when, and in ``files`` the digests of its part and shards.

    Empty when it is missing. Raises ``DamagedBatch`` when it is not what was written.
    """
    path = paths.attempt(batch)
    try:
        data = path.read_bytes()
        note = unseal(data) if b'"digest"' in data or b'"files"' in data else json.loads(data)
        if not isinstance(note, dict) or note.get("batch", batch) != batch:
            raise ValueError("it is not the note of this batch")
        return note
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as err:
        raise DamagedBatch(f"{path}: damaged ({err})", batch) from err


def read_attempt(paths: RunPaths, batch: int) -> dict:
    """Who wrote a batch and when; empty when the note is missing or damaged."""
    try:
        return read_note(paths, batch)
    except DamagedBatch:
        return {}
