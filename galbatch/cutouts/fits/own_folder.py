"""Folders in the user's cache that are galbatch's own: ``$GALBATCH_CACHE``, else ``$XDG_CACHE_HOME`` or
``~/.cache``.

Each is made by galbatch with a marker, mode 0700, and of this user. Nothing outside of them is ever touched.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Literal

from galbatch.errors import InputError

MARKER = "CACHEDIR.TAG"
_MARKER_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Files kept by galbatch; they may be deleted at any time. See https://bford.info/cachedir/\n"
)


def in_cache(name: str) -> Path:
    """Where the folder ``name`` is on this machine. Raises ``InputError`` where there is no cache folder."""
    given = os.environ.get("GALBATCH_CACHE") or os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(given) if given else Path.home() / ".cache") / name
    except RuntimeError as error:  # a user without an entry, as in some containers
        raise InputError(f"No cache folder: {error} Set GALBATCH_CACHE to a folder of your own.") from error


def own_folder(folder: Path) -> None:
    """Make the cache's folder, for this user alone, with its marker; or see that it is such a folder. Raises
    ``InputError`` for one that others may write into, or that galbatch did not make."""
    remedy = "Set GALBATCH_CACHE to a folder of your own."
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        pass
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise InputError(f"The cache {folder} is a link or a file, not a folder. {remedy}")
    if hasattr(os, "geteuid") and info.st_uid != os.geteuid():
        raise InputError(f"The cache {folder} belongs to user {info.st_uid}, not to you. {remedy}")
    if os.name == "posix" and info.st_mode & 0o022:
        raise InputError(
            f"The cache {folder} can be written by others (mode {stat.S_IMODE(info.st_mode):o}), who could "
            f"change what is read from it. `chmod 700 {folder}`, or set GALBATCH_CACHE to another folder."
        )
    if not (marker := folder / MARKER).exists():
        if strange := sorted(folder.iterdir()):
            raise InputError(
                f"The cache {folder} holds {strange[0].name}, but not the marker {MARKER} of a folder that "
                f"galbatch made. Remove what is in it, or set GALBATCH_CACHE to another folder."
            )
        marker.write_text(_MARKER_TEXT)


def evict(
    folder: Path,
    own: re.Pattern[str],
    limit: float,
    age: Literal["st_atime_ns", "st_mtime_ns"],
    keep: Path | None = None,
) -> None:
    """Remove the oldest of the files in a folder whose names are ``own``, each with its note (.json), until
    they have at most ``limit`` bytes. ``age``: last used, or last written; ``keep`` stays."""
    files = []
    for entry in os.scandir(folder):
        if own.fullmatch(entry.name):
            with suppress(OSError):  # another process was faster
                info = entry.stat(follow_symlinks=False)
                files.append((getattr(info, age), info.st_size, Path(entry.path)))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        if path != keep:
            with suppress(OSError):
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)
                total -= size
