"""Blocks of remote files that were read: in the memory of a process, and on the disk of its machine for all
processes of the user.

On disk each block is a file of the folder ``galbatch-blocks`` of the cache (``own_folder``), made whole by a
rename and held to the digest with which it begins when it is read. Those written first go first. A process
that asks for blocks waits for another that asks for some close by, which are likely the same.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from galbatch.cutouts.fits.own_folder import evict, in_cache, own_folder
from galbatch.errors import InputError
from galbatch.files import replacing

try:
    import fcntl
except ImportError:  # Windows: two processes may ask for the same block
    fcntl = None  # type: ignore[assignment]

Key = tuple[str, str, int]  # URL, etag, number
WAIT_S, LOOK_S = 30.0, 0.01  # for another process, at most; between two looks
_OWN = re.compile(r"[0-9a-f]{32}\.block|\.[0-9a-f]{32}\.block\.[0-9a-f]+\.tmp")
_FULL = 0.75  # of the limit is left, so that eight processes together do not write beyond it before one looks
_LOOK = 1 / 32  # of the limit is written by a process between two looks


class BlockCache:
    """Blocks of files in memory, of which those used last are kept: at most ``limit`` bytes. Used by many
    threads."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._blocks: OrderedDict[Key, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> bytes | None:
        """A block, None where it is not kept."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def put(self, key: Key, block: bytes) -> None:
        """Keep a block; those not used for longest go."""
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self.held += len(block)
            while self.held > self.limit:
                self.held -= len(self._blocks.popitem(last=False)[1])


class NodeBlocks:
    """Blocks on the disk of this machine: at most ``limit`` bytes. None where the folder cannot be used, or
    not any more."""

    def __init__(self, limit: int) -> None:
        self.limit, self._written = limit, 0

    @cached_property
    def _folder(self) -> Path | None:
        try:
            folder = in_cache("galbatch-blocks")
            if self.limit:
                own_folder(folder)
            return folder if self.limit else None
        except (InputError, OSError):
            return None

    def get(self, key: Key) -> bytes | None:
        """A block, None where it is not kept, or damaged."""
        if self._folder is None:
            return None
        try:
            data = (self._folder / f"{_hash(key)}.block").read_bytes()
        except OSError:
            return None
        return data[16:] if data[:16] == _digest(data[16:]) else None

    def put(self, key: Key, block: bytes) -> None:
        """Keep a block; now and then those written first go."""
        if self._folder is None:
            return
        try:
            with replacing(self._folder / f"{_hash(key)}.block", synced=False) as made:
                made.write_bytes(_digest(block) + block)
            self._written += len(block)
            if self._written > self.limit * _LOOK:
                self._written = 0
                evict(self._folder, _OWN, self.limit * _FULL, "st_mtime_ns")
        except OSError:  # no room: reading goes on without it
            self._folder = None

    @contextmanager
    def alone(self, key: Key) -> Iterator[None]:
        """No other process is in here with this key, where files can be locked; waits for ``WAIT_S`` at
        most."""
        if self._folder is None or fcntl is None:
            yield
            return
        with open(self._folder / f"lock-{_hash(key)[:2]}", "ab") as file:
            until = time.monotonic() + WAIT_S
            while time.monotonic() < until:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(LOOK_S)
                except OSError:
                    break
            yield


def _hash(key: Key) -> str:
    text = "\0".join(map(str, key)).encode("utf-8", "replace")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _digest(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=16).digest()
