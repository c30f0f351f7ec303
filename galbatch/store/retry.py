"""Committed batches with sources that failed, taken back so that they are computed again."""

from __future__ import annotations

import numpy as np

from galbatch.store.checksums import DamagedBatch
from galbatch.store.parts import read_part
from galbatch.store.paths import RunPaths
from galbatch.types import Flag

# Failures of the source itself: however often it is tried, it fails again.
LASTING_CODES = ("OFF_IMAGE", "BAD_POSITION", "ALL_MASKED")


def batches_to_retry(paths: RunPaths) -> list[int]:
    """Numbers of the committed batches in which a source failed, other than by ``LASTING_CODES``, or was not
    read in one of its bands (READ_ERROR)."""
    found = []
    for batch in sorted(paths.committed()):
        try:
            rows = read_part(paths, batch).rows
        except DamagedBatch:  # computed again in any case
            continue
        failed = np.array([s == "failed" for s in rows["status"].to_pylist()])
        lasting = np.array([c in LASTING_CODES for c in rows["failure_code"].to_pylist()])
        unread = (np.asarray(rows["flags"]) & int(Flag.READ_ERROR)) != 0
        if ((failed & ~lasting) | unread).any():
            found.append(batch)
    return found


def withdraw(paths: RunPaths, batches: list[int]) -> None:
    """Take the commits of ``batches`` back, and with them the end of the run."""
    if batches:
        paths.summary.unlink(missing_ok=True)
    for batch in batches:
        paths.part(batch).unlink(missing_ok=True)
