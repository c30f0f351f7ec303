"""How a run is shown while it goes: a live bar on a terminal, a plain line every 30 s without one, JSON for
machines."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text


LINE_S = 30.0


class View:
    """Context with ``progress(p)`` and ``message(text)``, the callbacks of ``galbatch.run.process``.

    ``style``: 'bar', 'plain' or 'json'; None for a bar on a terminal and plain lines otherwise. Everything
    goes to standard error, so that standard output stays free for results; JSON goes to standard output.
    """

    def __init__(self, style: str | None = None) -> None:
        self.style = style or ("bar" if sys.stderr.isatty() else "plain")
        self._bar: Any = None
        self._task: Any = None
        self._latest: Any = None
        self._last, self._printing = float("-inf"), threading.Lock()
        self._end = threading.Event()

    def __enter__(self) -> View:
        if self.style == "plain":
            threading.Thread(target=self._repeat, name="progress", daemon=True).start()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._end.set()
        if self._bar is not None:
            self._bar.stop()

    def message(self, text: str) -> None:
        """Show a line."""
        if self.style == "json":
            print(json.dumps({"time": time.time(), "event": "message", "text": text}), flush=True)
        elif self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def progress(self, progress: Any) -> None:
        """Show how far the run is."""
        if self.style == "bar":
            self._show_bar(progress)
        elif self.style == "json":
            print(json.dumps({"time": time.time(), "event": "progress"} | facts(progress)), flush=True)
        else:
            self._latest = progress
            self._line(at_once=progress.done == progress.total > progress.before)

    def _line(self, at_once: bool = False) -> None:
        """The plain line, if it is time for one."""
        with self._printing:
            if at_once or time.monotonic() - self._last >= LINE_S:
                self._last = time.monotonic()
                print(plain_line(self._latest), file=sys.stderr, flush=True)

    def _repeat(self) -> None:
        """A line every ``LINE_S`` also while nothing is finished."""
        while not self._end.wait(min(1.0, LINE_S / 4)):
            if self._latest is not None:
                self._line()

    def _show_bar(self, progress: Any) -> None:
        if self._bar is None:
            from rich.console import Console

            self._bar = new_bar(Console(stderr=True))
            self._task = self._bar.add_task("", total=progress.total, run=progress)
            self._bar.start()
        self._bar.update(self._task, completed=progress.done, total=progress.total, run=progress)


def new_bar(console: Console) -> Progress:
    """As wide as the terminal: the numbers have their room first, the bar what is left."""
    from rich.progress import BarColumn, Progress, ProgressColumn
    from rich.table import Column
    from rich.text import Text

    class Numbers(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text.from_markup(bar_line(task.fields["run"]))

    numbers = Numbers(table_column=Column(no_wrap=True, overflow="ellipsis"))
    bar = BarColumn(bar_width=None)
    return Progress(bar, numbers, console=console, refresh_per_second=4, expand=True)


def facts(progress: Any) -> dict[str, Any]:
    """The numbers of a progress line."""
    eta, pace = progress.eta_s, progress.pace
    return {
        "done": progress.done,
        "total": progress.total,
        "flagged": progress.flagged,
        "failed": progress.failed,
        "draws_per_s": None if pace is None else float(f"{pace:.4g}"),
        "elapsed_s": round(progress.elapsed_s, 1),
        "eta_s": None if eta is None else round(eta, 1),
        "dashboard": progress.dashboard,
    }


def bar_line(progress: Any) -> str:
    """What stands beside the bar, as rich markup; the dashboard is a link where the terminal has links."""
    head = f"{progress.done}/{progress.total}"
    link = [f"[link={progress.dashboard}]dashboard[/link]"] if progress.dashboard else []
    return "  ".join([head, *_numbers(progress), *link])


def plain_line(progress: Any) -> str:
    """One line for a log."""
    return ", ".join([f"{progress.done}/{progress.total} sources", *_numbers(progress)])


def _numbers(progress: Any) -> list[str]:
    eta, pace = progress.eta_s, progress.pace
    if not progress.done:
        return ["waiting for the first batch", clock(progress.elapsed_s)]
    return [
        *([] if pace is None else [f"{rate(pace)} draws/s"]),
        f"{progress.flagged} flagged",
        f"{progress.failed} failed",
        clock(progress.elapsed_s),
        *([] if eta is None else [f"{clock(eta)} left"]),
    ]


def rate(per_s: float) -> str:
    """A rate with two digits or more, never 0.0 for one that is not."""
    return f"{per_s:.0f}" if per_s >= 100 else f"{per_s:.2g}"


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


@contextmanager
def counted(total: int, what: str) -> Iterator[Callable[..., None]]:
    """Gives a function to call with the number of things done since the last call (1 if not said), and what
    else a line says: a bar on a terminal, a line every 30 s without one."""
    if sys.stderr.isatty():
        import click

        with click.progressbar(length=total, label=what, file=sys.stderr) as bar:
            yield lambda more=1, note="": bar.update(more)
        return
    done, last = 0, time.monotonic()

    def tell(more: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += more
        if time.monotonic() - last >= LINE_S:
            last = time.monotonic()
            print(f"{done} of {total} {what}{note}", file=sys.stderr, flush=True)

    yield tell


def wide_console() -> Any:
    """A console for tables: as wide as the terminal; without one as COLUMNS says, at least 160 characters."""
    import shutil

    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(160, shutil.get_terminal_size().columns))
