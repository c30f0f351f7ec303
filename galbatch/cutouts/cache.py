"""Compressed files, unpacked once a node into a bounded folder; keyed by path, size and modification time.

The folder is ``$GALBATCH_CACHE``, else ``galbatch-cache-<user>`` in the system's temporary folder. The
files least recently used go first when it grows past its bound; a file that is still open elsewhere stays
readable there.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits

from galbatch.cutouts.source import FileStamp, open_bytes
from galbatch.errors import InputError

DEFAULT_BYTES = 50 * 2**30
_CHUNK = 1 << 22


def cache_folder() -> Path:
    """Where unpacked files are kept on this machine."""
    folder = os.environ.get("GALBATCH_CACHE")
    uid = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(folder) if folder else Path(tempfile.gettempdir()) / f"galbatch-cache-{uid}"


def gunzipped(path: str, stamp: FileStamp, limit: int = DEFAULT_BYTES) -> str:
    """The path of the unpacked ``path`` (a local .gz file or a URL). Raises ``InputError`` for a damaged
    file."""

    def unpack(target: Path) -> None:
        source = open_bytes(path, stamp)
        try:
            with gzip.open(_Stream(source)) as packed, open(target, "wb") as out:
                total = 0
                while chunk := packed.read(_CHUNK):
                    total += len(chunk)
                    if total > limit:
                        raise InputError(
                            f"{path} unpacks to more than {limit} bytes, the bound of the cache "
                            f"{cache_folder()}. Unpack it yourself."
                        )
                    out.write(chunk)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{path} is a damaged or truncated gzip file: {error}. Copy it again."
            ) from error
        finally:
            source.close()

    return _cached(path, stamp, "", unpack, limit)


def untiled(path: str, stamp: FileStamp, index: int, limit: int = DEFAULT_BYTES) -> str:
    """The path of a plain FITS file with extension ``index`` of the tile-compressed local ``path``."""

    def unpack(target: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with fits.open(path, memmap=False) as hdus:
                    hdu = hdus[index]
                    data = np.asarray(hdu.data)
                    header = hdu.header.copy()
                    fits.PrimaryHDU(data, header).writeto(target, output_verify="silentfix")
        except OSError as error:
            raise InputError(f"{path}: extension {index} cannot be decompressed: {error}.") from error
        except Exception as error:
            raise InputError(
                f"{path}: extension {index} cannot be decompressed: {type(error).__name__}: {error}. "
                "Copy the file again."
            ) from error

    return _cached(path, stamp, f"#{index}", unpack, limit)


def _cached(path: str, stamp: FileStamp, part: str, unpack: Callable[[Path], None], limit: int) -> str:
    folder = cache_folder()
    key = hashlib.blake2b(
        f"{path}{part}\0{stamp.size}\0{stamp.mtime_ns}\0{stamp.etag}".encode("utf-8", "replace"),
        digest_size=16,
    ).hexdigest()
    target = folder / f"{key}.fits"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if target.exists():
            # The access time alone: a modification time that moves would look like a changed file to other
            # processes.
            os.utime(target, ns=(time.time_ns(), target.stat().st_mtime_ns))
            return str(target)
        handle, name = tempfile.mkstemp(prefix=f"{key}.", suffix=".tmp", dir=folder)
        os.close(handle)
        temporary = Path(name)
        try:
            temporary.unlink()
            unpack(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be unpacked into the cache {folder}: {error.strerror or error}. Set "
            "GALBATCH_CACHE to a folder with room."
        ) from error
    _evict(folder, target, limit)
    return str(target)


def _evict(folder: Path, keep: Path, limit: int) -> None:
    """Remove the least recently used files until the cache holds at most ``limit`` bytes; never ``keep``."""
    files = []
    for file in folder.glob("*.fits"):
        with contextlib.suppress(OSError):
            info = file.stat()
            files.append((info.st_atime_ns, info.st_size, file))
    total = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total <= limit:
            return
        if file != keep:
            with contextlib.suppress(OSError):
                file.unlink()
                total -= size


class _Stream:
    """A byte source as a file that gzip can read."""

    def __init__(self, source):
        self.source, self.position = source, 0

    def read(self, size: int = -1) -> bytes:
        size = self.source.stamp.size - self.position if size < 0 else size
        part = self.source.read(self.position, size)
        self.position += len(part)
        return part
