"""Proof that galbatch made a folder, and deletion of what it wrote there and of nothing else.

The proof is the marker file ``.galbatch-run``, made before anything else, or, in folders of galbatch 0.1.0, a
manifest whose configuration has the hash that it names. What may be deleted inside is the list of names in
``paths``; a symbolic link of such a name is removed, what it points to is not touched.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from galbatch.store.bucket import BucketPath
from galbatch.store.manifest import read_valid, versions
from galbatch.store.paths import MARKER, RunPaths, is_own_file, is_own_folder, is_own_name, write_atomic

MARKER_FORMAT = 1


@dataclass(frozen=True)
class Marker:
    """``run``: id of the run; ``replaces``: name of the folder beside it whose place it takes when it is
    finished, '' for none; ``created``: UTC; ``galbatch``: version that made it."""

    run: str
    replaces: str = ""
    created: str = ""
    galbatch: str = ""
    format: int = MARKER_FORMAT


def mark(root: Path, run: str = "", replaces: str = "") -> Marker:
    """Make the folder, if need be, and its marker; one that is there already stays."""
    if found := read_marker(root):
        return found
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    marker = Marker(run or uuid.uuid4().hex[:12], replaces, now, versions().get("galbatch", ""))
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(root / MARKER, (json.dumps(asdict(marker), indent=1) + "\n").encode())
    return marker


def read_marker(root: Path) -> Marker | None:
    """The marker of a folder; None without a valid one."""
    path = root / MARKER
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if not path.is_symlink() else {}
        marker = Marker(**{k: record[k] for k in Marker.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    good = isinstance(marker.run, str) and isinstance(marker.replaces, str) and marker.format == MARKER_FORMAT
    return marker if good and Path(marker.replaces).name == marker.replaces else None


def replaces(root: Path) -> Path | None:
    """The folder whose place a run in ``root`` takes when it is finished; None for a run that is in its
    place, or that was given another name."""
    marker = read_marker(root)
    if marker is None or not marker.replaces or root.name != f"{marker.replaces}.new-{marker.run}":
        return None
    return root.with_name(marker.replaces)


def is_ours(root: Path) -> bool:
    """Can it be proved that galbatch made this folder?"""
    return read_marker(root) is not None or read_valid(RunPaths(root).manifest) is not None


def is_empty(root: Path) -> bool:
    """No such folder, or nothing in it but a marker and a lock."""
    try:
        return {path.name for path in root.iterdir()} <= {MARKER, RunPaths(root).lock.name}
    except FileNotFoundError:
        return True


def holds_results(paths: RunPaths) -> bool:
    """Is there anything that took time to compute?"""
    products = (paths.catalogue, paths.statistics, paths.summary, paths.failures)
    return bool(paths.committed() or paths.committed_before()) or any(path.exists() for path in products)


def clear(root: Path, keep: tuple[str, ...] = ()) -> list[Path]:
    """Delete galbatch's own files and its folders that are then empty, the marker last; ``keep``: names at
    the top that stay. Returns what else is there, which is not galbatch's."""
    if isinstance(root, BucketPath):
        return _clear_bucket(root, keep)
    others, folders = [], []
    for name, entry in _walk(root, ""):
        link = entry.is_symlink()
        if name in keep or name == MARKER:
            continue
        own_link = link and is_own_name(name)
        if own_link or (is_own_file(name) and entry.is_file(follow_symlinks=False)):
            os.unlink(entry.path)
        elif is_own_folder(name) and not link and entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
        else:
            others.append(Path(entry.path))
    for folder in reversed(folders):
        try:
            os.rmdir(folder)
        except OSError:
            continue  # others' files are in it
    if MARKER not in keep:
        (root / MARKER).unlink(missing_ok=True)
    return sorted(others)


def _clear_bucket(root: BucketPath, keep: tuple[str, ...]) -> list[Path]:
    """``clear`` for the objects below a prefix."""
    others: list[Path] = []
    for path in list(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name in keep or name == MARKER:
            continue
        if is_own_file(name):
            path.unlink(missing_ok=True)
        else:
            others.append(path)
    if MARKER not in keep:
        (root / MARKER).unlink(missing_ok=True)
    return sorted(others)


def remove(root: Path) -> list[Path]:
    """``clear``, and the folder itself where nothing else is in it."""
    others = clear(root)
    if not others:
        root.rmdir()
    return others


def _walk(root: Path, inside: str) -> Iterator[tuple[str, os.DirEntry]]:
    """Entries with their names relative to ``root``; only galbatch's own folders are entered, no links."""
    with os.scandir(root / inside) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = f"{inside}/{entry.name}" if inside else entry.name
        yield name, entry
        if is_own_folder(name) and entry.is_dir(follow_symlinks=False):
            yield from _walk(root, name)
