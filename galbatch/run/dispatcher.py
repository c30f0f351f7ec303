"""A run on a Dask cluster: a sliding window of batches, and what to do when one of them falls."""

from __future__ import annotations

import queue
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import Future, KilledWorker

from galbatch.config import ExecutionSettings
from galbatch.errors import GalbatchError, RunError, Stopped
from galbatch.run.cluster import Cluster
from galbatch.run.context import ContextSpec
from galbatch.run.events import Reporter, StopRequest
from galbatch.run.lifeline import Lifeline, dask_report
from galbatch.run.task import disk_stopped, halves, is_fatal, killed
from galbatch.run.worker import batch_task, probe_task, set_up_workers
from galbatch.store import PlanBatch
from galbatch.types import Failure

MAX_ATTEMPTS = 4
LATE, KNOWN = 3.0, 5  # medians of the time of a batch after which it is a straggler; batches that it takes
_POLL_S = 0.5


def run_on_cluster(
    cluster: Cluster,
    spec: ContextSpec,
    settings: ExecutionSettings,
    reporter: Reporter,
    stop: StopRequest,
    batches: Iterable[PlanBatch],
) -> None:
    """Say which cluster it is, run ``batches`` on it, keep Dask's report of it, and close it."""
    stop.interrupting = False  # from here on a signal is looked for, between the answers of the workers
    try:
        reporter.message(cluster.line)
        reporter.progress.workers = max(1, cluster.n_workers)
        reporter.dashboard(cluster.dashboard)
        with dask_report(spec.paths.dask_report, settings.report):
            set_up_workers(cluster.client, spec)
            Dispatcher(cluster, spec, settings, reporter, stop).run(batches)
    finally:
        cluster.close()
        stop.interrupting = True


@dataclass
class _Pending:
    """A batch on its way: its rows, the sources known to kill, how often it was sent, when last, and its one
    or two futures."""

    rows: PlanBatch
    exclude: dict[int, Failure] = field(default_factory=dict)
    attempt: int = 1
    sent: float = 0.0
    futures: list[Future] = field(default_factory=list)


