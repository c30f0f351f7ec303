"""An object or a prefix of a bucket (s3://, gs://, az://) as a ``Path``.

A bucket has no renames, no folders and no locks. What stands for them: an object appears whole or not at all,
and a conditional PUT (``write_new``, ``swap``) fails where another process was faster. obstore does the
requests, and takes keys and endpoints from the environment as the cloud's own tools do (AWS_*, GOOGLE_*,
AZURE_*).
"""

from __future__ import annotations

import fnmatch
import io
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from galbatch.errors import ConfigError
from galbatch.traffic import Traffic

SCHEMES = ("s3", "gs", "az")
HEADS = tuple(f"{scheme}:" for scheme in SCHEMES)
TRAFFIC = Traffic()  # requests by kind, bytes_in and bytes_out
take_traffic = TRAFFIC.take
_BUFFER = 1 << 20
Tag = dict[
    str, str
]  # what tells versions of an object apart: S3 and Azure ask for its "e_tag", Google for its "version"


class BucketPath(type(Path())):  # type: ignore[misc]
    """An object or a prefix in a bucket, with the methods of ``Path`` that the store uses.

    Whatever else would take it for a local file raises ``TypeError``. What goes wrong on the way is an
    ``OSError``, ``FileNotFoundError`` and ``FileExistsError`` among them.
    """

    def __str__(self) -> str:
        first, *rest = self.parts or (".",)
        return (
            f"{first}//{'/'.join(rest)}" if first[:-1] in SCHEMES and first[-1] == ":" else super().__str__()
        )

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is in a bucket: no local file.")

    def absolute(self) -> BucketPath:
        return self

    @property
    def _key(self) -> str:
        return "/".join(self.parts[2:])

    @property
    def _bucket(self) -> Any:
        return bucket(f"{self.parts[0]}//{self.parts[1]}")

    def _ask(self, kind: str, **options: Any) -> Any:
        """The answer of obstore to a request about this object, counted."""
        store = self._bucket
        import obstore

        TRAFFIC.add(kind, 1)
        try:
            return getattr(obstore, kind)(store, self._key, **options)
        except obstore.exceptions.BaseError as err:
            raise self._as_os_error(err) from err
        except FileNotFoundError as err:
            raise FileNotFoundError(2, "no such object", str(self)) from err

    def _as_os_error(self, err: Exception) -> OSError:
        said = str(err).partition("\n")[0][:300]
        name = type(err).__name__
        if name == "NotFoundError":
            return FileNotFoundError(2, "no such object", str(self))
        if name in ("AlreadyExistsError", "PreconditionError"):
            return FileExistsError(17, "another process has written it", str(self))
        if name in ("PermissionDeniedError", "UnauthenticatedError"):
            return PermissionError(13, said, str(self))
        return OSError(5, said, str(self))

    def _below(self) -> Iterator[tuple[BucketPath, int]]:
        """Every object below this prefix, and its bytes."""
        store = self._bucket
        import obstore

        try:
            for chunk in obstore.list(store, self._key or None):
                TRAFFIC.add("list", 1)
                for found in chunk:
                    yield self.joinpath(found["path"][len(self._key) :].lstrip("/")), found["size"]
        except obstore.exceptions.BaseError as err:
            raise self._as_os_error(err) from err

    def sizes(self) -> dict[str, int]:
        """Bytes of every object below, by its name there: one request for a thousand of them."""
        return {path.relative_to(self).as_posix(): size for path, size in self._below()}

    def _level(self) -> tuple[list[BucketPath], list[BucketPath]]:
        """Prefixes and objects just below."""
        found = self._ask("list_with_delimiter")
        prefixes = [self / p.rstrip("/").rpartition("/")[2] for p in found["common_prefixes"]]
        return prefixes, [self / o["path"].rpartition("/")[2] for o in found["objects"]]

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        try:
            found = self._ask("head")
        except FileNotFoundError:
            if not self.is_dir():
                raise
            return SimpleNamespace(st_mode=stat.S_IFDIR, st_size=0, st_mtime=0.0, st_mtime_ns=0)
        when = found["last_modified"].timestamp()
        size, ns = found["size"], int(when * 1e9)
        return SimpleNamespace(st_mode=stat.S_IFREG, st_size=size, st_mtime=when, st_mtime_ns=ns)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        try:
            return bool(self._ask("head"))
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        prefixes, objects = self._level()
        return bool(prefixes or objects)

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Iterator[BucketPath]:
        prefixes, objects = self._level()
        yield from prefixes
        yield from objects

    def glob(self, pattern: str) -> Iterator[BucketPath]:
        head, _, rest = pattern.partition("/")
        prefixes, objects = self._level()
        if rest:
            for below in fnmatch.filter([p.name for p in prefixes], head):
                yield from (self / below).glob(rest)
        else:
            yield from (p for p in (*prefixes, *objects) if fnmatch.fnmatchcase(p.name, head))

    def rglob(self, pattern: str) -> Iterator[BucketPath]:
        return (path for path, _ in self._below() if fnmatch.fnmatchcase(path.name, pattern))

    def read_bytes(self) -> bytes:
        data = bytes(self._ask("get").bytes())
        TRAFFIC.add("bytes_in", len(data))
        return data

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def read_range(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes from ``start`` on."""
        data = bytes(self._ask("get_range", start=start, length=size)) if size > 0 else b""
        TRAFFIC.add("bytes_in", len(data))
        return data

    def open(self, mode: str = "r", *_: Any, **__: Any) -> Any:
        if mode != "rb":
            raise TypeError(f"{self} can be opened to read bytes alone.")
        return io.BufferedReader(_Reader(self), _BUFFER)

    def _put(self, data: bytes | Path, **how: Any) -> Tag:
        TRAFFIC.add("bytes_out", len(data) if isinstance(data, bytes) else data.stat().st_size)
        return _tag(self._ask("put", file=data, **how))

    def write_bytes(self, data: Any) -> int:
        self._put(bytes(data))
        return len(data)

    def write_new(self, data: bytes) -> Tag:
        """Write an object that is not there yet; returns its tag. Raises ``FileExistsError``."""
        return self._put(data, mode="create")

    def swap(self, data: bytes, tag: Tag) -> Tag:
        """Write an object that still has this ``tag``; returns the new one. Raises ``FileExistsError``."""
        return self._put(data, mode=tag)

    def tag(self) -> Tag:
        """The tag of what the object holds now. Raises ``FileNotFoundError``."""
        return _tag(self._ask("head"))

    def take_file(self, made: Path) -> None:
        """Write what a local file holds."""
        self._put(made)

    def copy_to(self, target: BucketPath) -> None:
        """The object under another name of its bucket too: one request, nothing passes through here."""
        self._ask("copy", to=target._key)

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(2, "no such object", str(self))
        with suppress(FileNotFoundError):  # Google and Azure say so, S3 does not
            self._ask("delete")

    def touch(self, *_: Any, **__: Any) -> None:
        self.write_bytes(b"")

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing: a prefix is there when an object is."""

    def rmdir(self) -> None:
        """Nothing: a prefix goes with its last object."""


class _Reader(io.RawIOBase):
    """An object as a file that can be read from any position."""

    def __init__(self, path: BucketPath) -> None:
        self.path, self.size, self.at = path, path.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        data = self.path.read_range(self.at, min(len(buffer), self.size - self.at))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def _tag(found: Any) -> Tag:
    return {name: found[name] for name in ("e_tag", "version") if found.get(name)}


def bucket(url: str) -> Any:
    """The store of a bucket, with the keys and endpoint that the environment has now."""
    keys = sorted(item for item in os.environ.items() if item[0].startswith(("AWS_", "GOOGLE_", "AZURE_")))
    return _open(url, os.getpid(), tuple(keys))


@lru_cache(maxsize=8)
def _open(url: str, pid: int, keys: tuple[tuple[str, str], ...]) -> Any:
    """The store of this process alone: its threads do not outlive a fork."""
    try:
        from obstore.store import from_url

        return from_url(url)
    except ImportError as err:
        raise ConfigError(f"{url} needs obstore: pip install 'galbatch[cloud]'.") from err
    except Exception as err:  # half of a key, a region that is none
        said = str(err).partition("\n")[0]
        raise ConfigError(f"{url} cannot be reached as the environment says: {said}. Correct it.") from err
