"""Accounting: every row of the plan is in the catalogue once, as ok, flagged or failed; and which batches are
computed again."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.flags import count_flags
from galbatch.store.checksums import DamagedBatch
from galbatch.store.layout import STATUS
from galbatch.store.parts import FAILURE_COLUMNS, read_attempt, read_part
from galbatch.store.paths import RunPaths, opened, write_atomic
from galbatch.store.plan import plan_rows
from galbatch.types import Flag

FAILURE_SCHEMA = pa.schema(
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


def check_accounting(paths: RunPaths, counts: dict[str, int]) -> dict[str, int]:
    """Hold rows(plan) = rows(catalogue) = ok + flagged + failed; returns the totals.

    Raises ``RunError`` with all the numbers when they do not agree.
    """
    planned, written = plan_rows(paths.plan), pq.read_metadata(opened(paths.catalog)).num_rows
    failed = pq.read_metadata(opened(paths.failures)).num_rows
    by_status = {s: int(counts.get(s, 0)) for s in STATUS[1:]}
    if (
        not planned == written == sum(counts.values()) == sum(by_status.values())
        or failed != by_status["failed"]
    ):
        raise RunError(
            f"{paths.root}: the accounts do not balance: plan {planned}, catalogue {written}, "
            f"status {dict(counts)}, failures {failed}. Run `galbatch verify {paths.quoted}`."
        )
    return {"planned": planned, "catalogue": written, **by_status}


def failures_of(plan: pa.Table, table: pa.Table, by_batch: dict[int, dict[str, Any]]) -> pa.Table:
    """Rows of ``failures.parquet`` of the rows of ``table`` that failed; ``plan``: the same rows there;
    ``by_batch``: notes."""
    failed = pc.equal(table["status"], "failed")
    lost = table.select(["source_id", *FAILURE_COLUMNS]).filter(failed)
    notes = [by_batch[batch] for batch in plan["batch"].filter(failed).to_pylist()]
    workers = [f"{note.get('host', '')}:{note.get('pid', '')}" for note in notes]
    columns = [
        lost["source_id"].cast(pa.string()),
        *(lost[name] for name in FAILURE_COLUMNS),
        pa.array([note.get("attempt", 0) for note in notes], pa.int32()),
        pa.array(workers, pa.string()),
        pa.array([note.get("time", np.nan) for note in notes], pa.float64()),
    ]
    return pa.table(columns, schema=FAILURE_SCHEMA)


def read_failures(paths: RunPaths, most: int) -> list[dict[str, Any]]:
    """The first rows of ``failures.parquet``, as dicts by column."""
    return pq.read_table(opened(paths.failures)).slice(0, most).to_pylist()


def catalog_flags(paths: RunPaths) -> dict[str, int]:
    """Sources of the catalogue with each flag, the commonest first."""
    with pq.ParquetFile(opened(paths.catalog)) as file:
        flags = file.read(columns=["flags"])["flags"].combine_chunks()
    return count_flags(np.from_dlpack(flags) if len(flags) else np.zeros(0, int))  # to_numpy imports pandas


def read_summary(paths: RunPaths) -> dict[str, Any]:
    """What ``summary.json`` says; {} where it cannot be read."""
    try:
        return json.loads(paths.summary.read_text())
    except (OSError, ValueError):
        return {}


def write_summary(paths: RunPaths, summary: dict[str, Any]) -> None:
    """Write ``summary.json`` atomically."""
    write_atomic(paths.summary, (json.dumps(summary, indent=1, default=str) + "\n").encode())


def progress(paths: RunPaths) -> dict[str, Any]:
    """How far a run is, from its files alone: batches and sources by status, from the attempt notes."""
    planned = plan_rows(paths.plan) if paths.plan.exists() else None
    done: Counter = Counter()
    committed = paths.committed()
    for batch in committed:
        note = read_attempt(paths, batch)
        done.update({k: note.get(k, 0) for k in ("sources", *STATUS[1:])})
    return {
        "planned": planned,
        "batches_committed": len(committed),
        **{k: done[k] for k in ("sources", *STATUS[1:])},
        "finished": paths.summary.exists() and paths.catalog.exists(),
    }


# Failures of the source itself: however often it is tried, it fails again.
LASTING_CODES = ("OFF_IMAGE", "BAD_POSITION", "ALL_MASKED")


def batches_to_retry(paths: RunPaths) -> list[int]:
    """Numbers of the committed batches in which a source failed, other than by ``LASTING_CODES``, or was not
    read in one of its bands (READ_ERROR)."""
    found = []
    for batch in sorted(paths.committed()):
        try:
            rows = read_part(paths, batch)
        except DamagedBatch:  # computed again in any case
            continue
        failed = np.array([s == "failed" for s in rows["status"].to_pylist()])
        lasting = np.array([c in LASTING_CODES for c in rows["failure_code"].to_pylist()])
        unread = (np.asarray(rows["flags"]) & int(Flag.READ_ERROR)) != 0
        if ((failed & ~lasting) | unread).any():
            found.append(batch)
    return found
