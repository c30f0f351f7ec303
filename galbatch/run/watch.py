"""A run looked at while it goes, from outside: nothing is written, whoever works on it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from galbatch.run.inspect import status
from galbatch.store import RunPaths, open_run, place_of
from galbatch.store.selection import GRADES

MESSAGES = 3


def snapshot(run: str | Path) -> dict[str, Any]:
    """``status`` of a run with ``grades`` (sources by grade so far), ``draws_per_s`` and ``eta_s`` (None
    where not known), the ``latest`` messages, and ``recent``: numbers of the committed batches, the latest
    first. Raises ``RunError`` when the folder is not a run."""
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
