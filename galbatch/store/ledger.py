"""Accounting: every row of the plan is in the catalogue once, as ok, flagged or failed; and which batches are
computed again."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.flags import count_flags
from galbatch.store.checksums import DamagedBatch
from galbatch.store.layout import STATUS
from galbatch.store.parts import read_attempt, read_part
from galbatch.store.paths import RunPaths, write_atomic
from galbatch.store.place import opened
from galbatch.store.plan import plan_rows
from galbatch.types import Flag


def check_accounting(paths: RunPaths, counts: dict[str, int]) -> dict[str, int]:
    """Hold rows(plan) = rows(catalogue) = ok + flagged + failed; returns the totals.

    Raises ``RunError`` with all the numbers when they do not agree.
    """
    planned, written = plan_rows(paths.plan), pq.read_metadata(opened(paths.catalogue)).num_rows
    failed = pq.read_metadata(opened(paths.failures)).num_rows
    by_status = {s: int(counts.get(s, 0)) for s in STATUS[1:]}
    if (
        not planned == written == sum(counts.values()) == sum(by_status.values())
        or failed != by_status["failed"]
    ):
        raise RunError(
            f"{paths.root}: the accounts do not balance: plan {planned}, catalogue {written}, "
            f"status {dict(counts)}, failures {failed}. Run `galbatch verify {paths.root}`."
        )
    return {"planned": planned, "catalogue": written, **by_status}


def read_failures(paths: RunPaths, most: int) -> list[dict[str, Any]]:
    """The first rows of ``failures.parquet``, as dicts by column."""
    return pq.read_table(opened(paths.failures)).slice(0, most).to_pylist()


def catalogue_flags(paths: RunPaths) -> dict[str, int]:
    """Sources of the catalogue with each flag, the commonest first."""
    with pq.ParquetFile(opened(paths.catalogue)) as file:
        flags = file.read(columns=["flags"])["flags"].combine_chunks()
    return count_flags(np.from_dlpack(flags) if len(flags) else np.zeros(0, int))  # to_numpy imports pandas


def write_summary(paths: RunPaths, summary: dict[str, Any]) -> None:
    """Write ``summary.json`` atomically."""
    write_atomic(paths.summary, (json.dumps(summary, indent=1, default=str) + "\n").encode())


def progress(paths: RunPaths) -> dict[str, Any]:
    """How far a run is, from its files alone: batches and sources by status, from the attempt notes."""
    planned = plan_rows(paths.plan) if paths.plan.exists() else None
    done: Counter = Counter()
    committed = sorted(paths.committed() | paths.committed_before())
    for batch in committed:
        note = read_attempt(paths, batch)
        done.update({k: note.get(k, 0) for k in ("sources", *STATUS[1:])})
    return {
        "planned": planned,
        "batches_committed": len(committed),
        **{k: done[k] for k in ("sources", *STATUS[1:])},
        "finished": paths.summary.exists() and paths.catalogue.exists(),
    }


# Failures of the source itself: however often it is tried, it fails again.
LASTING_CODES = ("OFF_IMAGE", "BAD_POSITION", "ALL_MASKED")


def batches_to_retry(paths: RunPaths) -> list[int]:
    """Numbers of the committed batches in which a source failed, other than by ``LASTING_CODES``, or was not
    read in one of its bands (READ_ERROR)."""
    found = []
    for batch in sorted(paths.committed()):
        try:
            rows = read_part(paths, batch).rows
        except DamagedBatch:  # computed again in any case
            continue
        failed = np.array([s == "failed" for s in rows["status"].to_pylist()])
        lasting = np.array([c in LASTING_CODES for c in rows["failure_code"].to_pylist()])
        unread = (np.asarray(rows["flags"]) & int(Flag.READ_ERROR)) != 0
        if ((failed & ~lasting) | unread).any():
            found.append(batch)
    return found


def withdraw(paths: RunPaths, batches: list[int]) -> None:
    """Take the commits of ``batches`` back, and with them the end of the run."""
    if batches:
        paths.summary.unlink(missing_ok=True)
    for batch in batches:
        paths.part(batch).unlink(missing_ok=True)
