"""``galbatch plan``: what a run will take, from measured rates; writes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from galbatch.cli.options import BANDS, DRAWS, FILE, MODE, MODEL, OVERSAMPLE, SAMPLES, SURVEY, band_names
from galbatch.display import count


@click.command("plan")
@click.argument("catalog", type=click.Path(dir_okay=True))
@SURVEY
@BANDS
@DRAWS
@MODE
@OVERSAMPLE
@MODEL
@click.option("--stamp-pix", type=int, metavar="N", help="Side of the stamps in pixels of the finest band.")
@SAMPLES
@click.option(
    "--on",
    default="cpu1",
    metavar="DEVICES",
    help="cpu64 (cores), h200x8 (cards), or a finished run or a file of rates, with :N for N devices.",
)
@click.option(
    "--sources", "counts", type=int, multiple=True, metavar="N", help="As many sources as this; repeatable."
)
@click.option("--deadline", type=float, metavar="HOURS", help="Say how many devices meet it.")
@click.option("--price", type=float, default=0.0, metavar="X", help="Of one hour of one device.")
@click.option("--price-storage", type=float, default=0.0, metavar="X", help="Of one TB for a month.")
@click.option("--price-requests", type=float, default=0.0, metavar="X", help="Of a million requests.")
@click.option(
    "--save", type=FILE, metavar="FILE", help="Write the rates that were used to a file, for --on elsewhere."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line per number of sources.")
def command(
    catalog: str,
    survey: str | None,
    bands: str | None,
    on: Any,
    counts: Any,
    deadline: Any,
    save: Any,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what a run on CATALOG will take: hours, bytes, requests, money.

    Rates were measured, and are multiplied: in proportion to pixels and draws. Nothing is added for queues
    or for idle devices.

    \b
    galbatch plan catalogs/demo.parquet --on cpu64
    galbatch plan sources.parquet --on pilot.run:16 --sources 784000 --deadline 24 --price 0.04
    """
    from galbatch.bench.cost import Prices, cost, find_rates, save_rates, smallest_cluster, survey_of
    from galbatch.config import RunSettings

    prices = Prices(options.pop("price"), options.pop("price_storage"), options.pop("price_requests"))
    chosen = {k: v for k, v in options.items() if v is not None}
    if chosen["model"] == "auto":
        chosen["model"] = "small" if on.startswith("cpu") else "base"
    settings = RunSettings(catalog, survey or "", band_names(bands), **chosen)
    rates, devices = find_rates(on, settings.mode, options["model"])
    for number in counts or (None,):
        wanted = survey_of(settings, number)
        found = cost(rates, wanted, devices, prices)
        if deadline:
            found["devices_for_deadline"] = smallest_cluster(found["device_hours"], deadline)
        if as_json:
            click.echo(json.dumps({**asdict(wanted), "device": rates.device, "devices": devices, **found}))
        else:
            _say(wanted, rates, devices, found, deadline, prices)
    if save:
        save_rates(save, rates)
        click.echo(f"{save} written", err=True)


def _say(wanted: Any, rates: Any, devices: Any, found: Any, deadline: Any, prices: Any) -> None:
    device = "core" if rates.device == "cpu" else "card"
    lines = {
        "survey": f"{wanted.sources:,} sources in {wanted.bands} bands, {wanted.fine_pix} pixels per side, "
        f"{wanted.draws} draws, mode {rates.mode}, model {rates.model}",
        "rates": rates.source,
        "time": f"{_number(found['device_hours'])} {device}-hours: {_hours(found['wall_hours'])} "
        f"on {devices:,}",
        "read": f"at most {_bytes(found['read_bytes'])} in {found['read_requests']:,} requests: every stamp "
        "by itself",
        "write": f"{_bytes(found['written_bytes'])} in {found['write_requests']:,} files, of it catalogue "
        f"{_bytes(found['catalogue_bytes'])}",
    }
    if deadline:
        lines["deadline"] = f"{count(found['devices_for_deadline'], device)} for {_hours(deadline)}"
    if any(asdict(prices).values()):
        lines["money"] = f"{found['money']:,.2f}: devices, requests, and a month of storage"
    for name, line in lines.items():
        click.echo(f"{name:10} {line}")


def _number(value: float) -> str:
    """Three digits: '2,060', '14.2', '0.0215'."""
    if abs(value) < 100:
        return f"{value:.3g}"
    return f"{float(f'{value:.3g}'):,.0f}"


def _hours(hours: float) -> str:
    if hours > 48:
        return f"{_number(hours / 24)} days"
    return f"{hours:.3g} h" if hours > 1 else f"{60 * hours:.2g} min"


def _bytes(n: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n / 1e3:.3g} kB"
