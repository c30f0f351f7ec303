"""Accounting: every row of the plan is in the catalogue once, as ok, flagged or failed."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.store.layout import STATUS, StoreLayout
from galbatch.store.parts import read_attempt, read_part, refuse_old_parts
from galbatch.store.paths import RunPaths, write_atomic
from galbatch.store.plan import iter_plan, plan_rows
from galbatch.store.posterior import open_store, read_sums


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


def verify_store(paths: RunPaths, on_batch=None) -> list[str]:
    """Read every shard and every part against each other and the plan; returns one line per problem found.

    Raises ``RunError`` for a run of galbatch 0.1.0.
    """
    refuse_old_parts(paths)
    problems = [f"{path}: left behind by a killed process" for path in paths.orphans()]
    group = open_store(paths.posterior)
    layout = StoreLayout.from_attributes(dict(group.attrs))
    templates = [paths.posterior / name / "zarr.json" for name in layout.arrays()]
    problems += [f"{path}: missing, its array cannot be opened" for path in templates if not path.exists()]
    totals: Counter = Counter()
    unknown = paths.committed()
    for plan in iter_plan(paths.plan):
        unknown.discard(plan.batch)
        if not paths.part(plan.batch).exists():
            problems.append(f"{plan.name}: not committed ({len(plan)} sources)")
            continue
        try:
            problems += _verify_batch(paths, layout, group, plan, totals)
        except Exception as err:  # whatever a damaged file makes its reader raise is a finding, not an end
            problems.append(f"{plan.name}: cannot be read: {type(err).__name__}: {err}")
        if on_batch is not None:
            on_batch(plan.batch)
    problems += [f"{paths.part(b)}: a part that the plan does not know" for b in sorted(unknown)]
    return problems + _verify_catalogue(paths, totals)


def _verify_catalogue(paths: RunPaths, totals: Counter) -> list[str]:
    """The catalogue read through: its ids are the plan's, and the accounts balance."""
    if not paths.catalogue.exists():
        return [f"{paths.catalogue}: not written yet. `galbatch resume {paths.root}` does it."]
    try:
        with pq.ParquetFile(paths.plan) as plan, pq.ParquetFile(paths.catalogue) as catalogue:
            planned, found = plan.read(["source_id"])["source_id"], []
            for group in range(catalogue.num_row_groups):
                found += catalogue.read_row_group(group)["source_id"].chunks
        if found and not planned.equals(pa.chunked_array(found)):
            return [f"{paths.catalogue}: its source ids are not the plan's. Delete it and resume."]
        check_accounting(paths, totals)
    except RunError as err:
        return [str(err)]
    except (OSError, pa.ArrowException) as err:
        return [f"{paths.catalogue}: cannot be read ({err}). Delete it and resume."]
    return []


def _verify_batch(paths: RunPaths, layout: StoreLayout, group, plan, totals: Counter) -> list[str]:
    part, problems = read_part(paths, plan.batch), []
    ids, status = part.ids.to_pylist(), part.status.to_pylist()
    totals.update(status)
    rows = slice(layout.rows(plan.batch).start, layout.rows(plan.batch).start + len(plan))
    if ids != plan.columns["source_id"].tolist():
        problems.append(f"{plan.name}: the part's source ids are not the plan's")
    if ids != group["source_id"][rows].tolist():
        problems.append(f"{plan.name}: the store's source ids are not the part's")
    if [STATUS[s] for s in group["status"][rows]] != status:
        problems.append(f"{plan.name}: the store's status differs from the part's")
    written, found = part.sums, read_sums(paths.posterior, layout, plan.batch)
    problems += [
        f"{plan.name}: array {name} has CRC {found[name]:08x}, committed was {crc:08x}"
        for name, crc in written.items()
        if found.get(name) != crc
    ]
    problems += _not_finite(group, rows, status, ids, plan.name)
    return problems


def _not_finite(group, rows: slice, status: list[str], ids: list, name: str) -> list[str]:
    """Sources called ok whose stored mean has no finite band."""
    mean = group["mean"][rows]
    finite = abs(mean).sum(axis=(2, 3))
    return [
        f"{name}: source {ids[n]} is ok but its posterior mean is not finite"
        for n, s in enumerate(status)
        if s == "ok" and not (finite[n] < float("inf")).all()
    ]
