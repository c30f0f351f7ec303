"""Bytes of a file by position, local or remote: a file cut short is an error, never a signal.

A ``ByteSource`` knows its size and modification time when opened and refuses to go on once they have changed.
Many short rows of a local file are read one after another by compiled code, without Python in between.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from numba import njit
from numba.core import types

from galbatch.cutouts.fits.remote import FileStamp, RemoteBytes
from galbatch.errors import InputError, ReadError

_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.int64))
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
        _read_rows(self.fd, np.ascontiguousarray(starts, np.int64), width, out.ctypes.data, ok)
        return out, ok

    def read_stamps(self, starts: np.ndarray, stride: int, out: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Fill ``out[which]`` ((n, h, w) float32) with big-endian numbers whose first bytes are ``starts``,
        rows ``stride`` bytes apart; returns which could be read."""
        ok = np.ones(len(starts), bool)
        starts = np.ascontiguousarray(starts, np.int64)
        _read_stamps(self.fd, starts, stride, out.view(np.uint32), which, ok)
        return ok

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


@njit(cache=True, nogil=True)
def _read_rows(fd: int, starts: np.ndarray, width: int, target: int, ok: np.ndarray) -> None:
    """Rows one after another to address ``target``; ``ok`` False for those that could not be read."""
    for i in range(len(starts)):
        done = 0
        while done < width:
            n = _pread(fd, target + i * width + done, width - done, starts[i] + done)
            if n <= 0:
                ok[i] = False
                break
            done += n


@njit(cache=True, nogil=True)
def _read_stamps(
    fd: int, starts: np.ndarray, stride: int, out: np.ndarray, which: np.ndarray, ok: np.ndarray
) -> None:
    h, w = out.shape[1], out.shape[2]
    rows, good = np.empty(h, np.int64), np.ones(h, np.bool_)
    for i in range(len(starts)):
        for y in range(h):
            rows[y], good[y] = starts[i] + y * stride, True
        _read_rows(fd, rows, 4 * w, out.ctypes.data + which[i] * h * w * 4, good)
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
