"""Part files: one small Arrow IPC stream a batch, whose existence is the batch's commit.

Beside each lies its note, which holds the digests of the part and of the batch's shards: a part that is not
what its note says is damaged, and resume computes its batch again.
"""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from galbatch.errors import RunError
from galbatch.store.bucket import BucketPath
from galbatch.store.checksums import DamagedBatch, difference, digest_bytes, seal, unseal
from galbatch.store.layout import STATUS, StoreLayout
from galbatch.store.paths import RunPaths, sizes_below, write_atomic
from galbatch.store.threads import THREADS, ahead

FAILURE_COLUMNS = ("failure_stage", "failure_code", "failure_message")
_ALIGNED = 8  # bytes to which Arrow pads the buffers of a message


@dataclass(frozen=True)
class BatchResult:
    """What one batch leaves behind.

    ``arrays``: (n, ...) per array of the store; ``columns``: (n,) per catalogue column, among them
    ``source_id``, ``status`` (str), ``flags`` and the three failure columns; ``seconds`` by stage;
    ``counters`` for the metrics; ``update``: sources by what became of them where an earlier run is updated.
    """

    batch: int
    arrays: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    seconds: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    update: dict[str, int] = field(default_factory=dict)


def commit_batch(
    paths: RunPaths,
    layout: StoreLayout,
    result: BatchResult,
    attempt: int = 1,
    about: dict[str, Any] | None = None,
) -> dict:
    """Write a batch for good: shards, read-back, then the part by atomic rename. Safe to repeat. ``about``:
    what its note says too.

    Returns a small record (counts, seconds, worker) for the scheduler's client; never arrays.
    """
    from galbatch.store.posterior import write_shards  # with it comes Zarr, which no status needs

    start = time.perf_counter()
    shards = write_shards(paths.posterior, layout, result.batch, result.arrays)
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
        **({"update": result.update} if result.update else {}),
    } | (about or {})
    files = {f"{paths.posterior.name}/{name}": digest for name, digest in shards.items()}
    write_part(paths, result.batch, result.columns, record | {"files": files})
    return record


def write_part(
    paths: RunPaths, batch: int, columns: dict[str, np.ndarray], note: dict[str, Any] | None = None
) -> None:
    """Write the note of a batch, with the digest of its part among its ``files``, and then the part; equal
    columns give an equal part.

    ``columns``: (n,) or (n, k) by name, of which single-precision ones are written first, as ``join_parts``
    reads them fastest.
    """
    order = sorted(columns, key=lambda name: (columns[name].ndim > 1, columns[name].dtype != np.float32))
    rows = pa.record_batch([_column(columns[name]) for name in order], names=order)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as out:
        out.write_batch(rows)
    data, record = sink.getvalue().to_pybytes(), {"batch": batch} | (note or {})
    files = record.get("files", {}) | {_name(paths, batch): digest_bytes(data)}
    write_atomic(paths.attempt(batch), seal(record | {"files": files}))
    if isinstance(part := paths.part(batch), BucketPath):
        with suppress(FileExistsError):  # another process was faster, with the same bytes or `verify` says so
            part.write_new(data)
    else:
        write_atomic(part, data)


def _name(paths: RunPaths, batch: int) -> str:
    return f"{paths.parts.name}/{paths.part(batch).name}"


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim > 1:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), int(np.prod(values.shape[1:])))
    return pa.array(values.astype(str).astype(object) if values.dtype.kind in "UST" else values)


def read_part(paths: RunPaths, batch: int) -> pa.RecordBatch:
    """The rows of a committed part. Raises as ``part_bytes``."""
    try:
        with pa.ipc.open_stream(part_bytes(paths, batch, read_note(paths, batch))) as file:
            return file.read_next_batch()
    except (pa.ArrowException, ValueError, StopIteration) as err:
        raise _damaged(paths, batch, f"no part of galbatch: {err}") from err


def part_bytes(paths: RunPaths, batch: int, note: dict[str, Any]) -> bytes:
    """The content of a part file, held to the digest in its ``note``.

    Raises ``DamagedBatch`` when it is not what was committed, ``RunError`` when it cannot be read.
    """
    path = paths.part(batch)
    try:
        data = path.read_bytes()
    except OSError as err:
        raise RunError(
            f"{path}: cannot be read ({err.strerror}). Check the disk and the permissions; then "
            f"run `galbatch resume {paths.quoted}`."
        ) from err
    committed = note.get("files", {}).get(f"{path.parent.name}/{path.name}")
    if committed is None:
        raise _damaged(paths, batch, f"{paths.attempt(batch).name}, which holds its digest, is missing")
    if committed != (found := digest_bytes(data)):
        raise _damaged(
            paths,
            batch,
            f"{found[0]} bytes, SHA-256 {found[1][:12]}...; committed were {committed[0]} bytes, "
            f"{committed[1][:12]}...",
        )
    return data


