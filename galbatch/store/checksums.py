"""Digests that find every changed bit of a run folder.

A digest is ``[bytes, SHA-256]`` of a file, as ``sha256sum`` says. The note of a batch holds those of its part
and of its shards; a note, and ``checksums.json``, guard themselves: they are sealed records.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from galbatch.errors import RunError

Digest = list  # [bytes, SHA-256 in hexadecimal digits]: a list, because JSON has no tuples
_SEAL = b',\n"digest": "'


class DamagedBatch(RunError):
    """What was committed of a batch is not what lies on the disk now. ``batch``: its number."""

    def __init__(self, message: str, batch: int = -1):
        super().__init__(message)
        self.batch = batch


def digest_bytes(data: bytes) -> Digest:
    """Digest of bytes in memory."""
    return [len(data), hashlib.sha256(data).hexdigest()]


def digest_file(path: Path) -> Digest:
    """Digest of a file, read in pieces. Raises ``OSError``."""
    with open(path, "rb") as handle:
        found = hashlib.file_digest(handle, "sha256")
        return [os.fstat(handle.fileno()).st_size, found.hexdigest()]


def seal(record: dict[str, Any], indent: int | None = None) -> bytes:
    """A record as JSON whose last field is the SHA-256 of all the bytes before it."""
    body = json.dumps(record, indent=indent, default=str).removesuffix("}").rstrip("\n").encode()
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def unseal(data: bytes) -> dict[str, Any]:
    """The record of sealed bytes. Raises ``ValueError`` when a bit of them changed since, or more."""
    body, mark, end = data.rpartition(_SEAL)
    if not mark or end != hashlib.sha256(body).hexdigest().encode() + b'"}\n':
        raise ValueError("its content is not what was written: its own digest differs")
    record = json.loads(data)
    del record["digest"]
    return record
