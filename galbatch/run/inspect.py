"""``status``, ``verify`` and ``repair``: a run folder looked at from outside, in whatever state it is; and
``snapshot`` of a run while it goes, which writes nothing, whoever works on it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galbatch.errors import RunError
from galbatch.run.folder import replacement
from galbatch.run.lock import lock_holder
from galbatch.store import (
    RunPaths,
    StoreLayout,
    catalogue_flags,
    check_manifest,
    is_ours,
    place_of,
    progress,
    read_manifest,
    read_summary,
    restore_manifest,
)
from galbatch.store.selection import GRADES

if TYPE_CHECKING:
    from galbatch.store import Verdict


def status(run: str | Path) -> dict[str, Any]:
    """How far a run is: ``state`` (running, finished, stopped), sources by status and by flag, batches, who
    works on it.

    Raises ``RunError`` when the folder is not a run.
    """
    paths = RunPaths(place_of(run))
    manifest, far, holder = read_manifest(paths), progress(paths), lock_holder(paths.lock)
    layout = StoreLayout.from_attributes(manifest["layout"])
    total = far["planned"] or 0
    finished = far["finished"] and far["sources"] == total
    state = "running" if holder else "finished" if finished else "stopped"
    return {
        "run": str(paths.root),
        "state": state,
        **far,
        "batches": -(-total // layout.batch),
        "holder": holder,
        "catalog": manifest.get("config", {}).get("catalog", ""),
        "bands": list(layout.bands),
        "draws": layout.draws,
        "flags": catalogue_flags(paths) if finished else _flags_so_far(paths),
        "summary": read_summary(paths) or None,
        "orphans": len(paths.orphans()),
        "replacement": str(new.root) if (new := replacement(paths)) else None,
    }


def _flags_so_far(paths: RunPaths) -> dict[str, int]:
    from galbatch.store import (
        open_run,
    )  # with it comes Zarr, which the status of a finished run does not need

    return open_run(paths.root).flag_counts()


def verify(run: str | Path) -> list[str]:
    """Hold every file of a run to its digest, and shards, parts and rows to each other; returns one line per
    problem, none for a sound run.

    A run that somebody works on, or that was stopped, has its missing batches among the problems.
    """
    return examine(run).problems


def examine(run: str | Path) -> Verdict:
    """``verify`` with all that it found out."""
    from galbatch.store import verify_store

    paths = RunPaths(place_of(run))
    problems = check_manifest(paths) if is_ours(paths.root) else []
    if not problems and not paths.checksums.exists():
        read_manifest(paths)
    found = verify_store(paths)
    found.problems[:0] = problems
    return found


def repair(run: str | Path) -> list[str]:
    """Put back what can be put back of a run folder: ``manifest.json`` from its copy, or the copy. Returns
    what was done, one line each.

    Raises ``RunError`` when the folder is not a run, or another process works on it.
    """
    paths = RunPaths(place_of(run))
    if not is_ours(paths.root) and not paths.manifest_copy.exists():
        read_manifest(paths)
    if holder := lock_holder(paths.lock):
        raise RunError(
            f"{paths.root}: a run is working on this folder (host {holder.get('host')}, pid "
            f"{holder.get('pid')}). Wait for it."
        )
    done = restore_manifest(paths)
    return [done] if done else []


MESSAGES = 3


def snapshot(run: str | Path) -> dict[str, Any]:
    """``status`` of a run with ``grades`` (sources by grade so far), ``draws_per_s`` and ``eta_s`` (None
    where not known), the ``latest`` messages, and ``recent``: numbers of the committed batches, the latest
    first. Raises ``RunError`` when the folder is not a run."""
    from galbatch.store import open_run

    found = status(run)
    paths = RunPaths(place_of(run))
    batches, messages = _metrics(paths.metrics)
    grades = dict(zip(GRADES, open_run(paths.root).quality_counts(), strict=True))
    said = [int(b["batch"]) for b in reversed(batches)]
    recent = [*dict.fromkeys([*said, *sorted(paths.committed(), reverse=True)])]
    return (
        found | {"grades": grades, "latest": messages[-MESSAGES:], "recent": recent} | _pace(found, batches)
    )


def _pace(found: dict[str, Any], batches: list[dict[str, Any]]) -> dict[str, float | None]:
    """Rate and time left from the batches of the latest start, the first of which has loaded and compiled."""
    if found["state"] != "running" or len(batches) < 2:
        return {"draws_per_s": None, "eta_s": None}
    span = max(batches[-1]["time"] - batches[0]["time"], 1e-9)
    sources = sum(b["sources"] for b in batches[1:])
    draws = sum(b["counters"].get("draws", 0) for b in batches[1:])
    left = max(0, (found["planned"] or 0) - found["sources"]) * span / max(sources, 1)
    return {"draws_per_s": draws / span, "eta_s": max(0.0, left - (time.time() - batches[-1]["time"]))}


def _metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Batches since the latest start, and messages, of ``metrics.jsonl``; a last line still being written is
    left out."""
    batches: list[dict[str, Any]] = []
    messages: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return batches, messages
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("event") == "start":
            batches = []
        elif record.get("event") == "batch":
            batches.append(record)
        elif record.get("event") == "message":
            messages.append(str(record.get("text", "")))
    return batches, messages
