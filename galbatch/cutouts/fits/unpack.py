"""Compressed files, unpacked once per node into a bounded folder; keyed by path, size and modification time.

In the folder ``galbatch-unpacked`` of the cache (``own_folder``) only files with the names given here are
ever touched. Each file has a note with its size and digest, to which it is held before it is used. The files
least recently used go first when the folder grows past its bound; a file that is still open elsewhere stays
readable there.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import stat
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import numpy as np
from astropy.io import fits

from galbatch.cutouts.fits.own_folder import evict, in_cache, own_folder
from galbatch.cutouts.fits.remote import FileStamp
from galbatch.cutouts.fits.source import ByteSource, open_bytes
from galbatch.errors import InputError
from galbatch.files import replacing

DEFAULT_BYTES = 50 * 2**30
_OWN = re.compile(r"[0-9a-f]{32}\.fits")
_CHUNK = 1 << 22
_VERIFIED: set[tuple[str, int, int, int]] = set()  # what this process has read through


def cache_folder() -> Path:
    """Where unpacked files are kept on this machine."""
    return in_cache("galbatch-unpacked")


def gunzipped(path: str, stamp: FileStamp, limit: int = DEFAULT_BYTES) -> str:
    """The path of the unpacked ``path`` (a local .gz file or a URL). Raises ``InputError`` for a damaged
    file."""

    def unpack(target: Path) -> None:
        source = open_bytes(path, stamp)
        try:
            with gzip.open(cast(IO[bytes], _Stream(source))) as packed, open(target, "wb") as out:
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
        except Exception as error:
            raise InputError(
                f"{path}: extension {index} cannot be decompressed: {type(error).__name__}: {error}. "
                "Copy the file again."
            ) from error

    return _cached(path, stamp, f"#{index}", unpack, limit)


def _cached(path: str, stamp: FileStamp, part: str, unpack: Callable[[Path], None], limit: int) -> str:
    key = hashlib.blake2b(
        f"{path}{part}\0{stamp.size}\0{stamp.mtime_ns}\0{stamp.etag}".encode("utf-8", "replace"),
        digest_size=16,
    ).hexdigest()
    folder = cache_folder()
    target = folder / f"{key}.fits"
    try:
        own_folder(folder)
        if _is_sound(target):
            # The access time alone: a modification time that moves would look like a changed file to other
            # processes.
            os.utime(target, ns=(time.time_ns(), target.stat().st_mtime_ns))
            return str(target)
        with replacing(target, synced=False) as made:
            unpack(made)
            note = json.dumps({"size": made.stat().st_size, "blake2b": _digest(made)})
        with replacing(target.with_suffix(".json"), synced=False) as made:
            made.write_text(note)
    except OSError as error:
        raise InputError(
            f"{path} cannot be unpacked into the cache {folder}: {error.strerror or error}. Set "
            "GALBATCH_CACHE to a folder with room."
        ) from error
    _VERIFIED.add(_identity(target))
    evict(folder, _OWN, limit, "st_atime_ns", keep=target)
    return str(target)


def _is_sound(target: Path) -> bool:
    """Whether a file of the cache has the size and digest of its note; read through once per process."""
    try:
        known = _identity(target)
        if known in _VERIFIED:
            return True
        note = json.loads(target.with_suffix(".json").read_text())
        sound = note["size"] == known[1] and note["blake2b"] == _digest(target)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if sound:
        _VERIFIED.add(known)
    return sound


def _identity(path: Path) -> tuple[str, int, int, int]:
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        raise OSError(f"{path} is no file")
    return str(path), info.st_size, info.st_mtime_ns, info.st_ino


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


class _Stream:
    """A byte source as a file that gzip can read."""

    def __init__(self, source: ByteSource) -> None:
        self.source, self.position = source, 0

    def read(self, size: int = -1) -> bytes:
        size = self.source.stamp.size - self.position if size < 0 else size
        part = self.source.read(self.position, size)
        self.position += len(part)
        return part
