"""Bytes of a file by position, local or remote: a file cut short is an error, never a signal.

A ``ByteSource`` knows its size and modification time when opened and refuses to go on once they have changed.
Many short rows of a local file are gathered from a memory map by the kernel, which writes them to a file in
memory (``pwritev``): one call per stamp instead of one per row. This process never touches the map itself,
and where a page of it is gone the call returns an error.
"""

from __future__ import annotations

import mmap
import os
import threading
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numba.core import types

from galbatch.cutouts.remote import FileStamp, RemoteBytes
from galbatch.errors import InputError, ReadError

_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.int64))
_pwritev: Any = types.ExternalFunction(
    "pwritev", types.intp(types.intc, types.uintp, types.intc, types.int64)
)
_MAX_GATHER = 1024  # IOV_MAX of Linux
_THREAD = threading.local()


class LocalBytes:
    """Positioned reads of a local file. Raises ``InputError`` if it cannot be opened or is not as it was."""

    def __init__(self, path: str, pin: FileStamp | None = None) -> None:
        self.path = path
        try:
            if os.path.exists(path) and not os.path.isfile(path):
                raise InputError(f"{path} is not a regular file. Name a FITS file.")
            self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except (OSError, ValueError) as error:
            raise ReadError(
                f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}. "
                "Check the path and its permissions on this machine."
            ) from error
        self.stamp = self._now()
        if pin is not None:
            self._compare(pin)

    def _now(self) -> FileStamp:
        info = os.fstat(self.fd)
        return FileStamp(info.st_size, info.st_mtime_ns)

    def _compare(self, pin: FileStamp) -> None:
        now = self._now()
        if now != pin:
            raise InputError(
                f"{self.path} changed during the run: {pin.size} bytes then, {now.size} now, modified "
                "since. Restore it, or start a new run."
            )

    def check(self) -> None:
        """Raise ``InputError`` if the open file changed since it was opened."""
        self._compare(self.stamp)

    def read(self, start: int, size: int) -> bytes:
        parts = []
        while size > 0:
            try:
                part = os.pread(self.fd, min(size, 1 << 30), start)
            except OSError as error:
                raise self._unread(start, error) from error
            if not part:
                break
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return b"".join(parts)

    def _unread(self, start: int, error: OSError) -> ReadError:
        return ReadError(f"{self.path} cannot be read at byte {start}: {error.strerror or error}.")

    def read_block(self, start: int, size: int) -> np.ndarray:
        """(at most size,) bytes in a buffer that the thread's next call overwrites: fresh memory costs
        more than the copy."""
        if len(getattr(_THREAD, "buffer", ())) < size:
            _THREAD.buffer = np.empty(size, np.uint8)
        done = 0
        while done < size:
            try:
                n = os.preadv(self.fd, [memoryview(_THREAD.buffer)[done:size]], start + done)
            except OSError as error:
                raise self._unread(start, error) from error
            if not n:
                break
            done += n
        return _THREAD.buffer[:done]

    def read_rows(self, starts: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """(n,) byte positions to (n, width) bytes, and which rows could be read."""
        out = np.zeros((len(starts), width), np.uint8)
        ok = np.ones(len(starts), bool)
        _read_rows(self._ways, np.ascontiguousarray(starts, np.int64), width, out, ok)
        return out, ok

    def read_stamps(self, starts: np.ndarray, stride: int, out: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Fill ``out[which]`` ((n, h, w) float32) with big-endian numbers whose first bytes are ``starts``,
        rows ``stride`` bytes apart; returns which could be read."""
        ok = np.ones(len(starts), bool)
        starts = np.ascontiguousarray(starts, np.int64)
        _read_stamps(self._ways, starts, stride, out.view(np.uint32), which, ok)
        return ok

    @property
    def _ways(self) -> tuple[int, int, int, int]:
        """Descriptors of file and memory file of this thread (-1: none), address and length of the map."""
        address, length = self._map
        return self.fd, _memory_file() if length else -1, address, length

    @cached_property
    def _map(self) -> tuple[int, int]:
        try:
            self._mapped = mmap.mmap(self.fd, self.stamp.size, prot=mmap.PROT_READ)
        except (OSError, ValueError, AttributeError):
            return 0, 0  # a file system or a system that cannot: read row by row
        return np.frombuffer(self._mapped, np.uint8).ctypes.data, self.stamp.size

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.close()


ByteSource = LocalBytes | RemoteBytes


def open_bytes(path: str, pin: FileStamp | None = None) -> ByteSource:
    """Open a path or URL for positioned reads."""
    return RemoteBytes(path, pin) if "://" in path else LocalBytes(path, pin)


def _memory_file() -> int:
    """A file in memory of this thread, -1 where the system has none."""
    if not hasattr(_THREAD, "memory"):
        _THREAD.memory = os.memfd_create("galbatch") if hasattr(os, "memfd_create") else -1
    return _THREAD.memory


@njit(cache=True, nogil=True)
def _gathered(ways: tuple[int, int, int, int], starts: np.ndarray, width: int, target: int) -> bool:
    """Rows from the map to address ``target``; whether all of them came."""
    _, memory, address, length = ways
    n = len(starts)
    if memory < 0 or n > _MAX_GATHER:
        return False
    rows = np.empty((n, 2), np.uint64)
    for i in range(n):
        if starts[i] + width > length:
            return False
        rows[i, 0], rows[i, 1] = address + starts[i], width
    total = n * width
    return _pwritev(memory, rows.ctypes.data, n, 0) == total and _pread(memory, target, total, 0) == total


@njit(cache=True, nogil=True)
def _rows(
    ways: tuple[int, int, int, int], starts: np.ndarray, width: int, target: int, ok: np.ndarray
) -> None:
    """Rows one after another to address ``target``; ``ok`` False for those that could not be read."""
    if _gathered(ways, starts, width, target):
        return
    for i in range(len(starts)):
        done = 0
        while done < width:
            n = _pread(ways[0], target + i * width + done, width - done, starts[i] + done)
            if n <= 0:
                ok[i] = False
                break
            done += n


@njit(cache=True, nogil=True)
def _read_rows(
    ways: tuple[int, int, int, int], starts: np.ndarray, width: int, out: np.ndarray, ok: np.ndarray
) -> None:
    for first in range(0, len(starts), _MAX_GATHER):
        piece = slice(first, first + _MAX_GATHER)
        _rows(ways, starts[piece], width, out.ctypes.data + first * width, ok[piece])


@njit(cache=True, nogil=True)
def _read_stamps(
    ways: tuple[int, int, int, int],
    starts: np.ndarray,
    stride: int,
    out: np.ndarray,
    which: np.ndarray,
    ok: np.ndarray,
) -> None:
    h, w = out.shape[1], out.shape[2]
    rows, good = np.empty(h, np.int64), np.ones(h, np.bool_)
    for i in range(len(starts)):
        for y in range(h):
            rows[y], good[y] = starts[i] + y * stride, True
        _rows(ways, rows, 4 * w, out.ctypes.data + which[i] * h * w * 4, good)
        ok[i] = good.all()
        for y in range(h):
            for x in range(w):
                v = out[which[i], y, x]
                out[which[i], y, x] = (
                    (v >> np.uint32(24))
                    | ((v >> np.uint32(8)) & np.uint32(0xFF00))
                    | ((v << np.uint32(8)) & np.uint32(0xFF0000))
                    | (v << np.uint32(24))
                )
