"""Accounting: every row of the plan is in the catalogue once, as ok, flagged or failed."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.store.layout import STATUS
from galbatch.store.parts import read_attempt
from galbatch.store.paths import RunPaths, write_atomic
from galbatch.store.plan import plan_rows


def check_accounting(paths: RunPaths, counts: dict[str, int]) -> dict[str, int]:
    """Hold rows(plan) = rows(catalogue) = ok + flagged + failed; returns the totals.

    Raises ``RunError`` with all the numbers when they do not agree.
    """
    planned, written = plan_rows(paths.plan), pq.read_metadata(paths.catalogue).num_rows
    failed = pq.read_metadata(paths.failures).num_rows
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
    return pq.read_table(paths.failures).slice(0, most).to_pylist()


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
