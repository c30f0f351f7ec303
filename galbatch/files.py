"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, synced: bool = True, alone: bool = False) -> Iterator[Path]:
    """A path beside ``path`` to write to, renamed over it when all went well, else removed.

    ``synced``: even after a crash of the machine there is the old file or the whole new one. ``alone``: no
    other process writes this file, so that what a killed one left is written over.
    """
    part = path.with_name(f".partial.{path.name}" if alone else f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield part
        if synced:
            _sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if synced:
        _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
