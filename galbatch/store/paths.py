"""The names of everything inside a run folder, once."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

_PART = re.compile(r"batch-(\d{6,})\.arrow$")
_OLD_PART = re.compile(r"batch-(\d{6,})\.parquet$")


@dataclass(frozen=True)
class RunPaths:
    """Typed names of a run folder. ``root`` is absolute; nothing is created by asking for a name."""

    root: Path

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root).absolute())

    config = property(lambda self: self.root / "galbatch.toml")
    manifest = property(lambda self: self.root / "manifest.json")
    plan = property(lambda self: self.root / "plan.parquet")
    posterior = property(lambda self: self.root / "posterior.zarr")
    parts = property(lambda self: self.root / "parts")
    catalogue = property(lambda self: self.root / "catalog.parquet")
    failures = property(lambda self: self.root / "failures.parquet")
    summary = property(lambda self: self.root / "summary.json")
    report = property(lambda self: self.root / "report.html")
    dask_report = property(lambda self: self.root / "dask-report.html")
    metrics = property(lambda self: self.root / "metrics.jsonl")
    lock = property(lambda self: self.root / "run.lock")

    def part(self, batch: int) -> Path:
        """The commit record of a batch: it exists if and only if the batch is committed."""
        return self.parts / f"batch-{batch:06d}.arrow"

    def attempt(self, batch: int) -> Path:
        """The note of a batch: who wrote it, when and how long it took (not part of the reproducible output),
        and the digest of its part."""
        return self.parts / f"batch-{batch:06d}.json"

    def committed(self) -> set[int]:
        """Numbers of the committed batches."""
        return self._numbers(_PART)

    def committed_before(self) -> set[int]:
        """Numbers of the batches that galbatch 0.1.0 committed, in Parquet."""
        return self._numbers(_OLD_PART)

    def _numbers(self, pattern: re.Pattern) -> set[int]:
        if not self.parts.is_dir():
            return set()
        found = (pattern.match(name) for name in os.listdir(self.parts))
        return {int(match.group(1)) for match in found if match}

    def orphans(self) -> list[Path]:
        """Temporary files that a killed process left behind."""
        tops = [p for p in (self.root, self.parts) if p.is_dir()]
        left = [p for top in tops for p in top.glob("*.tmp")]
        return sorted(left + list(self.posterior.rglob("*.partial")))


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the whole new one, even after a
    crash."""
    with replacing(path) as tmp:
        tmp.write_bytes(data)


class replacing:
    """Context: yields a temporary path beside ``path``, synced and renamed over it on success, removed on
    error."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.tmp = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:12]}.tmp")

    def __enter__(self) -> Path:
        return self.tmp

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.tmp.unlink(missing_ok=True)
            return
        _sync(self.tmp)
        os.replace(self.tmp, self.path)
        _sync(self.path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
