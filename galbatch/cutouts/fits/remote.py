"""Bytes of a file at a URL: byte ranges, gathered, and kept for the sources that come next.

A file is read in blocks of ``BLOCK`` bytes. What a batch needs of a plane is asked for in as few ranges as
possible: gaps below ``_GAP`` are read too, for a request costs as much time as a megabyte. The blocks read
last are kept, ``CACHE_BYTES`` of them in a process and ``NODE_BYTES`` on the disk of its machine, where the
other processes find them (``blocks``), so that neighbouring sources ask once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from galbatch.cutouts.fits.blocks import BlockCache, NodeBlocks
from galbatch.errors import InputError, ReadError
from galbatch.traffic import Traffic

BLOCK = 1 << 16
_GAP = 1 << 20
_SPAN = 32 << 20  # bytes of a range at most
CACHE_BYTES = int(os.environ.get("GALBATCH_READ_CACHE_MB", "256")) << 20
NODE_BYTES = int(os.environ.get("GALBATCH_NODE_CACHE_MB", "4096")) << 20
TRAFFIC = (
    Traffic()
)  # requests and bytes, and blocks that were kept in memory (hits) or by the machine (node_hits)
take_traffic = TRAFFIC.take
OBJECTS = ("s3", "gs", "gcs", "az", "abfs")


@dataclass(frozen=True)
class FileStamp:
    """What pins a file: its size in bytes and modification time in ns (0 and an etag where remote)."""

    size: int
    mtime_ns: int
    etag: str = ""


class Reach(Protocol):
    """What brings byte ranges of one file: its ``size`` and ``etag``."""

    size: int
    etag: str

    def ranges(self, spans: list[tuple[int, int]]) -> list[bytes]:
        """The bytes of every (first, end)."""


class _Fsspec:
    """A URL by fsspec, with the settings of its own packages (s3fs, gcsfs, adlfs, aiohttp)."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.fs, self.key = fsspec.core.url_to_fs(url)
        info = self.fs.info(self.key)
        self.size, self.etag = int(info.get("size") or 0), str(info.get("ETag", info.get("etag", "")))

    def ranges(self, spans: list[tuple[int, int]]) -> list[bytes]:
        """As ``Reach.ranges``."""
        first, end = [s[0] for s in spans], [s[1] for s in spans]
        found: list[bytes] = self.fs.cat_ranges([self.key] * len(spans), first, end, on_error="raise")
        return found


class _Object:
    """An object of a bucket by obstore, with keys and endpoint from the environment."""

    def __init__(self, url: str) -> None:
        import obstore
        from obstore.store import from_url

        scheme, _, rest = url.partition("://")
        bucket, _, self.key = rest.partition("/")
        self.store: Any = from_url(f"{'gs' if scheme == 'gcs' else scheme}://{bucket}")
        info = obstore.head(self.store, self.key)
        self.size, self.etag = int(info["size"]), str(info["e_tag"] or "")

    def ranges(self, spans: list[tuple[int, int]]) -> list[bytes]:
        """As ``Reach.ranges``."""
        import obstore

        first, end = [s[0] for s in spans], [s[1] for s in spans]
        return [
            bytes(b) for b in obstore.get_ranges(self.store, self.key, starts=first, ends=end, coalesce=0)
        ]


def _reach(url: str) -> Reach:
    """fsspec, or obstore where fsspec lacks the package for a bucket."""
    try:
        return _Fsspec(url)
    except ImportError:
        if url.partition("://")[0] not in OBJECTS:
            raise
    return _Object(url)


_CACHE, _NODE = BlockCache(CACHE_BYTES), NodeBlocks(NODE_BYTES)


