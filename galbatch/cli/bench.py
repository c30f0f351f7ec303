"""``galbatch bench``: the throughput table of this machine."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="Model folder; the shipped prior when left out.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--backend", "backends", multiple=True, help="Backends of the network to compare; all when left out.")
@click.option("--seconds", default=0.5, show_default=True, help="Least time spent on each row.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a row, with commit, device and versions.")
def command(model, device, backends, seconds, as_json):
    """Measure the throughput of this machine.

    Each kernel is checked for correctness before it is timed. Quote ratios: a busy machine is slower as a whole.
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from galbatch.bench import environment, kernel_table
    from galbatch.prior import load_prior
    from galbatch.prior.compile import BACKENDS

    prior = load_prior(model, device=device)
    place = environment(prior.device)
    rows = []
    for row in kernel_table(prior, backends or BACKENDS, seconds):
        rows.append(row)
        if as_json:
            click.echo(json.dumps({**row, **place}))
    if not as_json:
        console = Console()
        table = Table("kernel", "rate", "per second", "ms each", "notes", title=f"{place['name']}, {place['threads']} threads")
        for row in rows:
            each = f"{1e3 / row['rate']:.3g}" if row["rate"] else "-"
            table.add_row(row["kernel"], f"{row['rate']:.4g}", row["unit"], each, _notes(row))
        console.print(table)
    raise SystemExit(0 if all(r["correct"] for r in rows if "note" not in r) else 3)


def _notes(row) -> str:
    out = [] if row["correct"] else [row.get("note", "WRONG RESULT")]
    if "roofline" in row:
        out.append(f"{row['gflop_per_image']:.2f} GFLOP, {100 * row['roofline']:.0f}% of the matrix product")
    if "network_share" in row:
        out.append(f"{row['evaluations']:.0f} evaluations, network {100 * row['network_share']:.0f}% of the time")
    return "; ".join(out)
