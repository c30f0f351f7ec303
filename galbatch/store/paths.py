"""Where a run lies, in a folder or in a bucket, and what differs between the two beside the methods of their
paths; and the names of everything inside a run folder, once: also the list of what galbatch may delete there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from galbatch import files
from galbatch.errors import ConfigError, RunError
from galbatch.store.bucket import HEADS, SCHEMES, BucketPath, bucket
from galbatch.store.layout import ARRAYS


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


def local_parent(path: Path) -> Path:
    """A local folder for files on their way to ``path``: its own, where it has one, or the system's."""
    return Path(tempfile.gettempdir()) if isinstance(path, BucketPath) else path.parent


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


MARKER = ".galbatch-run"
FILES: list[str] = []  # at the top of a run folder, that galbatch writes and may delete
_PART = re.compile(r"batch-(\d{6,})\.arrow$")


def _file(name: str) -> Any:
    FILES.append(name)
    return property(lambda self: self.root / name)


@dataclass(frozen=True)
class RunPaths:
    """Typed names of a run folder. ``root`` is absolute; nothing is created by asking for a name."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", place_of(self.root).absolute())

    quoted = property(lambda self: shlex.quote(str(self.root)))  # as a shell takes it
    config = _file("galbatch.toml")
    marker = _file(MARKER)
    manifest = _file("manifest.json")
    manifest_copy = _file("manifest.backup.json")
    plan = _file("plan.parquet")
    posterior = property(lambda self: self.root / "posterior.zarr")
    parts = property(lambda self: self.root / "parts")
    catalog = _file("catalog.parquet")
    statistics = _file("statistics.parquet")
    failures = _file("failures.parquet")
    checksums = _file("checksums.json")
    summary = _file("summary.json")
    report = _file("report.html")
    dask_report = _file("dask-report.html")
    metrics = _file("metrics.jsonl")
    lock = _file("run.lock")
    written_last = property(
        lambda self: (self.catalog, self.statistics, self.failures, self.summary, self.metrics, self.marker)
    )

    def need(self, table: Path) -> None:
        """Raise ``RunError`` before a file of a finished run is there."""
        if not table.exists():
            raise RunError(f"{table}: not written yet. Finish the run with `galbatch resume {self.root}`.")

    def part(self, batch: int) -> Path:
        """The commit record of a batch: it exists if and only if the batch is committed."""
        return self.root.joinpath("parts", f"batch-{batch:06d}.arrow")

    def attempt(self, batch: int) -> Path:
        """The note of a batch: who wrote it, when and how long it took (not part of the reproducible output),
        and the digest of its part."""
        return self.root.joinpath("parts", f"batch-{batch:06d}.json")

    def committed(self) -> set[int]:
        """Numbers of the committed batches."""
        try:
            found = [_PART.match(path.name) for path in self.parts.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {int(match.group(1)) for match in found if match}

    def orphans(self) -> list[Path]:
        """Temporary files that a killed process left behind; of galbatch's own names only."""
        if isinstance(self.root, BucketPath):
            return []  # an object is there whole or not at all
        found = [*self.root.glob("*.tmp"), *self.parts.glob("*.tmp"), *self.posterior.rglob("*.tmp")]
        return sorted(p for p in found if is_own_file(p.relative_to(self.root).as_posix()))


_ANY = "(" + "|".join(map(re.escape, FILES)) + ")"
_BATCH = r"batch-\d{6,}\.(arrow|json)"
_ARRAY = "(" + "|".join([*(spec.name for spec in ARRAYS), "band", "wcs_parameter"]) + ")"
_STORE = r"(posterior\.zarr|\.posterior\.zarr\.tmp)"
_TORN = r"(\.[0-9a-z]+\.tmp)"  # end of a name of ``replacing``
_SHARD = rf"{_STORE}/(zarr\.json|{_ARRAY}/(zarr\.json|c(/\d+)+|c(/\d+)*/\.\d+{_TORN}))"
_FILE = re.compile(
    rf"{_ANY}|\.{_ANY}{_TORN}|run\.lock\.\d+\.tmp|parts/({_BATCH}|\.{_BATCH}{_TORN})"
    rf"|\.plan-\w+\.tmp/\d+-\d+\.parquet|{_SHARD}"
)
_FOLDER = re.compile(rf"parts|\.(plan|mend)-\w+\.tmp|{_STORE}(/{_ARRAY}(/c(/\d+)*)?)?")
_MENDING = re.compile(r"\.mend-\w+\.tmp/")  # a folder in which files of the run are made again


def is_own_file(name: str) -> bool:
    """Is a file of this name (relative to a run folder, with /) one that galbatch writes?"""
    return _FILE.fullmatch(_made_again(name)) is not None


def is_own_folder(name: str) -> bool:
    """Is a folder of this name (relative to a run folder, with /) one that galbatch makes?"""
    return _FOLDER.fullmatch(_made_again(name)) is not None


def _made_again(name: str) -> str:
    """The name that a file gets when it is moved out of the folder in which it was made again."""
    found = _MENDING.match(name)
    return name[found.end() :] if found else name


def is_own_name(name: str) -> bool:
    """Is this (relative to a run folder, with /) the name of a file or folder of galbatch's?"""
    return is_own_file(name) or is_own_folder(name)


def write_atomic(path: Path, data: bytes, synced: bool = True) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the whole new one, where ``synced``
    even after a crash of the machine."""
    if isinstance(path, BucketPath):
        path.write_bytes(data)
        return
    with replacing(path, synced) as tmp:
        tmp.write_bytes(data)


@contextmanager
def replacing(path: Path, synced: bool = True) -> Iterator[Path]:
    """``galbatch.files.replacing``; for an object of a bucket a local file that is then sent there."""
    if not isinstance(path := place_of(path), BucketPath):
        with files.replacing(path, synced=synced) as tmp:
            yield tmp
        return
    with tempfile.TemporaryDirectory(prefix="galbatch-") as folder:
        yield (tmp := Path(folder) / path.name)
        move_in(tmp, path)