class Dispatcher:
    """Sends batches to the workers of ``cluster`` and sees each of them committed by ``task``."""

    def __init__(
        self,
        cluster: Cluster,
        spec: ContextSpec,
        settings: ExecutionSettings,
        reporter: Reporter,
        stop: StopRequest,
        task: Callable = batch_task,
    ) -> None:
        self.task = task
        self.client, self.cluster, self.spec, self.settings = cluster.client, cluster, spec, settings
        self.reporter, self.stop = reporter, stop
        self.lifeline = Lifeline(cluster, spec.root, reporter)
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._pending: dict[Future, _Pending] = {}
        self._took: deque[float] = deque(maxlen=1000)  # seconds from sending a batch to its answer
        self._all_sent = False

    def run(self, batches: Iterable[PlanBatch]) -> None:
        """Run every batch. Raises ``Stopped`` on a signal, a full disk or a lost scheduler."""
        waiting = iter(batches)
        try:
            self._fill(waiting)
            while self._pending:
                self._receive(self._next())
                self._fill(waiting)
        except Stopped:
            self._drain()
            raise
        except OSError as err:  # the connection to the scheduler, at any moment
            raise self._scheduler_gone(err) from err

    def _fill(self, waiting: Iterator[PlanBatch]) -> None:
        """Keep two batches for every computing thread on their way: one at work, one ready."""
        while len(self._pending) < 2 * self.cluster.n_workers and not self.stop.requested:
            rows = next(waiting, None)
            if rows is None:
                self._all_sent = True
                return
            self._send(_Pending(rows))

    def _send(self, pending: _Pending, workers: list[str] | None = None) -> None:
        """Send a batch, to one of these workers if it can be."""
        name = pending.rows.name + (f"-attempt{pending.attempt}" if pending.attempt > 1 else "")
        name += "-twin" if pending.futures else ""
        future = self.client.submit(
            self.task,
            pending.rows,
            pending.exclude,
            pending.attempt,
            key=name,
            pure=False,
            retries=self.settings.retries,
            workers=workers,
            allow_other_workers=bool(workers),
        )
        pending.sent = time.monotonic()
        pending.futures.append(future)
        self._pending[future] = pending
        future.add_done_callback(self._ended.put)

    def _next(self) -> Future:
        while True:
            self._look()
            self._send_stragglers_again()
            try:
                return self._ended.get(timeout=_POLL_S)
            except queue.Empty:
                pass

    def _send_stragglers_again(self) -> None:
        """Near the end, with idle workers: a batch that takes far longer than others goes to a second one.
        The first to commit counts, the other writes nothing (``run_batch``)."""
        if not self._all_sent or len(self._took) < KNOWN:
            return
        late = LATE * statistics.median(self._took)
        for pending in list(self._pending.values()):
            idle = self.cluster.n_workers - len(self._pending)
            waited = time.monotonic() - pending.sent
            if idle < 1 or len(pending.futures) > 1 or waited < late:
                continue
            mine = {w for w, keys in self.client.processing().items() if pending.futures[0].key in keys}
            took = f"{waited:.0f} s, others took {late / LATE:.0f} s"
            self.reporter.message(f"{pending.rows.name} takes {took}: sent to a second worker too")
            self._send(pending, sorted(set(self.client.nthreads()) - mine))

    def _look(self) -> None:
        """To be called while waiting. Raises ``Stopped`` on a signal, and when nobody is left to wait for."""
        if self.stop.requested:
            raise self.stop.error(self.spec.paths)
        if self.client.status not in ("running", "connecting"):
            raise self._scheduler_gone(self.client.status)
        if self.client.status == "running":
            self.lifeline.check()

    def _result(self, future: Future) -> Any:
        """What a future ended with; when that is lost with its worker, it is waited for once more."""
        while True:
            try:
                return future.result(timeout=_POLL_S)
            except TimeoutError:
                if future.status in ("error", "cancelled"):  # the error of the batch itself
                    raise
                self._look()

    def _scheduler_gone(self, why: Any) -> Stopped:
        return Stopped(
            f"The Dask scheduler is gone ({why}). Every committed batch is kept: start one, then `galbatch "
            f"resume {self.spec.root}`."
        )

    def _receive(self, future: Future) -> None:
        pending = self._pending.pop(future, None)
        if pending is None:
            return  # its twin was faster
        pending.futures.remove(future)
        try:
            record = self._result(future)
        except Stopped:
            raise
        except Exception as err:
            if pending.futures:
                return  # its twin is on its way
            self._search(pending) if isinstance(err, KilledWorker) else self._judge(pending, future, err)
        else:
            self.lifeline.landed()
            self._took.append(time.monotonic() - pending.sent)
            self._done(pending, record)
        finally:
            future.release()

    def _done(self, pending: _Pending, record: dict[str, Any]) -> None:
        """A batch is committed: nobody waits for its twin."""
        for twin in pending.futures:
            del self._pending[twin]
            twin.release()
        self.reporter.batch(record)

    def _judge(self, pending: _Pending, future: Future, err: Exception) -> None:
        """A batch raised: stop for what no batch can help, send it again otherwise, a few times."""
        if is_fatal(err):
            raise disk_stopped(self.spec, err) from err
        if future.cancelled() or future.status == "lost":
            raise Stopped(
                f"The Dask scheduler dropped batch {pending.rows.batch} ({type(err).__name__}: {err}). Every "
                f"committed batch is kept: `galbatch resume {self.spec.root}`."
            ) from err
        if isinstance(err, GalbatchError) and not isinstance(err, RunError):
            raise err
        self._again(pending, f"{type(err).__name__}: {err}")

    def _again(self, pending: _Pending, why: str) -> None:
        if pending.attempt >= MAX_ATTEMPTS:
            raise Stopped(
                f"{pending.rows.name} failed {pending.attempt} times, last with: {why}. Every committed "
                f"batch is kept: fix the cause, then `galbatch resume {self.spec.root}`."
            )
        self.reporter.message(f"{pending.rows.name}: {why}; sent again")
        pending.attempt += 1
        self._send(pending)

    def _search(self, pending: _Pending) -> None:
        """A batch killed its worker again and again: halve it until the sources that do are alone."""
        slots = np.array(sorted(set(range(len(pending.rows))) - set(pending.exclude)))
        self.reporter.message(
            f"{pending.rows.name} killed its worker {self.settings.allowed_failures + 1} times; "
            f"searching its {len(slots)} sources"
        )
        suspects = [slots] if len(slots) == 1 and pending.attempt == 1 else list(halves(slots))
        while suspects:
            part = suspects.pop()
            if not len(part) or not self._kills(pending, part):
                continue
            if len(part) == 1:
                slot = int(part[0])
                pending.exclude[slot] = killed(pending.rows, slot)
                self.reporter.message(
                    f"{pending.rows.name}: source {pending.exclude[slot].source_id} kills its worker; "
                    "it fails alone"
                )
            else:
                suspects += halves(part)
        self._again(pending, f"{len(pending.exclude)} sources set aside")

    def _kills(self, pending: _Pending, part: np.ndarray) -> bool:
        key = f"galbatch-probe-{pending.rows.batch:06d}-{part[0]}-{part[-1]}-{pending.attempt}"
        probe = self.client.submit(probe_task, pending.rows.take(part), key=key, pure=False)
        try:
            self._result(probe)
        except KilledWorker:
            return True
        finally:
            probe.release()
        return False

    def _drain(self) -> None:
        """Give batches at work a little time to be committed, then let go of the rest."""
        until = time.monotonic() + self.settings.grace_s
        running = {f: w for f, w in self._pending.items() if not f.done()}
        self.reporter.message(
            f"stopping: up to {self.settings.grace_s:.0f} s for {len(running)} batches on their way"
        )
        while self._pending and time.monotonic() < until and self.client.status == "running":
            try:
                future = self._ended.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            pending = self._pending.pop(future, None)
            if pending is not None and future.status == "finished":
                pending.futures.remove(future)
                with suppress(TimeoutError):  # lost with its worker just now; what is committed counts
                    self._done(pending, future.result(timeout=self.settings.grace_s))
        if self.client.status == "running":
            with suppress(OSError):  # it went just now: there is nothing left to call back
                self.client.cancel(list(self._pending), force=True)
