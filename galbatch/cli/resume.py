"""``galbatch resume``: go on with a run that was stopped."""

from __future__ import annotations

from typing import Any

import click

from galbatch.cli.options import RUN, execution_options
from galbatch.cli.process import finish


@click.command("resume")
@RUN
@click.option(
    "--force",
    is_flag=True,
    help="Go on although settings or inputs changed, if the results are stored as before.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Also run sources again that failed for a reason that may have passed.",
)
@click.option("--redo", metavar="N,N-M", help="Batches to compute again, as `galbatch verify` names them.")
@execution_options
def command(
    run: str, force: bool, retry_failed: bool, redo: str | None, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Finish the run in folder RUN with the settings it was started with.

    Batches that are committed are kept; the result is the same, byte for byte, as that of a run that was
    never stopped. Refused when an input or the model has changed since, unless --force.

    With --retry-failed, also of a finished run, batches are computed again in which a source failed, other
    than by OFF_IMAGE, BAD_POSITION or ALL_MASKED, or could not be read in one of its bands (READ_ERROR). The
    result is the same, byte for byte, as if it had never failed.
    """
    from galbatch.cli.progress import View
    from galbatch.run import resume

    with View("json" if as_json else "plain" if quiet else None) as view:
        done = resume(
            run,
            force=force,
            retry_failed=retry_failed,
            redo=batch_numbers(redo or ""),
            on_progress=view.progress,
            on_message=view.message,
            **{k: v for k, v in options.items() if v is not None},
        )
    return finish(done)


def batch_numbers(text: str) -> list[int]:
    """2, 5, 6, 7 for '2,5-7'. Raises a usage error for what is neither a number nor a range."""
    numbers: list[int] = []
    for piece in filter(None, map(str.strip, text.split(","))):
        first, _, last = piece.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise click.UsageError(f"--redo has {piece!r}: give numbers and ranges, like 2,5-7.")
        numbers += range(int(first), int(last or first) + 1)
    return numbers
