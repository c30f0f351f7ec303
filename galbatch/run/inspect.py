"""``status``, ``verify`` and ``repair``: a run folder looked at from outside, in whatever state it is."""

from __future__ import annotations

import json
from collections.abc import Callable
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
    restore_manifest,
)

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
        "summary": _json(paths.summary),
        "orphans": len(paths.orphans()),
        "replacement": str(new.root) if (new := replacement(paths)) else None,
    }


def _flags_so_far(paths: RunPaths) -> dict[str, int]:
    from galbatch.store import open_run  # with it comes Zarr, which a finished run does not need here

    return open_run(paths.root).flag_counts()


def verify(run: str | Path, on_batch: Callable[[int], None] | None = None) -> list[str]:
    """Hold every file of a run to its digest, and shards, parts and rows to each other; returns one line per
    problem, none for a sound run.

    A run that somebody works on, or that was stopped, has its missing batches among the problems.
    """
    return examine(run, on_batch).problems


def examine(run: str | Path, on_batch: Callable[[int], None] | None = None) -> Verdict:
    """``verify`` with all that it found out."""
    from galbatch.store import verify_store

    paths = RunPaths(place_of(run))
    problems = check_manifest(paths) if is_ours(paths.root) else []
    if not problems and not paths.checksums.exists():
        read_manifest(paths)
    found = verify_store(paths, on_batch)
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


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
