"""Digests that find every changed bit of a run folder, and ``checksums.json``, which holds them.

A digest is ``[bytes, SHA-256]`` of a file, as ``sha256sum`` says. The note of a batch holds those of its part
and of its shards; ``checksums.json`` holds those of all other files, and one of all notes. Notes and
``checksums.json`` guard themselves: they are sealed records.

``checksums.json`` is written when the folder is laid out (state ``running``) and when the run ends (state
``finished``). What a command writes into the folder later, it records there itself. Not in it: ``run.lock``,
``metrics.jsonl`` until the end of the run, and what galbatch has not written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from galbatch.errors import RunError
from galbatch.store.paths import RunPaths, place_of, write_atomic

Digest = list  # [bytes, SHA-256 in hexadecimal digits]: a list, because JSON has no tuples
_SEAL = b',\n"digest": "'


class DamagedBatch(RunError):
    """What was committed of a batch is not what lies on the disk now. ``batch``: its number."""

    def __init__(self, message: str, batch: int = -1) -> None:
        super().__init__(message)
        self.batch = batch


def digest_bytes(data: bytes) -> Digest:
    """Digest of bytes in memory."""
    return [len(data), hashlib.sha256(data).hexdigest()]


def digest_file(path: Path) -> Digest:
    """Digest of a file, read in pieces. Raises ``OSError``."""
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256")
        return [handle.seek(0, os.SEEK_END), found.hexdigest()]


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


def seal(record: dict[str, Any], indent: int | None = None) -> bytes:
    """A record as JSON whose last field is the SHA-256 of all the bytes before it."""
    body = json.dumps(record, indent=indent, default=str).removesuffix("}").rstrip("\n").encode()
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def unseal(data: bytes) -> dict[str, Any]:
    """The record of sealed bytes. Raises ``ValueError`` when a bit of them changed since, or more."""
    body, mark, end = data.rpartition(_SEAL)
    if not mark or end != hashlib.sha256(body).hexdigest().encode() + b'"}\n':
        raise ValueError("its content is not what was written: its own digest differs")
    record = json.loads(data)
    del record["digest"]
    return record


@dataclass
class Checksums:
    """What ``checksums.json`` says: the digests of ``files`` by their path in the run folder; once the run is
    ``finished``, in ``notes``, the number of batches and the SHA-256 of all their notes in order."""

    files: dict[str, Digest] = field(default_factory=dict)
    finished: bool = False
    notes: Digest | None = None

    def write(self, paths: RunPaths) -> None:
        """Write the file atomically."""
        record = {
            "schema": 1,
            "algorithm": "SHA-256",
            "state": "finished" if self.finished else "running",
            "notes": self.notes,
            "files": dict(sorted(self.files.items())),
        }
        write_atomic(paths.checksums, seal(record, indent=1))


def read_checksums(paths: RunPaths) -> Checksums | None:
    """What ``checksums.json`` says; None when there is none. Raises ``RunError`` when it is damaged."""
    try:
        record = unseal(paths.checksums.read_bytes())
        return Checksums(record["files"], record["state"] == "finished", record["notes"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise RunError(
            f"{paths.checksums}: damaged ({err}). `galbatch resume {paths.quoted}` makes it again."
        ) from err


def begin_checksums(paths: RunPaths) -> None:
    """Record what was written before the first batch and never changes: settings, manifest, plan and the
    template of the store."""
    first = [p for p in (paths.config, paths.manifest, paths.manifest_copy, paths.plan) if p.exists()]
    files = {name_in(paths, path): digest_file(path) for path in (*first, *template_files(paths))}
    Checksums(files).write(paths)


def reopen_checksums(paths: RunPaths) -> None:
    """A run goes on: what it writes at its end is not guarded until then."""
    sums = read_checksums(paths)
    if sums is not None and sums.finished:
        ends = {name_in(paths, path) for path in paths.written_last}
        Checksums({n: d for n, d in sums.files.items() if n not in ends}).write(paths)


def rebuild_checksums(paths: RunPaths) -> None:
    """Make a lost or damaged ``checksums.json`` again, of what lies in the folder now."""
    begin_checksums(paths)
    for path in (paths.report, paths.dask_report):
        if path.exists():
            record_file(paths, path)


def end_checksums(paths: RunPaths) -> None:
    """Record what was written when the run ended, and all notes."""
    try:
        sums = read_checksums(paths)
    except RunError:  # it was sound when this run began
        sums = None
    if sums is None:
        rebuild_checksums(paths)
        sums = read_checksums(paths) or Checksums()
    for path in paths.written_last:
        if path.exists():
            sums.files[name_in(paths, path)] = digest_file(path)
    digest, batches = hashlib.sha256(), sorted(paths.committed())
    for batch in batches:
        digest.update(paths.attempt(batch).read_bytes())
    Checksums(sums.files, True, [len(batches), digest.hexdigest()]).write(paths)


def record_file(paths: RunPaths, path: Path) -> None:
    """Record a file that a command has written into the run folder; elsewhere, or in a folder without
    checksums, nothing is done."""
    path = place_of(path).absolute()
    if not path.is_relative_to(paths.root):
        return
    try:
        sums = read_checksums(paths)
    except RunError:  # `verify` says it, `resume` mends it
        return
    if sums is not None:
        sums.files[name_in(paths, path)] = digest_file(path)
        sums.write(paths)


def name_in(paths: RunPaths, path: Path) -> str:
    """Path of a file in the run folder, with /."""
    return path.relative_to(paths.root).as_posix()


def template_files(paths: RunPaths) -> Iterator[Path]:
    """Files of the store that are written with its template: metadata and the two axes of names."""
    yield from sorted(paths.posterior.glob("*.json"))
    yield from sorted(paths.posterior.glob("*/*.json"))
    for axis in ("band", "wcs_parameter"):
        yield from sorted(p for p in paths.posterior.joinpath(axis, "c").rglob("*") if p.is_file())
