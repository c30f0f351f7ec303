"""``status``, ``verify`` and ``repair``: a run folder looked at from outside, in whatever state it is; and
``snapshot`` of a run while it goes, which writes nothing, whoever works on it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galbatch.errors import RunError
from galbatch.run.events import Progress
from galbatch.run.folder import replacement
from galbatch.run.lock import lock_holder
from galbatch.store import (
    RunPaths,
    StoreLayout,
    catalog_flags,
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
    if finished:
        flags = catalog_flags(paths)
    else:
        from galbatch.store import open_run  # with it comes Zarr, which a finished run does not need

        flags = open_run(paths.root).flag_counts()
    return {
        "run": str(paths.root),
        "state": state,
        **far,
        "batches": -(-total // layout.batch),
        "holder": holder,
        "catalog": manifest.get("config", {}).get("catalog", ""),
        "bands": list(layout.bands),
        "draws": layout.draws,
        "flags": flags,
        "summary": read_summary(paths) or None,
        "orphans": len(paths.orphans()),
        "replacement": str(new.root) if (new := replacement(paths)) else None,
    }


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
    far, batches, messages = _replayed(paths.metrics)
    grades = dict(zip(GRADES, open_run(paths.root).quality_counts(), strict=True))
    recent = [*dict.fromkeys([*reversed(batches), *sorted(paths.committed(), reverse=True)])]
    going = found["state"] == "running" and len(batches) > 1  # the first has loaded and compiled
    pace = {"draws_per_s": far.pace if going else None, "eta_s": far.eta_s if going else None}
    return found | {"grades": grades, "latest": messages[-MESSAGES:], "recent": recent} | pace


def _replayed(path: Path) -> tuple[Progress, list[int], list[str]]:
    """Progress since the latest start, its batches, and all messages, of ``metrics.jsonl``; a last line still
    being written is left out."""
    progress = Progress()
    batches: list[int] = []
    messages: list[str] = []
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line) if line.endswith("}") else {}
            if record.get("event") == "start":
                total, before = record["total"], record["before"]
                progress, batches = Progress(total, before, before, clock=time.time), []
            elif record.get("event") == "batch":
                progress.add(record, at=record["time"])
                batches.append(int(record["batch"]))
            elif record.get("event") == "message":
                messages.append(record["text"])
    return progress, batches, messages
