"""Part files: one small Parquet file a batch, whose existence is the batch's commit."""

from __future__ import annotations

import json
import os
import socket
import time
import zlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.store.layout import STATUS, StoreLayout
from galbatch.store.paths import RunPaths, replacing, write_atomic
from galbatch.store.posterior import write_shards

FAILURE_COLUMNS = ("failure_stage", "failure_code", "failure_message")


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
    sums = write_shards(paths.posterior, layout, result.batch, result.arrays)
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
    write_atomic(paths.attempt(result.batch), json.dumps(record).encode())
    write_part(paths, result.batch, result.columns, sums)
    return record


def write_part(paths: RunPaths, batch: int, columns: dict[str, np.ndarray], sums: dict[str, int]) -> None:
    """Write the part file of a batch; equal input gives equal bytes."""
    table = pa.table({name: _column(values) for name, values in columns.items()})
    table = table.replace_schema_metadata({"galbatch.crc32": json.dumps(sums), "galbatch.batch": str(batch)})
    with replacing(paths.part(batch)) as tmp:
        pq.write_table(
            table, tmp, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False
        )


def _columns_hash(columns: dict[str, np.ndarray]) -> str:
    """The same for parts that have the same columns in the same order."""
    kinds = [(n, "str" if v.dtype.kind in "OUST" else v.dtype.str) for n, v in columns.items()]
    return f"{zlib.crc32(repr(kinds).encode()):08x}"


def _column(values: np.ndarray) -> pa.Array:
    values = np.asarray(values)
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return pa.array(values.astype(str).astype(object) if values.dtype.kind in "US" else values)


def read_part(paths: RunPaths, batch: int) -> pa.Table:
    """A committed part. Raises ``RunError`` naming the file when it cannot be read."""
    path = paths.part(batch)
    try:
        with pq.ParquetFile(path) as file:
            return file.read(use_threads=False)  # hundreds of tiny columns: threads cost more than they bring
    except (OSError, pa.ArrowInvalid) as err:
        raise RunError(
            f"{path}: cannot be read ({err}). Delete this file and resume: its batch is made again."
        ) from err


def part_sums(table: pa.Table) -> dict[str, int]:
    """Checksums of the batch's shards, as they were at its commit."""
    return json.loads(table.schema.metadata[b"galbatch.crc32"])


def read_attempt(paths: RunPaths, batch: int) -> dict:
    """Who wrote a batch and when; empty when the note is missing."""
    try:
        return json.loads(paths.attempt(batch).read_bytes())
    except (OSError, ValueError):
        return {}
