"""``galbatch verify``: is a run folder sound?"""

from __future__ import annotations

import click


@click.command("verify")
@click.argument("run", type=click.Path(file_okay=False))
@click.option("--repair", "repairing", is_flag=True, help="First put a lost or damaged manifest.json back.")
def command(run: str, repairing: bool) -> int:
    """Read every shard, part and row of the run in folder RUN against each other.

    Exit code 1 when anything is wrong, with one line for each problem.
    """
    from galbatch.run import repair, verify

    for line in repair(run) if repairing else []:
        click.echo(line)
    problems = verify(run)
    for line in problems:
        click.echo(line)
    click.echo(f"{run}: {len(problems)} problems" if problems else f"{run}: sound")
    return 1 if problems else 0
