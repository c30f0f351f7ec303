"""The ``galbatch`` command: a group that imports a subcommand only when it is asked for.

Each subcommand is ``galbatch/cli/<name>.py`` and exports ``command``. Errors are turned into one message and
an exit code here and nowhere else: 0 ok, 1 bad input or usage (nothing started), 3 finished with some
sources failed (a command returns 3), 4 stopped and resumable.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import click

import galbatch
from galbatch.errors import GalbatchError, limit_remedy

OK, BAD_INPUT, SOME_FAILED, STOPPED = 0, 1, 3, 4

SECTIONS: dict[str, dict[str, str]] = {
    "Begin": {
        "init": "Propose a survey file from a folder of FITS files, or write a template.",
        "cutout": "One galaxy, no catalogue: a picture and a table.",
        "psf": "Make the PSF of a JWST filter with stpsf, where it is installed.",
    },
    "Run": {
        "check": "Look for problems before a run: files, WCS, units, PSF, ids, disk, model.",
        "plan": "Say what a run will take: hours, bytes, requests, money.",
        "process": "Sample the posterior of every source of a catalogue and measure it.",
        "status": "Say how far a run is, and what was flagged or failed.",
        "watch": "Watch a run while it goes.",
        "resume": "Go on with a run that was stopped.",
        "draw": "Make the draws of a source again from their seeds.",
        "verify": "Check a run folder: every shard, every row, every hash.",
    },
    "Look at a run": {
        "show": "Show one source: data, posterior, residual, draws, numbers.",
        "report": "Make one self-contained HTML page of a run.",
        "export": "Write a run for DS9, GALFIT, LSDB or TOPCAT.",
        "flags": "Explain the flag bits.",
    },
    "Models and mocks": {
        "simulate": "Make mock galaxies and mock survey fields with known truth.",
        "fetch-tng": "Fetch simulated galaxy images of IllustrisTNG with your own key.",
        "train": "Train a prior from galaxy images.",
        "model": "List, describe, convert, evaluate or calibrate models.",
    },
    "Trust and speed": {
        "validate": "Test calibration and accuracy on held-out truth.",
        "bench": "Measure the throughput of this machine.",
    },
    "Shell": {"completion": "Print the completion script of a shell."},
}
COMMANDS: dict[str, str] = {name: line for section in SECTIONS.values() for name, line in section.items()}


class LazyGroup(click.Group):
    """A click group whose subcommands are imported on first use, listed by section from ``SECTIONS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"galbatch.cli.{cmd_name.replace('-', '_')}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            remedy = f"Did you mean '{close[0]}'?" if close else "See 'galbatch --help'."
            raise click.UsageError(f"No such command '{args[0]}'. {remedy}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list:
        from click.shell_completion import CompletionItem

        names = [name for name in COMMANDS if name.startswith(incomplete)]
        return [CompletionItem(name, help=COMMANDS[name]) for name in names] + click.Command.shell_complete(
            self, ctx, incomplete
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()), col_max=14)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(galbatch.__version__, prog_name="galbatch")
@click.option(
    "--traceback",
    "traceback_",
    is_flag=True,
    envvar="GALBATCH_TRACEBACK",
    help="Show the whole traceback when something goes wrong.",
)
@click.pass_context
def cli(ctx: click.Context, traceback_: bool) -> None:
    """Posterior samples of deconvolved galaxy images, and their morphology with error bars.

    First run:  galbatch process catalogs/demo.parquet

    Exit codes: 0 ok, 1 bad input or usage (nothing started), 3 finished with some sources failed,
    4 stopped and resumable.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (``sys.argv[1:]`` when None) and return its exit code; never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    show = warnings.showwarning
    warnings.showwarning = _warn_once(set())
    try:
        result = cli.main(arguments, prog_name="galbatch", standalone_mode=False)
        return result if isinstance(result, int) and not isinstance(result, bool) else OK
    except BaseException as error:
        asked = os.environ.get("GALBATCH_TRACEBACK", "") not in ("", "0")
        return _report(error, asked or "--traceback" in arguments, arguments)
    finally:
        warnings.showwarning = show


def _run_among(arguments: Sequence[str]) -> str | None:
    """The run folder that a command is about."""
    marks = (".galbatch-run", "manifest.json")
    return next((a for a in arguments if any(os.path.isfile(os.path.join(a, mark)) for mark in marks)), None)


def _report(error: BaseException, with_traceback: bool, arguments: Sequence[str] = ()) -> int:
    """Say on stderr what ended the command, and return its exit code."""
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            _complain(error.code)
            return BAD_INPUT
        return error.code or OK
    if with_traceback and not isinstance(error, click.ClickException):
        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        error.show()
        return BAD_INPUT
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt):
        _complain(
            "interrupted. The same command goes on where it can ('train', 'simulate', 'fetch-tng'), "
            "'galbatch resume RUN' with a run that had begun."
        )
        return STOPPED
    if isinstance(error, click.exceptions.Abort):
        _complain("aborted.")
        return BAD_INPUT
    if isinstance(error, GalbatchError):
        _complain(str(error))
        return error.exit_code
    if remedy := limit_remedy(error):
        _complain(
            f"{error or type(error).__name__}. {remedy}; then give the same command again, or "
            "`galbatch resume RUN` for a run that had begun."
        )
        return STOPPED
    if isinstance(error, OSError) and error.filename:
        _complain(f"{error.filename}: {error.strerror}. Check the path, and that you may use it.")
        return BAD_INPUT
    _unexpected(error, _run_among(arguments), with_traceback)
    return BAD_INPUT


def _unexpected(error: BaseException, run: str | None, with_traceback: bool) -> None:
    """Say what is no error of galbatch's own: of a ``run``, most often, a damaged file."""
    if run:
        _complain(
            f"{run} cannot be read: {type(error).__name__}: {error}. `galbatch verify {run}` says what is "
            "damaged in it and what mends that. If it is sound, report this with what "
            "'galbatch --traceback ...' says."
        )
        return
    _complain(f"unexpected {type(error).__name__}: {error}")
    if not with_traceback:
        click.echo(
            "This is a bug in galbatch or in what it uses. Run 'galbatch --traceback ...' (or set "
            "GALBATCH_TRACEBACK=1) for the traceback to report.",
            err=True,
        )


def _complain(message: str) -> None:
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {message}", err=True)


def _warn_once(seen: set[str]) -> Callable[..., Any]:
    """A ``warnings.showwarning`` that prints each message once, without the source line."""

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        if str(message) not in seen:
            seen.add(str(message))
            click.echo(f"{click.style('Warning:', fg='yellow')} {message}", err=True)

    return showwarning
