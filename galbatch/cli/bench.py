"""``galbatch bench``: the throughput table of this machine."""

from __future__ import annotations

from typing import Any

import click

from galbatch.cli.options import MODEL
from galbatch.cli.progress import wide_console


@click.command()
@MODEL
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--backend", "backends", multiple=True, help="Backends of the network to compare; all when left out."
)
@click.option(
    "--only",
    "groups",
    multiple=True,
    type=click.Choice(["network", "draws", "morphology", "storage"]),
    help="Only these rows (several times for several); all when left out.",
)
@click.option("--seconds", default=0.5, help="Least time spent on each row.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON line per row, with commit, device and versions."
)
def command(
    model: str, device: str, backends: tuple[str, ...], groups: tuple[str, ...], seconds: float, as_json: bool
) -> None:
    """Measure the throughput of this machine.

    Each kernel is checked for correctness before it is timed. Quote ratios: a busy machine is slower as a
    whole. All of it takes some ten minutes, most of them for compiling the network and for draws;
    --only storage a few seconds.
    """
    import json

    from galbatch.bench import GROUPS, environment, kernel_table
    from galbatch.prior import load_prior
    from galbatch.prior.compile import BACKENDS

    prior = load_prior(model, device=device)
    place = environment(prior.device)
    rows = []
    for row in kernel_table(prior, backends or BACKENDS, seconds, groups or GROUPS):
        rows.append(row)
        if as_json:
            click.echo(json.dumps({**row, **place}))
        else:
            click.echo(f"{row['kernel']}: {row['rate']:.4g} {row['unit']} per second", err=True)
    if not as_json:
        _print(rows, place)
    raise SystemExit(0 if all(r["correct"] for r in rows if "note" not in r) else 3)


def _print(rows: list[dict[str, Any]], place: Any) -> None:
    from rich.table import Table

    table = Table(
        "kernel",
        "rate",
        "per second",
        "ms each",
        "notes",
        title=f"{place['name']}, {place['threads']} threads",
    )
    for row in rows:
        each = f"{1e3 / row['rate']:.3g}" if row["rate"] else "-"
        table.add_row(row["kernel"], f"{row['rate']:.4g}", row["unit"], each, _notes(row))
    wide_console().print(table)


def _notes(row: dict[str, Any]) -> str:
    out = [] if row["correct"] else [row.get("note", "WRONG RESULT")]
    if "network_share" in row:
        out.append(
            f"{row['evaluations']:.0f} evaluations, network {100 * row['network_share']:.0f}% of the time"
        )
    return "; ".join(out)
