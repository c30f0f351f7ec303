"""``galbatch verify``: is a run folder sound?"""

from __future__ import annotations

import click


@click.command("verify")
@click.argument("run", type=click.Path(file_okay=False))
def command(run) -> int:
    """Read every shard, part and row of the run in folder RUN against each other.

    Exit code 1 when anything is wrong, with one line for each problem.
    """
    from galbatch.run import verify

    problems = verify(run)
    for line in problems:
        click.echo(line)
    click.echo(f"{run}: {len(problems)} problems" if problems else f"{run}: sound")
    return 1 if problems else 0
