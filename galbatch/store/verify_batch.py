"""One batch looked at: its files held to the digests in its note, its part to the plan and to the store."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.store.checksums import DamagedBatch, Digest, digest_file
from galbatch.store.layout import STATUS, StoreLayout
from galbatch.store.parts import part_bytes, read_note, read_part
from galbatch.store.paths import RunPaths, sizes_below
from galbatch.store.plan import PlanBatch
from galbatch.store.posterior import read_sums
from galbatch.store.threads import THREADS, ahead


@dataclass
class BatchRead:
    """What was read of a batch: the bytes of its ``note``; what is ``damaged`` as (path, what); how many
    ``files`` and ``bytes``. ``checked``: its note has digests."""

    note: bytes = b""
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    checked: bool = False


def difference(path: Path, committed: Digest) -> str:
    """In what a file differs from what was written; '' if in nothing."""
    try:
        found = digest_file(path)
    except FileNotFoundError:
        return "missing"
    except OSError as err:
        return f"cannot be read ({err.strerror})"
    if found[0] != committed[0]:
        return f"has {found[0]} bytes, written were {committed[0]}"
    if found != committed:
        return f"its content changed (SHA-256 is {found[1][:12]}..., was {committed[1][:12]}...)"
    return ""


def read_batch(paths: RunPaths, guarded: bool, plan: PlanBatch) -> BatchRead | None:
    """Note, part and shards of a batch held to each other; None when it is not committed. ``guarded``: a note
    without digests is damaged."""
    if not paths.part(plan.batch).exists():
        return None
    read, path = BatchRead(), paths.attempt(plan.batch)
    try:
        files = read_note(paths, plan.batch).get("files", {})
        read.note = path.read_bytes() if files else b""
        read.files, read.bytes = bool(files), len(read.note)
    except (OSError, DamagedBatch) as err:
        read.damaged.append((path, str(err).removeprefix(f"{path}: ")))
        return read
    read.checked = bool(files)
    if guarded and not files:
        read.damaged.append((path, "holds no digests" if path.exists() else "missing"))
    for name, committed in files.items():
        read.files += 1
        read.bytes += committed[0]
        if what := difference(paths.root / name, committed):
            read.damaged.append((paths.root / name, what))
    return read


def damaged_parts(paths: RunPaths) -> dict[int, str]:
    """Committed batches whose part or note is not what was written, or whose shards are missing or of another
    size, and what is wrong with each. Every part is read once, of the shards nothing."""

    def look(batch: int) -> str:
        try:
            note = read_note(paths, batch)
            part_bytes(paths, batch, note)
        except DamagedBatch as err:
            return str(err)
        lost = (name for name, (size, _) in note["files"].items() if size_of(name) != size)
        return next((f"{paths.root / name}: missing or not whole" for name in lost), "")

    listed = sizes_below(paths.root)

    def size_of(name: str) -> int:
        return _size(paths.root / name) if listed is None else listed.get(name, -1)

    with ThreadPoolExecutor(THREADS) as pool:
        return {batch: what for batch, what in ahead(pool, sorted(paths.committed()), look) if what}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def compare_batch(
    paths: RunPaths,
    layout: StoreLayout,
    arrays: dict[str, Any],
    totals: Counter,
    plan: PlanBatch,
    checksums: bool,
) -> list[str]:
    """One line per disagreement of a batch's part with the plan and the store; counts its statuses in
    ``totals``. ``checksums``: the CRC-32 of every array is compared, too."""
    part, problems = read_part(paths, plan.batch), []
    ids, status = part.ids.to_pylist(), part.status.to_pylist()
    totals.update(status)
    rows = slice(layout.rows(plan.batch).start, layout.rows(plan.batch).start + len(plan))
    if ids != plan.columns["source_id"].tolist():
        problems.append(f"{plan.name}: the part's source ids are not the plan's")
    if ids != arrays["source_id"][rows].tolist():
        problems.append(f"{plan.name}: the store's source ids are not the part's")
    if [STATUS[s] for s in arrays["status"][rows]] != status:
        problems.append(f"{plan.name}: the store's status differs from the part's")
    if checksums:
        found = read_sums(paths.posterior, layout, plan.batch)
        problems += [
            f"{plan.name}: array {name} has CRC {found[name]:08x}, committed was {crc:08x}"
            for name, crc in part.sums.items()
            if found.get(name) != crc
        ]
    return problems + _not_finite(layout, arrays, rows, status, ids, plan.name)


def _not_finite(
    layout: StoreLayout, arrays: dict[str, Any], rows: slice, status: list[str], ids: list, name: str
) -> list[str]:
    """Sources called ok whose stored mean is not finite everywhere inside their stamp."""
    mean, spec = arrays["mean"][rows], layout.arrays()["mean"]
    sides = arrays["stamp_pix"][rows] if layout.sides else [layout.stamp_pix] * len(ids)
    inside = [layout.place(int(side), spec) for side in sides]
    return [
        f"{name}: source {ids[n]} is ok but its posterior mean is not finite"
        for n, s in enumerate(status)
        if s == "ok" and not np.isfinite(mean[n][:, inside[n], inside[n]]).all()
    ]
