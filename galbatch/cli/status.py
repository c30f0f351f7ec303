"""``galbatch status``: how far a run is."""

from __future__ import annotations

import json
import shlex

import click

from galbatch.cli.options import RUN


@click.command("status")
@RUN
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def command(run: str, as_json: bool) -> int:
    """Say how far the run in folder RUN is, and what was flagged or failed."""
    from galbatch.run import status

    found = status(run)
    if as_json:
        click.echo(json.dumps(found, indent=1, default=str))
        return 0
    for line in lines(found):
        click.echo(line)
    return 0


def lines(found: dict) -> list[str]:
    """The status in a few lines."""
    done, total = found["sources"], found["planned"] or 0
    share = f" ({100 * done / total:.0f}%)" if total else ""
    text = [
        f"{found['run']}: {found['state']}",
        f"  {done} of {total} sources{share}, {found['batches_committed']} of {found['batches']} batches",
        f"  {found['ok']} ok, {found['flagged']} flagged, {found['failed']} failed",
        *([f"  flags: {', '.join(f'{k} {n}' for k, n in found['flags'].items())}"] if found["flags"] else []),
        f"  {found['catalog']}, bands {', '.join(found['bands'])}, {found['draws']} draws",
    ]
    if found["holder"]:
        text.append(f"  at work: host {found['holder'].get('host')}, pid {found['holder'].get('pid')}")
    elif found["state"] == "stopped":
        text.append(f"  go on with: galbatch resume {shlex.quote(found['run'])}")
    if found["replacement"]:
        text.append(
            f"  to be replaced by {found['replacement']}: galbatch resume {shlex.quote(found['replacement'])}"
        )
    if found["orphans"] and not found["holder"]:
        text.append(f"  {found['orphans']} temporary files of a killed process; resume removes them")
    return text
