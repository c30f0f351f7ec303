"""The folder that an export writes into: its own, marked as such, and never over anything.

A marker file, written before anything else, says which run and which form the files are of. Nothing in the
folder is ever deleted or replaced.
"""

from __future__ import annotations

import filecmp
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from galbatch.errors import RunError
from galbatch.store.manifest import hash_json, read_manifest
from galbatch.store.paths import RunPaths, write_atomic

MARKER = ".galbatch-export.json"


@dataclass(frozen=True)
class ExportFolder:
    """A folder that holds an export of one run in one form and nothing else."""

    path: Path

    def write(self, name: str, data: bytes) -> Path:
        """Write a file of these bytes as ``place`` does."""
        return self.place(name, lambda path: path.write_bytes(data))

    def place(self, name: str, write: Callable[[Path], object]) -> Path:
        """The file that ``write(path)`` makes, whole or not at all. One that is there already with the same
        bytes stays.

        Raises ``RunError`` when it is there with others: someone edited it, or the run has changed.
        """
        path = self.path / name
        partial = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            write(partial)
            if not path.exists():
                partial.replace(path)
            elif not filecmp.cmp(path, partial, shallow=False):
                raise RunError(
                    f"{path} is there already and is not what would be written: it was edited, or the run "
                    "has changed since. Move it away, or name another folder with --out."
                )
        finally:
            partial.unlink(missing_ok=True)
        return path


def open_export(path: Path, form: str, paths: RunPaths) -> ExportFolder:
    """The folder for an export, made where there is none or an empty one.

    Raises ``RunError`` when it holds anything else than an earlier export of this run in this form.
    """
    path = Path(path)
    refuse_file(path)
    marker, mine = path / MARKER, {"form": form, "run": _run_identity(paths)}
    if not path.exists() or not any(path.iterdir()):
        path.mkdir(parents=True, exist_ok=True)
        write_atomic(marker, json.dumps(mine | {"written_by": "galbatch export"}).encode())
        return ExportFolder(path)
    found = _marker(marker)
    if found is None:
        raise RunError(
            f"{path} is not empty, and galbatch export did not make it: nothing was written. Name a new "
            "folder with --out."
        )
    if {key: found.get(key) for key in mine} != mine:
        raise RunError(
            f"{path} holds an export of another run or to another form ({found.get('form')}): nothing was "
            "written. Name a new folder with --out."
        )
    return ExportFolder(path)


def refuse_file(path: Path) -> None:
    """Raise ``RunError`` where the folder to write is a file."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file: name a folder with --out.")


def _marker(path: Path) -> dict | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _run_identity(paths: RunPaths) -> str:
    manifest = read_manifest(paths)
    return hash_json({key: manifest.get(key) for key in ("config", "model", "inputs", "created")})
