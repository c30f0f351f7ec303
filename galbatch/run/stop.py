"""Ctrl-C and SIGTERM as a request to stop that leaves a resumable run."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from galbatch.errors import Stopped
from galbatch.store import RunPaths


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
                f"it: `galbatch resume {paths.root}`, or the same command again."
            )
        return Stopped(
            f"Stopped by {self.requested}. Every committed batch is kept: go on with "
            f"`galbatch resume {paths.root}`, or with the same command and --resume."
        )
