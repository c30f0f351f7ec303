"""Where a run lies: in a folder or in a bucket, and what differs between the two beside the methods of their
paths.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from galbatch.errors import ConfigError
from galbatch.store.bucket import HEADS, SCHEMES, BucketPath, bucket


def place_of(path: str | os.PathLike[str]) -> Path:
    """The folder or bucket that a path or URL names. Raises ``ConfigError`` for another kind of URL."""
    if isinstance(path, Path):
        return BucketPath(*path.parts) if path.parts[:1] and path.parts[0] in HEADS else path
    text = os.fspath(path)
    scheme, mark, _ = text.partition("://")
    if not mark:
        return Path(text)
    if scheme == "file":
        return Path(unquote(urlsplit(text).path))
    if scheme in SCHEMES and (parts := text.rstrip("/").split("/"))[2:]:
        return BucketPath(*(parts[0], *parts[2:]))
    raise ConfigError(f"{text}: a run lies in a folder, or in a bucket by s3://, gs:// or az://BUCKET/NAME.")


def zarr_place(path: Path) -> Any:
    """What Zarr opens to read the group at ``path``."""
    if not isinstance(path, BucketPath):
        return path
    from zarr.storage import ObjectStore

    return ObjectStore(bucket(str(path)), read_only=True)


def opened(path: Path) -> Any:
    """What pyarrow reads ``path`` from."""
    return path.open("rb") if isinstance(path, BucketPath) else path


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """``path`` itself, or for a while a local copy of an object."""
    if not isinstance(path, BucketPath):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="galbatch-") as folder:
        copy = Path(folder) / path.name
        with open(copy, "wb") as out, path.open("rb") as source:
            shutil.copyfileobj(source, out, 8 << 20)
        yield copy


def local_parent(path: Path) -> Path | None:
    """A local folder for files on their way to ``path``: its own, where it has one; None for the system's."""
    return None if isinstance(path, BucketPath) else path.parent


def move_in(made: Path, target: Path) -> None:
    """Put a local file or folder where it belongs; of a folder the files at its top come last."""
    if not isinstance(target, BucketPath):
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
    elif made.is_dir():
        files = sorted((p for p in made.rglob("*") if p.is_file()), key=lambda p: p.parent == made)
        for file in files:
            move_in(file, target / file.relative_to(made).as_posix())
    else:
        target.take_file(made)
        made.unlink()


def sizes_below(folder: Path) -> dict[str, int] | None:
    """Bytes of every object of a bucket below ``folder``, where one listing is cheaper than a question each;
    None for a local folder."""
    return folder.sizes() if isinstance(folder, BucketPath) else None


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, and every link to a folder, which is not followed; every object below a
    prefix."""
    if isinstance(folder, BucketPath):
        yield from folder.rglob("*")
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path))
            else:
                yield Path(entry.path)