def _damaged(paths: RunPaths, batch: int, why: str) -> DamagedBatch:
    return DamagedBatch(
        f"{paths.part(batch)}: not what was committed ({why}). Run `galbatch resume {paths.quoted}`: the "
        "sources of this batch are computed again.",
        batch,
    )


def damaged_parts(paths: RunPaths) -> dict[int, str]:
    """Committed batches whose part or note is not what was written, or whose shards are missing or of another
    size, and what is wrong with each. Every part is read once, of the shards nothing."""
    listed = sizes_below(paths.root)

    def size_of(name: str) -> int:
        try:
            return (paths.root / name).stat().st_size if listed is None else listed.get(name, -1)
        except OSError:
            return -1

    def look(batch: int) -> str:
        try:
            note = read_note(paths, batch)
            part_bytes(paths, batch, note)
        except DamagedBatch as err:
            return str(err)
        lost = (name for name, (size, _) in note["files"].items() if size_of(name) != size)
        return next((f"{paths.root / name}: missing or not whole" for name in lost), "")

    with ThreadPoolExecutor(THREADS) as pool:
        return {batch: what for batch, what in ahead(pool, sorted(paths.committed()), look) if what}


def part_head(data: bytes) -> bytes:
    """The bytes with which a part begins, its schema: equal for parts with the same columns."""
    return data[: 8 + int.from_bytes(data[4:8], "little")]


def join_parts(parts: list[bytes]) -> pa.Table:
    """The rows of parts with the same head, in order, every column in one piece.

    The head is read once, and the float32 columns with which it begins are joined as one block: one by one,
    hundreds of tiny pieces a part take several times as long.
    """
    head, schema = len(part_head(parts[0])), pa.ipc.read_schema(pa.py_buffer(parts[0]))
    messages = [pa.ipc.read_message(pa.py_buffer(data).slice(head)) for data in parts]
    rows = [pa.ipc.read_record_batch(message, schema) for message in messages]
    first = next((k for k, kind in enumerate(schema.types) if kind != pa.float32()), len(schema))
    blocks = [_block(batch, message.body, first) for batch, message in zip(rows, messages, strict=True)]
    joined = [block for block in blocks if block is not None]
    if len(joined) < len(blocks):
        return pa.Table.from_batches(rows, schema).combine_chunks()
    rest = pa.Table.from_batches([batch.select(range(first, len(schema))) for batch in rows]).combine_chunks()
    return pa.table([*map(pa.array, np.concatenate(joined, axis=1)), *rest.columns], schema=schema)


def _block(rows: pa.RecordBatch, body: pa.Buffer, k: int) -> np.ndarray | None:
    """(k, n) view of the first ``k`` columns, float32 without missing values, where they lie at equal
    distances in the ``body`` of their message, as Arrow writes them; else None."""
    if k < 2:
        return None
    n, columns = rows.num_rows, [rows.column(0), rows.column(k - 1)]
    step = -(-4 * n // _ALIGNED) * _ALIGNED
    places = [column.buffers()[1].address - body.address for column in columns]
    if places != [0, (k - 1) * step] or any(c.null_count for c in columns):
        return None
    return np.ndarray((k, n), np.float32, body, 0, (step, 4))


def read_note(paths: RunPaths, batch: int) -> dict:
    """The note of a batch: who wrote it and when, and in ``files`` the digests of its part and shards.

    Empty when it is missing. Raises ``DamagedBatch`` when it is not what was written.
    """
    path = paths.attempt(batch)
    try:
        note = unseal(path.read_bytes())
        if note["batch"] != batch:
            raise ValueError("it is not the note of this batch")
        return note
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as err:
        raise DamagedBatch(f"{path}: damaged ({err})", batch) from err


def read_attempt(paths: RunPaths, batch: int) -> dict:
    """Who wrote a batch and when; empty when the note is missing or damaged."""
    try:
        return read_note(paths, batch)
    except DamagedBatch:
        return {}


@dataclass
class BatchRead:
    """What was read of a batch: the bytes of its ``note``; what is ``damaged`` as (path, what); how many
    ``files`` and ``bytes``."""

    note: bytes = b""
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    files: int = 0
    bytes: int = 0


def read_batch(paths: RunPaths, batch: int) -> BatchRead | None:
    """Note, part and shards of a batch held to each other; None when it is not committed."""
    if not paths.part(batch).exists():
        return None
    path = paths.attempt(batch)
    try:
        files = read_note(paths, batch).get("files")
        read = BatchRead(path.read_bytes() if files else b"")
    except (OSError, DamagedBatch) as err:
        return BatchRead(damaged=[(path, str(err).removeprefix(f"{path}: "))])
    if not files:
        return BatchRead(damaged=[(path, "missing")])
    read.files, read.bytes = 1 + len(files), len(read.note) + sum(size for size, _ in files.values())
    differs = ((paths.root / name, difference(paths.root / name, digest)) for name, digest in files.items())
    read.damaged = [(file, what) for file, what in differs if what]
    return read
