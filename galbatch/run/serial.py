"""The whole run in this process, batch after batch: ``--cluster none``."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

from galbatch.errors import Stopped, limit_of, limit_remedy
from galbatch.run.context import ContextSpec
from galbatch.run.events import Reporter
from galbatch.run.task import is_fatal, run_batch
from galbatch.store import PlanBatch


def run_serial(spec: ContextSpec, batches: Iterable[PlanBatch], reporter: Reporter) -> None:
    """Process and commit every batch. Raises ``Stopped`` where the disk takes no more."""
    try:
        for rows in batches:
            reporter.batch(run_batch(spec, rows))
    except Exception as err:
        if is_fatal(err):
            raise disk_stopped(spec, err) from err
        raise


def disk_stopped(spec: ContextSpec, err: BaseException) -> Stopped:
    """The error for a disk that takes no more."""
    gb = spec.layout.predicted_bytes() / 1e9
    full = limit_of(err) in (errno.ENOSPC, errno.EDQUOT)
    return write_stopped(spec.root, err, f" (a whole run needs about {gb:.2f} GB there)" if full else "")


def write_stopped(root: str | Path, err: BaseException, need: str = "") -> Stopped:
    """The error for a run folder that cannot be written; ``need``: a remark on the room that it takes."""
    remedy = limit_remedy(err) or f"See that the disk is whole and that you may write in {root}"
    return Stopped(
        f"{root}: {err}. Every committed batch is kept. {remedy}{need}; then `galbatch resume {root}`."
    )
