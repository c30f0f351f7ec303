"""``status`` and ``verify``: a run folder looked at from outside, in whatever state it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from galbatch.run.lock import lock_holder
from galbatch.store import RunPaths, open_run, progress, read_manifest, verify_store


def status(run: str | Path) -> dict[str, Any]:
    """How far a run is: ``state`` (running, finished, stopped), sources by status and by flag, batches, who
    works on it.

    Raises ``RunError`` when the folder is not a run.
    """
    paths = RunPaths(Path(run))
    manifest = read_manifest(paths)
    far = progress(paths)
    holder = lock_holder(paths.lock)
    batch = max(1, manifest.get("layout", {}).get("batch", 1))
    total = far["planned"] or 0
    finished = far["finished"] and far["sources"] == total
    state = "running" if holder else "finished" if finished else "stopped"
    return {
        "run": str(paths.root),
        "state": state,
        **far,
        "batches": -(-total // batch),
        "holder": holder,
        "catalog": manifest["config"]["catalog"],
        "bands": manifest["layout"]["bands"],
        "draws": manifest["layout"]["draws"],
        "flags": open_run(paths.root).flag_counts(),
        "summary": _json(paths.summary),
        "orphans": len(paths.orphans()),
    }


def verify(run: str | Path, on_batch: Callable[[int], None] | None = None) -> list[str]:
    """Read every shard, part and row of a run against each other; returns one line per problem, none for a
    sound run.

    A run that somebody works on, or that was stopped, has its missing batches among the problems.
    """
    paths = RunPaths(Path(run))
    read_manifest(paths)
    return verify_store(paths, on_batch)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
