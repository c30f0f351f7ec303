"""``galbatch verify``: is a run folder sound?"""

from __future__ import annotations

import click

from galbatch.cli.options import RUN
from galbatch.display import count


@click.command("verify")
@RUN
@click.option("--repair", "repairing", is_flag=True, help="First put a lost or damaged manifest.json back.")
def command(run: str, repairing: bool) -> int:
    """Compare every byte of the run in folder RUN with what was written, and its files with each other.

    Every changed, missing or added file is found, with the command that mends it. Exit code 0: sound; 1: not.
    """
    from galbatch.run import repair
    from galbatch.run.inspect import examine

    for line in repair(run) if repairing else []:
        click.echo(line)
    found = examine(run)
    for line in found.problems + found.notes:
        click.echo(line)
    rate = found.bytes / 1e6 / max(found.seconds, 1e-9)
    read = f"{found.files} files, {found.bytes / 1e9:.3g} GB at {rate:.0f} MB/s"
    said = count(len(found.problems), "problem") if found.problems else "sound"
    click.echo(f"{run}: {said} ({read})")
    if found.redo:
        click.echo(
            f"Mend all batches at once: galbatch resume {run} --redo {_ranges(sorted(set(found.redo)))}"
        )
    return 1 if found.problems else 0


def _ranges(numbers: list[int]) -> str:
    """'2,5-9' for 2, 5, 6, 7, 8, 9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
