"""Options that several commands have, and the kinds of paths that options take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
KNOWN_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class RunFolder(click.Path):
    """The folder of a run, or its URL in a bucket."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as it is given."""
        return value if "://" in str(value) else super().convert(value, param, ctx)


KNOWN_RUN = click.argument("run", type=RunFolder(exists=True, file_okay=False))
RUN = click.argument("run", type=RunFolder(file_okay=False))
SURVEY = click.option(
    "--survey",
    metavar="S.toml",
    type=click.Path(),
    help="Survey file  [default: the catalogue's name with the ending .toml].",
)
BANDS = click.option("--bands", metavar="A,B", help="Use only these bands of the survey file.")
DRAWS = click.option("--draws", type=int, default=16, help="Posterior draws per source.")
MODEL = click.option(
    "--model",
    metavar="auto|small|base|PATH",
    default="auto",
    help="A shipped model or a model folder; 'auto': base with a CUDA card, else small.",
)
PRECISION = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    help="Of the network; 'auto': bfloat16 if the hardware supports it.",
)
MODE = click.option(
    "--mode",
    type=click.Choice(["fast", "default", "accurate"]),
    default="default",
    help="About 9, 14 or 36 network evaluations per draw.",
)

JOINT = click.option(
    "--joint/--separate",
    default=None,
    help="All bands of a source as one galaxy, or each by itself  [default: what the model is best at].",
)

OVERSAMPLE = click.option(
    "--oversample", type=int, default=1, metavar="N", help="Fine pixels along a side of a detector pixel."
)
SAMPLES = click.option(
    "--samples",
    type=click.Choice(["stored", "regenerate", "none"]),
    default="stored",
    help="What becomes of the draws; 'regenerate': made again from their seeds when they are asked for.",
)


def band_names(bands: str | None) -> tuple[str, ...]:
    """The names in ``--bands``; none for all bands."""
    return tuple(b.strip() for b in bands.split(",") if b.strip()) if bands else ()


class WorkerNumber(click.ParamType):
    """N, or LEAST:MOST, as (N, 0) or (LEAST, MOST)."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """The two numbers of a text."""
        least, between, most = str(value).partition(":")
        if not least.isdigit() or (between and not most.isdigit()):
            self.fail(f"{value!r} is neither a number of workers nor LEAST:MOST, like 2:8.", param, ctx)
        return int(least), int(most or 0)


def _workers(ctx: click.Context, param: click.Parameter, value: tuple[int, int] | None) -> None:
    """``workers`` and ``max_workers`` of the call."""
    if value is not None:
        ctx.params["workers"], ctx.params["max_workers"] = value


EXECUTION = (
    click.option(
        "--cluster",
        type=click.Choice(["auto", "none", "local", "cuda"]),
        default="auto",
        help="Where to compute; 'none' is serial, in this process.",
    ),
    click.option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler, e.g. tcp://host:8786."),
    click.option("--scheduler-file", metavar="F", help="Scheduler file of a running Dask scheduler."),
    click.option(
        "--workers",
        type=WorkerNumber(),
        callback=_workers,
        expose_value=False,
        metavar="N|LEAST:MOST",
        help="Worker processes; as many of LEAST to MOST as there is work for  [default: as many as fit].",
    ),
    click.option("--threads", type=int, default=1, metavar="N", help="Compute threads of each process."),
    click.option(
        "--dashboard",
        metavar="[HOST]:PORT",
        help="Address of the dashboard of a cluster that galbatch starts  [default: 127.0.0.1].",
    ),
    click.option(
        "--no-dask-report",
        "report",
        flag_value=False,
        default=True,
        type=bool,
        show_default=False,
        help="Do not write dask-report.html.",
    ),
    click.option(
        "--update", metavar="OLD", help="Take over from this run the sources of which nothing changed."
    ),
    click.option("--json", "as_json", is_flag=True, help="Log lines of JSON, for machines."),
    click.option("--quiet", is_flag=True, help="Plain lines instead of the live bar."),
)


def execution_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where and how a run is carried out; shared with ``resume``."""
    for option in reversed(EXECUTION):
        function = option(function)
    return function
