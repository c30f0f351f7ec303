"""A cluster that has lost all its workers: started again, or the run stops; it never waits for ever. And
Dask's own report of what a cluster did."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distributed import performance_report

from galbatch.errors import Stopped
from galbatch.run.cluster import WORKERS_TIMEOUT_S, Cluster
from galbatch.run.events import Reporter
from galbatch.store import RunPaths, record_file, write_atomic

NO_WORKER_S = 120.0  # a worker that its nanny starts again needs some 10 s, on a busy machine a minute
RESTARTS = 2


class Lifeline:
    """Watches over the workers of ``cluster`` while a run waits for them.

    Workers of ours are started again when none has been connected for ``NO_WORKER_S``, up to ``RESTARTS``
    times without a batch in between; workers of a scheduler that was given are waited for, up to
    ``WORKERS_TIMEOUT_S``.
    """

    def __init__(self, cluster: Cluster, root: str, reporter: Reporter) -> None:
        self.cluster, self.root, self.reporter = cluster, root, reporter
        self._since: float | None = None
        self._restarts = 0

    def landed(self) -> None:
        """A batch has come back: the workers do work."""
        self._since, self._restarts = None, 0

    def check(self) -> None:
        """To be called while waiting. Raises ``Stopped`` when no worker has come back in time."""
        if self.cluster.connected():
            self._since = None
            return
        now, ours = time.monotonic(), self.cluster.cluster is not None
        self._since = now if self._since is None else self._since
        if now - self._since <= (NO_WORKER_S if ours else WORKERS_TIMEOUT_S):
            return
        if not ours or self._restarts >= RESTARTS:
            remedy = (
                f"Those started again ({RESTARTS} times) did not stay: often memory is short, so try "
                "fewer --workers, or `--cluster none`, which shows the error of a worker itself"
            )
            raise Stopped(
                f"No worker has been alive for {NO_WORKER_S if ours else WORKERS_TIMEOUT_S:.0f} s. "
                f"{remedy if ours else 'Start workers of that scheduler'}. Every committed batch is kept: "
                f"`galbatch resume {self.root}`."
            )
        self._restarts += 1
        self.reporter.message(f"no worker has been alive for {NO_WORKER_S:.0f} s: starting them again")
        self.cluster.revive()
        self._since = None


@contextmanager
def dask_report(path: Path, wanted: bool) -> Iterator[None]:
    """Dask's performance report of what is done inside, if wanted."""
    if not wanted:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="galbatch-") as folder:
        made = Path(folder) / path.name
        report = performance_report(str(made))
        report.__enter__()
        try:
            yield
        finally:
            with suppress(Exception):  # the scheduler that it asks may be gone: no reason to fail a run
                report.__exit__(None, None, None)
                write_atomic(path, made.read_bytes())
                record_file(RunPaths(path.parent), path)
