"""One run folder, one run: a lock file with host, pid and a heartbeat."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from galbatch.errors import RunError
from galbatch.store import BucketPath, place_of
from galbatch.store.bucket import Tag

HEARTBEAT_S = 10.0
STALE_S = 120.0
WATCH = 2.5
_HELD: set[str] = set()  # real paths of the locks that this process holds


class RunLock:
    """Context that holds ``path`` while it is open.

    The file is made with O_EXCL, in a bucket by a conditional PUT, so two processes cannot both have it. A
    lock is taken over when its process is dead on this host (or is this one, which once could not remove it),
    or when another host has not touched it for ``STALE_S`` and does not touch it while it is watched for
    ``WATCH`` heartbeats: its clock may be wrong. Ages are told by the clock of the file system, or of the
    bucket. Raises ``RunError`` otherwise.
    """

    def __init__(self, path: Path, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.path, self.heartbeat_s, self._data = place_of(path), heartbeat_s, b""
        self._tag: Tag = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RunLock:
        for _ in range(3):
            try:
                self._create()
                break
            except FileExistsError:
                if self._take_over():
                    break
        else:
            raise RunError(
                f"{self.path}: other processes are taking this lock at the same moment. Try again."
            )
        _HELD.add(_real(self.path))
        self._thread = threading.Thread(target=self._beat, daemon=True, name="galbatch-lock")
        self._thread.start()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        _HELD.discard(_real(self.path))
        if _holder(self.path).get("pid") == os.getpid():
            with suppress(OSError):  # in a folder that may not be written it stays, and is void
                self.path.unlink()

    def _create(self) -> None:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "time": time.time(),
        }
        self._data = json.dumps(holder).encode()
        if isinstance(self.path, BucketPath):
            self._tag = self.path.write_new(self._data)
            return
        handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        with os.fdopen(handle, "wb") as file:
            file.write(self._data)

    def _take_over(self) -> bool:
        """Remove a stale lock; in a bucket, put the own one in its place: True. The rename, or the condition
        of the PUT, makes sure that only one of several takers takes just this one."""
        try:
            tag = self.path.tag() if isinstance(self.path, BucketPath) else {}
        except FileNotFoundError:
            return False
        holder, age = _holder(self.path), _age(self.path)
        if age is None:
            return False
        ahead = age < 0 and holder.get("host") not in (None, socket.gethostname())
        if not (ahead or _is_stale(self.path, holder, age)) or not self._silent(holder):
            host, pid = holder.get("host", "?"), holder.get("pid", "?")
            raise RunError(
                f"{self.path.parent}: another run is working on this folder (host {host}, pid {pid}, "
                f"last sign of life {max(0.0, age):.0f} s ago). Wait for it, or stop it first."
            )
        if isinstance(self.path, BucketPath):
            with suppress(FileExistsError, FileNotFoundError):
                self._tag = self.path.swap(self._data, tag)
                return True
            return False
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return False
        aside.unlink(missing_ok=True)
        return False

    def _silent(self, holder: dict) -> bool:
        """Whether nobody touches the lock of another host for ``WATCH`` heartbeats."""
        if not holder or holder.get("host") == socket.gethostname():
            return True
        before, end = _touched(self.path), time.monotonic() + WATCH * self.heartbeat_s
        while time.monotonic() < end:
            time.sleep(self.heartbeat_s / 10)
            if _touched(self.path) != before:
                return False
        return True

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat_s):
            try:
                if isinstance(self.path, BucketPath):
                    self._tag = self.path.swap(self._data, self._tag)
                else:
                    os.utime(self.path)
            except OSError:
                return


def lock_holder(path: Path) -> dict | None:
    """Who holds a lock that is alive (host, pid, age_s), or None."""
    age = _age(path)
    if age is None or _is_stale(path, holder := _holder(path), age):
        return None
    return holder | {"age_s": max(0.0, age)}


def _holder(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _age(path: Path) -> float | None:
    """Seconds since a lock was touched, by the clock of its file system; below 0 where its host's clock is
    ahead."""
    touched = _touched(path)
    if touched is None:
        return None
    probe = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        probe.touch()
        now = probe.stat().st_mtime_ns
        probe.unlink(missing_ok=True)
    except OSError:  # a folder that may only be read
        now = time.time_ns()
    return (now - touched) / 1e9


def _real(path: Path) -> str:
    return str(path) if isinstance(path, BucketPath) else os.path.realpath(path)


def _touched(path: Path) -> int | None:
    try:
        return int(path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def _is_stale(path: Path, holder: dict, age: float) -> bool:
    if holder.get("host") == socket.gethostname():
        if holder.get("pid") == os.getpid():
            return _real(path) not in _HELD
        return _started(holder.get("pid", -1)) != holder.get("started")
    return age > (STALE_S if holder else 5.0)  # an empty file is a lock being written, or one never written


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot: tells a process from a later one with its pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError, ValueError, TypeError):
        return None
    except PermissionError:
        return "alive"
    return "alive"
