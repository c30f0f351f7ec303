"""What a run tells whoever watches it: the progress so far, and lines worth reading; and Ctrl-C and SIGTERM
as a request to stop that leaves a resumable run."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from galbatch.errors import Stopped
from galbatch.store import BucketPath, RunPaths

SEND_S = 30.0  # between two copies of the log to a bucket


@dataclass
class Progress:
    """How far a run is. ``done`` sources of ``total`` are committed, ``before`` of them by an earlier run."""

    total: int = 0
    done: int = 0
    before: int = 0
    flagged: int = 0
    failed: int = 0
    draws: int = 0
    evaluations: float = 0.0
    cpu_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    clock: Callable[[], float] | None = None  # else the monotonic one
    started: float = field(default_factory=time.monotonic)
    workers: int = 1  # batches at work at once
    first: tuple[float, int, int] | None = None  # time, ``done`` and ``draws`` at the first commit
    latest: float = 0.0  # when the latest was
    traffic: Counter[str] = field(default_factory=Counter)  # requests and bytes, of all processes
    dashboard: str = ""
    devices: set[tuple[str, str]] = field(default_factory=set)  # kind and identity

    @property
    def elapsed_s(self) -> float:
        return self.now() - self.started

    @property
    def draws_per_s(self) -> float:
        """Over the whole time, loading and compiling included."""
        return self.draws / max(self.elapsed_s, 1e-9)

    @property
    def seconds_per_source(self) -> float | None:
        """At the pace since the first batch, which has loaded and compiled; after it alone, by its own
        seconds of work; None before."""
        if self.first is None:
            return None
        began, done, _ = self.first
        if self.done > done:
            return (self.latest - began) / (self.done - done)
        worked = sum(self.seconds.values())
        return worked / self.workers / (self.done - self.before) if worked > 0 else None

    @property
    def pace(self) -> float | None:
        """Draws per second at the present pace; None before the first batch."""
        each = self.seconds_per_source
        if not each or self.first is None:
            return None
        again = self.done - self.first[1]
        sources, draws = (
            (again, self.draws - self.first[2]) if again else (self.done - self.before, self.draws)
        )
        return draws / sources / each

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the present pace; None before the first batch, and at the end."""
        each = self.seconds_per_source
        if each is None or self.done >= self.total:
            return None
        return max(0.0, self.latest + (self.total - self.done) * each - self.now())

    def now(self) -> float:
        """By the clock of this progress."""
        return (self.clock or time.monotonic)()

    def add(self, record: dict[str, Any], at: float | None = None) -> None:
        """Count a batch that was committed now, or ``at`` a time."""
        self.done += record["sources"]
        self.latest = self.now() if at is None else at
        self.flagged += record["flagged"]
        self.failed += record["failed"]
        self.draws += int(record["counters"].get("draws", 0))
        self.first = self.first or (self.latest, self.done, self.draws)
        self.evaluations += record["counters"].get("evaluations", 0.0)
        self.cpu_s += record.get("cpu_s", 0.0)
        self.traffic.update(record.get("traffic", {}))
        if "device" in record:
            self.devices.add(tuple(record["device"]))
        for stage, seconds in record["seconds"].items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


class Reporter:
    """Passes progress and messages on, and appends them to ``metrics.jsonl``.

    ``on_progress(progress)`` and ``on_message(text)`` are what a command line or a notebook gives.
    """

    def __init__(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        self.progress = Progress()
        self.on_progress, self.on_message = on_progress, on_message
        self._metrics: Path | None = None
        self._text, self._sent = bytearray(), 0.0  # of a bucket, where nothing can be appended

    def open(self, metrics: Path, total: int, before: dict[str, int]) -> None:
        """Begin counting: ``before`` holds what earlier runs committed."""
        self._metrics = metrics
        if isinstance(metrics, BucketPath):
            self._text = bytearray(metrics.read_bytes() if metrics.is_file() else b"")
        self.progress = Progress(
            total=total,
            done=before["sources"],
            before=before["sources"],
            flagged=before["flagged"],
            failed=before["failed"],
        )
        self._write({"event": "start", "total": total, "before": before["sources"]})

    def move(self, metrics: Path) -> None:
        """The folder of the run has another name now."""
        self._metrics = metrics

    def batch(self, record: dict[str, Any]) -> None:
        """A batch is committed."""
        self.progress.add(record)
        self._write({"event": "batch", **record})
        self.show()

    def message(self, text: str) -> None:
        """A line worth reading."""
        self._write({"event": "message", "text": text})
        if self.on_message is not None:
            self.on_message(text)

    def dashboard(self, link: str) -> None:
        """Where the Dask dashboard is."""
        self.progress.dashboard = link
        self._write({"event": "dashboard", "link": link})
        if link and self.on_message is not None:
            self.on_message(f"dashboard: {link}")
        self.show()

    def show(self) -> None:
        """Pass the progress on as it is."""
        if self.on_progress is not None:
            self.on_progress(self.progress)

    def _write(self, record: dict[str, Any]) -> None:
        if self._metrics is None:
            return
        line = json.dumps({"time": record.pop("time", time.time()), **record}, default=str)
        if isinstance(self._metrics, BucketPath):
            self._text += line.encode() + b"\n"
            if time.monotonic() - self._sent > SEND_S:
                self.flush()
            return
        with open(self._metrics, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def flush(self) -> None:
        """Send what a bucket has not got yet."""
        if isinstance(self._metrics, BucketPath) and self._text:
            self._metrics.write_bytes(bytes(self._text))
            self._sent = time.monotonic()


class Interrupted(KeyboardInterrupt):
    """Raised where a signal found the program. No ``Exception``, so that it never passes for the fault of a
    source."""


class StopRequest:
    """Context that turns SIGINT and SIGTERM into ``requested``.

    While ``interrupting`` is true the signal also raises ``Interrupted`` where the program is: nothing is
    half-committed, because a batch counts only once its part file is there. A second signal always raises.
    Outside the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self.requested = ""
        self.interrupting = True
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = bool(self.requested), signal.Signals(number).name
        if again or self.interrupting:
            raise Interrupted(self.requested)

    def error(self, paths: RunPaths, target: RunPaths | None = None) -> Stopped:
        """What to raise once everything is put away; ``target``: the run that this one replaces."""
        if not paths.manifest.exists():
            return Stopped(f"Stopped by {self.requested} before the run began: nothing was written.")
        if target:
            return Stopped(
                f"Stopped by {self.requested}. {target.root} is as it was. Go on with what replaces "
                f"it: `galbatch resume {paths.quoted}`, or the same command again."
            )
        return Stopped(
            f"Stopped by {self.requested}. Every committed batch is kept: go on with "
            f"`galbatch resume {paths.quoted}`, or with the same command and --resume."
        )
