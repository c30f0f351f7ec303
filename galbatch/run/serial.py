"""The whole run in this process, batch after batch: ``--cluster none``."""

from __future__ import annotations

from collections.abc import Iterable

from galbatch.errors import Stopped, limit_remedy
from galbatch.run.context import ContextSpec
from galbatch.run.events import Reporter
from galbatch.run.task import is_fatal, run_batch
from galbatch.store import PlanBatch


def run_serial(spec: ContextSpec, batches: Iterable[PlanBatch], reporter: Reporter) -> None:
    """Process and commit every batch. Raises ``Stopped`` on a full disk."""
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
    return Stopped(
        f"{spec.root}: {err}. Every committed batch is kept. {limit_remedy(err)} (a whole run needs about "
        f"{gb:.2f} GB there); then `galbatch resume {spec.root}`."
    )
