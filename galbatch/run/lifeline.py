"""A cluster that has lost all its workers: started again, or the run stops; it never waits for ever."""

from __future__ import annotations

import time

from galbatch.errors import Stopped
from galbatch.run.cluster import WORKERS_TIMEOUT_S, Cluster
from galbatch.run.events import Reporter

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
        now = time.monotonic()
        if self._since is None:
            self._since = now
            return
        if self.cluster.cluster is None:
            if now - self._since > WORKERS_TIMEOUT_S:
                raise self._stopped(WORKERS_TIMEOUT_S, "Start workers of that scheduler")
        elif now - self._since > NO_WORKER_S:
            if self._restarts >= RESTARTS:
                raise self._stopped(
                    NO_WORKER_S,
                    f"Those started again ({RESTARTS} times) did not stay: often memory is short, so try "
                    "fewer --workers, or `--cluster none`, which shows the error of a worker itself",
                )
            self._restarts += 1
            self.reporter.message(f"no worker has been alive for {NO_WORKER_S:.0f} s: starting them again")
            self.cluster.revive()
            self._since = None

    def _stopped(self, seconds: float, remedy: str) -> Stopped:
        return Stopped(
            f"No worker has been alive for {seconds:.0f} s. {remedy}. Every committed batch is kept: "
            f"`galbatch resume {self.root}`."
        )