class RemoteBytes:
    """Positioned reads of a file at a URL. Raises ``InputError`` if it cannot be read so, or is not as
    pinned; ``ReadError`` where a read fails that may succeed later."""

    def __init__(
        self, url: str, pin: FileStamp | None = None, cache: BlockCache = _CACHE, node: NodeBlocks = _NODE
    ) -> None:
        self.path, self.cache, self.node = url, cache, node
        self.requests = self.bytes_read = 0
        try:
            self.reach = _reach(url)
        except ImportError as error:
            raise InputError(
                f"{url} needs the extra packages for remote files: pip install 'galbatch[cloud]' ({error})."
            ) from error
        except Exception as error:
            said = str(error).partition("\n")[0]
            raise ReadError(f"{url} cannot be opened: {type(error).__name__}: {said}.") from error
        self._count(1, 0)
        if not self.reach.size:
            why = "Download the file, or use a server that answers range requests."
            raise InputError(f"{url}: the server does not tell its size. {why}")
        self.stamp = FileStamp(self.reach.size, 0, self.reach.etag)
        if pin is not None and pin != self.stamp:
            raise InputError(f"{url} changed during the run: {pin.size} bytes then, {self.stamp.size} now.")

    def check(self) -> None:
        """Remote files are pinned when opened."""

    def read(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes from ``start`` on."""
        end = min(start + size, self.stamp.size)
        if end <= start:
            return b""
        if size > _SPAN:  # a whole plane: not to be kept
            return b"".join(part for span in _pieces(start, end) for part in self._ranges([span]))
        return self._span(start, end)

    def read_block(self, start: int, size: int) -> np.ndarray:
        """(at most size,) bytes."""
        return np.frombuffer(self.read(start, size), np.uint8)

    def read_rows(self, starts: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """(n,) byte positions to (n, width) bytes, and which rows could be read."""
        starts = np.asarray(starts, np.int64)
        out, ok = np.zeros((len(starts), width), np.uint8), starts + width <= self.stamp.size
        order = np.argsort(starts, kind="stable")
        for members in _runs(order[ok[order]], starts, width):
            first = int(starts[members[0]])
            data = np.frombuffer(self._span(first, int(starts[members[-1]]) + width), np.uint8)
            out[members] = data[(starts[members] - first)[:, None] + np.arange(width)]
        return out, ok

    def _span(self, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end``, of blocks that are kept or asked for together."""
        kept = {k: self.cache.get(self._key(k)) for k in range(start // BLOCK, (end - 1) // BLOCK + 1)}
        absent = [k for k, block in kept.items() if block is None]
        TRAFFIC.add("hits", len(kept) - len(absent))
        blocks = {k: block for k, block in kept.items() if block is not None}
        if absent:
            blocks |= self._brought(absent)
        offset = start // BLOCK * BLOCK
        return b"".join(blocks[k] for k in kept)[start - offset : end - offset]

    def _brought(self, absent: list[int]) -> dict[int, bytes]:
        """Blocks (sorted numbers) from the disk of this machine, else by request; they are kept."""
        found = self._of_node(absent)
        if len(found) < len(absent):
            first = next(k for k in absent if k not in found)
            with self.node.alone(self._key(first * BLOCK // _SPAN)):
                found |= self._of_node([k for k in absent if k not in found])  # of who was alone before
                found |= self._requested([k for k in absent if k not in found])
        for k, block in found.items():
            self.cache.put(self._key(k), block)
        return found

    def _of_node(self, numbers: list[int]) -> dict[int, bytes]:
        """Blocks that a process of this machine has read. A file without an etag may be another one there."""
        if not self.stamp.etag:
            return {}
        blocks = {k: self.node.get(self._key(k)) for k in numbers}
        found = {k: block for k, block in blocks.items() if block is not None}
        TRAFFIC.add("node_hits", len(found))
        return found

    def _requested(self, numbers: list[int]) -> dict[int, bytes]:
        """Blocks, and what lies between those that are close, from the server."""
        found = {}
        spans = [(a * BLOCK, min((b + 1) * BLOCK, self.stamp.size)) for a, b in _joined(numbers)]
        for (first, _), part in zip(spans, self._ranges(spans), strict=True):
            for at in range(0, len(part), BLOCK):
                number = (first + at) // BLOCK
                found[number] = part[at : at + BLOCK]
                if self.stamp.etag:
                    self.node.put(self._key(number), found[number])
        return found

    def _key(self, block: int) -> tuple[str, str, int]:
        return self.path, self.stamp.etag or str(self.stamp.size), block

    def _ranges(self, spans: list[tuple[int, int]]) -> list[bytes]:
        if not spans:
            return []
        try:
            parts = self.reach.ranges(spans)
        except Exception as error:
            said = str(error).partition("\n")[0]
            raise ReadError(f"{self.path} cannot be read: {type(error).__name__}: {said}.") from error
        self._count(len(spans), sum(map(len, parts)))
        for part, (start, stop) in zip(parts, spans, strict=True):
            if len(part) > stop - start:
                raise InputError(f"{self.path}: the server ignores range requests. Download the file first.")
            if len(part) < stop - start:
                raise ReadError(f"{self.path}: {len(part)} bytes came for {stop - start} from {start} on.")
        return parts

    def _count(self, requests: int, n_bytes: int) -> None:
        self.requests, self.bytes_read = self.requests + requests, self.bytes_read + n_bytes
        TRAFFIC.add("requests", requests)
        TRAFFIC.add("bytes", n_bytes)

    def close(self) -> None:
        """Nothing is held open."""


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    return ((at, min(at + _SPAN, end)) for at in range(start, end, _SPAN))


def _runs(order: np.ndarray, starts: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """The sorted members of ``order`` in runs without a gap of ``_GAP``, of at most ``_SPAN`` bytes."""
    first = 0
    for k in range(1, len(order) + 1):
        if k < len(order):
            here = int(starts[order[k]])
            near = here <= int(starts[order[k - 1]]) + width + _GAP
            if near and here + width - int(starts[order[first]]) <= _SPAN:
                continue
        if k > first:
            yield order[first:k]
        first = k


def _joined(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted numbers as (first, last) of runs, over gaps of at most ``_GAP`` bytes of blocks."""
    out: list[tuple[int, int]] = []
    for n in numbers:
        if out and n - out[-1][1] <= 1 + _GAP // BLOCK:
            out[-1] = out[-1][0], n
        else:
            out.append((n, n))
    return out
