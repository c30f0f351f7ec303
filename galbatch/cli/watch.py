"""``galbatch watch``: a run while it goes, on the terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from galbatch.cli.options import RUN
from galbatch.cli.progress import LINE_S, clock, rate
from galbatch.cli.status import lines


@click.command("watch")
@RUN
@click.option(
    "--every", type=click.FloatRange(min=0.2), default=2.0, metavar="S", help="Seconds between looks."
)
@click.option("--live", is_flag=True, help="As a page for the browser of this machine, with pictures.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port of the page; 0: a free one."
)
def command(run: str, every: float, live: bool, port: int) -> int:
    """Watch the run in folder RUN until it ends: progress, rate, time left, sources by grade, messages.

    Reads the folder alone and writes nothing, so that it works beside a run of any machine that shares the
    disk. Ctrl-C ends the watching, not the run. Without a terminal one line every 30 s.

    \b
    galbatch watch demo.run
    galbatch watch demo.run --live
    """
    from galbatch.run.inspect import snapshot

    if live:
        return _serve(run, port)

    found = snapshot(run)
    try:
        if sys.stdout.isatty():
            _live(run, found, every)
        else:
            while found["state"] == "running":
                click.echo(line(found))
                time.sleep(LINE_S)
                found = snapshot(run)
            click.echo(line(found))
    except KeyboardInterrupt:
        click.echo("The run goes on.", err=True)
    return 0


def _serve(run: str, port: int) -> int:
    """Serve the page of a run until Ctrl-C."""
    from galbatch.errors import InputError
    from galbatch.report.live import LivePage

    try:
        page = LivePage(run, port)
    except OSError as err:
        raise InputError(f"--port {port}: cannot be used ({err.strerror}). Leave it out.") from err
    try:
        page.state()  # a folder that is no run is said here, not in the browser
        click.echo(f"{page.url} shows {run}. Ctrl-C ends the page, not the run.")
        click.echo(
            f"From another machine: ssh -L {page.server_port}:localhost:{page.server_port} THIS_MACHINE"
        )
        page.serve_forever()
    except KeyboardInterrupt:
        click.echo("The page is closed; a run goes on.", err=True)
    finally:
        page.server_close()
    return 0


def _live(run: str, found: dict[str, Any], every: float) -> None:
    from rich.live import Live

    from galbatch.run.inspect import snapshot

    with Live(picture(found), auto_refresh=False) as live:
        while found["state"] == "running":
            time.sleep(every)
            found = snapshot(run)
            live.update(picture(found), refresh=True)


def picture(found: dict[str, Any]) -> Any:
    """What stands on the terminal: a bar, the pace, grades, the status, and the latest messages."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = Table.grid(expand=True)
    bar.add_row(ProgressBar(total=max(1, found["planned"] or 1), completed=found["sources"]))
    head, _, _, *rest = lines(found)
    return Group(
        bar, Text("\n".join([head, f"  {line(found)}", *rest, *(f"  {t}" for t in found["latest"])]))
    )


def line(found: dict[str, Any]) -> str:
    """One line: progress, pace, grades."""
    parts = [f"{found['sources']}/{found['planned'] or 0} sources"]
    if found["draws_per_s"] is not None:
        parts += [f"{rate(found['draws_per_s'])} draws/s", f"{clock(found['eta_s'])} left"]
    parts += [f"{n} {grade}" for grade, n in found["grades"].items()]
    return ", ".join([*parts, f"{found['failed']} failed"])
