"""``galbatch bench``: the throughput table of this machine, and what a survey costs at the rates of a run."""

from __future__ import annotations

from pathlib import Path

import click

from galbatch.cli.process import MODEL
from galbatch.cli.progress import wide_console


@click.command()
@MODEL
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--backend", "backends", multiple=True, help="Backends of the network to compare; all when left out."
)
@click.option(
    "--only",
    "groups",
    multiple=True,
    type=click.Choice(["network", "operators", "draws", "morphology", "storage", "processes"]),
    help="Only these rows (several times for several); all but processes when left out.",
)
@click.option("--seconds", default=0.5, show_default=True, help="Least time spent on each row.")
@click.option(
    "--cost",
    "run",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Measure nothing: the cost of surveys at the rates of this finished run.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON line a row, with commit, device and versions."
)
def command(model, device, backends, groups, seconds, run, as_json):
    """Measure the throughput of this machine.

    Each kernel is checked for correctness before it is timed. Quote ratios: a busy machine is slower as a
    whole. All of it takes some ten minutes, most of them for compiling the network and for draws;
    --only operators a few seconds.
    """
    import json

    if run is not None:
        _cost(run, device, as_json)
        return
    from galbatch.bench import GROUPS, environment, kernel_table, process_table
    from galbatch.prior import load_prior
    from galbatch.prior.compile import BACKENDS

    prior = load_prior(model, device=device)
    place = environment(prior.device)
    rows, kernels = [], [g for g in groups or GROUPS if g != "processes"]
    tables = [kernel_table(prior, backends or BACKENDS, seconds, kernels)] if kernels else []
    if "processes" in groups:
        tables.append(process_table(model, place["cores"], max(seconds, 2.0)))
    for table in tables:
        for row in table:
            rows.append(row)
            if as_json:
                click.echo(json.dumps({**row, **place}))
            else:
                click.echo(f"{row['kernel']}: {row['rate']:.4g} {row['unit']} a second", err=True)
    if not as_json:
        _print(rows, place)
    raise SystemExit(0 if all(r["correct"] for r in rows if "note" not in r) else 3)


def _print(rows, place) -> None:
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


def _notes(row) -> str:
    out = [] if row["correct"] else [row.get("note", "WRONG RESULT")]
    if "roofline" in row:
        out.append(
            f"{row['gflop_per_image']:.2f} GFLOP, {row['mb_per_image']:.1f} MB, "
            f"{100 * row['roofline']:.0f}% of the roofline"
        )
    if "network_share" in row:
        out.append(
            f"{row['evaluations']:.0f} evaluations, network {100 * row['network_share']:.0f}% of the time"
        )
    if "times_one" in row:
        out.append(f"{row['times_one']:.2f} times one core")
    return "; ".join(out)


def _cost(run, device: str, as_json: bool) -> None:
    import json

    from rich.table import Table

    from galbatch.bench import cost_table, rates_of_run

    rates = rates_of_run(run, "cpu" if device == "auto" else device)
    rows = list(cost_table(rates))
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    cpu = rates.device == "cpu"
    hours, where = ("core", "GPU: not measured") if cpu else ("device", f"On {rates.device}, one device")
    title = f"One band, {rates.draws} draws, {rates.stamp_pix} px: {rates.total_s:.3g} {hours}-s a galaxy."
    title = f"{title} {where}"
    heads = (f"{hours}-hours", f"days on 1000 {hours}s", "store, TB", "without draws, TB", "catalogue, GB")
    table = Table("galaxies", *heads, title=title)
    for row in rows:
        names = (f"{hours}_hours", "days_on_1000", "store_tb", "store_without_draws_tb", "catalogue_gb")
        table.add_row(f"{row['galaxies']:,}", *(f"{row[name]:.3g}" for name in names))
    wide_console().print(table)
