"""A run on a Dask cluster: a sliding window of batches, and what to do when one of them falls."""

from __future__ import annotations

import queue
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Future, KilledWorker, performance_report

from galbatch.config import ExecutionSettings
from galbatch.errors import GalbatchError, RunError, Stopped
from galbatch.run.cluster import Cluster
from galbatch.run.context import ContextSpec
from galbatch.run.events import Reporter, StopRequest
from galbatch.run.lifeline import Lifeline
from galbatch.run.task import disk_stopped, halves, is_fatal, killed
from galbatch.run.worker import GalbatchWorker, batch_task, probe_task
from galbatch.store import PlanBatch, RunPaths, record_file, write_atomic
from galbatch.types import Failure

MAX_ATTEMPTS, SET_UP_ATTEMPTS = 4, 3
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
        with _report(spec.paths.dask_report, settings.report):
            _set_up_workers(cluster, spec)
            Farm(cluster, spec, settings, reporter, stop).run(batches)
    finally:
        cluster.close()
        stop.interrupting = True


def _set_up_workers(cluster: Cluster, spec: ContextSpec) -> None:
    """The plugin on every worker, also on those that come later. Raises what makes a worker unusable, and
    ``Stopped`` when the scheduler, or one worker after another, is lost meanwhile."""
    for _ in range(SET_UP_ATTEMPTS):
        try:
            cluster.client.register_plugin(GalbatchWorker(spec))
            return
        except OSError as err:  # the connection to a worker, or to the scheduler
            lost = err
    raise Stopped(
        f"The scheduler, or a worker, was lost while the workers were set up ({lost}). Nothing is lost: "
        f"`galbatch resume {spec.root}`."
    ) from lost


@contextmanager
def _report(path: Path, wanted: bool) -> Iterator[None]:
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


@dataclass
class _Flight:
    """A batch on its way: its rows, the sources known to kill, how often it was sent."""

    rows: PlanBatch
    exclude: dict[int, Failure] = field(default_factory=dict)
    attempt: int = 1


class Farm:
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
        self._flights: dict[Future, _Flight] = {}

    def run(self, batches: Iterable[PlanBatch]) -> None:
        """Run every batch. Raises ``Stopped`` on a signal, a full disk or a lost scheduler."""
        waiting = iter(batches)
        try:
            self._fill(waiting)
            while self._flights:
                self._land(self._next(), self._flights)
                self._fill(waiting)
        except Stopped:
            self._drain()
            raise
        except OSError as err:  # the connection to the scheduler, at any moment
            raise self._scheduler_gone(err) from err

    def _fill(self, waiting: Iterator[PlanBatch]) -> None:
        """Keep two batches for every computing thread on their way: one at work, one ready."""
        while len(self._flights) < 2 * self.cluster.n_workers and not self.stop.requested:
            rows = next(waiting, None)
            if rows is None:
                return
            self._send(_Flight(rows))

    def _send(self, flight: _Flight) -> None:
        name = flight.rows.name + (f"-attempt{flight.attempt}" if flight.attempt > 1 else "")
        future = self.client.submit(
            self.task,
            flight.rows,
            flight.exclude,
            flight.attempt,
            key=name,
            pure=False,
            retries=self.settings.retries,
        )
        self._flights[future] = flight
        future.add_done_callback(self._ended.put)

    def _next(self) -> Future:
        while True:
            self._look()
            try:
                return self._ended.get(timeout=_POLL_S)
            except queue.Empty:
                pass

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

    def _land(self, future: Future, flights: dict[Future, _Flight]) -> None:
        flight = flights.pop(future)
        try:
            record = self._result(future)
        except Stopped:
            raise
        except KilledWorker:
            self._search(flight)
        except Exception as err:
            self._judge(flight, future, err)
        else:
            self.lifeline.landed()
            self.reporter.batch(record)
        finally:
            future.release()

    def _judge(self, flight: _Flight, future: Future, err: Exception) -> None:
        """A batch raised: stop for what no batch can help, send it again otherwise, a few times."""
        if is_fatal(err):
            raise disk_stopped(self.spec, err) from err
        if future.cancelled() or future.status == "lost":
            raise Stopped(
                f"The Dask scheduler dropped batch {flight.rows.batch} ({type(err).__name__}: {err}). Every "
                f"committed batch is kept: `galbatch resume {self.spec.root}`."
            ) from err
        if isinstance(err, GalbatchError) and not isinstance(err, RunError):
            raise err
        self._again(flight, f"{type(err).__name__}: {err}")

    def _again(self, flight: _Flight, why: str) -> None:
        if flight.attempt >= MAX_ATTEMPTS:
            raise Stopped(
                f"{flight.rows.name} failed {flight.attempt} times, last with: {why}. Every committed batch "
                f"is kept: fix the cause, then `galbatch resume {self.spec.root}`."
            )
        self.reporter.message(f"{flight.rows.name}: {why}; sent again")
        flight.attempt += 1
        self._send(flight)

    def _search(self, flight: _Flight) -> None:
        """A batch killed its worker again and again: halve it until the sources that do are alone."""
        slots = np.array(sorted(set(range(len(flight.rows))) - set(flight.exclude)))
        self.reporter.message(
            f"{flight.rows.name} killed its worker {self.settings.allowed_failures + 1} times; "
            f"searching its {len(slots)} sources"
        )
        suspects = [slots] if len(slots) == 1 and flight.attempt == 1 else list(halves(slots))
        while suspects:
            part = suspects.pop()
            if not len(part) or not self._kills(flight, part):
                continue
            if len(part) == 1:
                slot = int(part[0])
                flight.exclude[slot] = killed(flight.rows, slot)
                self.reporter.message(
                    f"{flight.rows.name}: source {flight.exclude[slot].source_id} kills its worker; "
                    "it fails alone"
                )
            else:
                suspects += halves(part)
        self._again(flight, f"{len(flight.exclude)} sources set aside")

    def _kills(self, flight: _Flight, part: np.ndarray) -> bool:
        key = f"galbatch-probe-{flight.rows.batch:06d}-{part[0]}-{part[-1]}-{flight.attempt}"
        probe = self.client.submit(probe_task, flight.rows.take(part), key=key, pure=False)
        try:
            while not probe.done():
                self._look()
                time.sleep(0.05)
            self._result(probe)
        except KilledWorker:
            return True
        finally:
            probe.release()
        return False

    def _drain(self) -> None:
        """Give batches at work a little time to be committed, then let go of the rest."""
        until = time.monotonic() + self.settings.grace_s
        running = {f: w for f, w in self._flights.items() if not f.done()}
        self.reporter.message(
            f"stopping: up to {self.settings.grace_s:.0f} s for {len(running)} batches on their way"
        )
        while self._flights and time.monotonic() < until and self.client.status == "running":
            try:
                future = self._ended.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if self._flights.pop(future, None) is not None and future.status == "finished":
                with suppress(TimeoutError):  # lost with its worker just now; what is committed counts
                    self.reporter.batch(future.result(timeout=self.settings.grace_s))
        if self.client.status == "running":
            with suppress(OSError):  # it went just now: there is nothing left to call back
                self.client.cancel(list(self._flights), force=True)
