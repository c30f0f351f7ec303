"""``galbatch simulate``: mock galaxies and mock survey fields with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from galbatch.cli.options import FOLDER


@click.group(name="simulate")
def command() -> None:
    """Make mock galaxies and mock survey fields with known truth."""


@command.command("galaxies")
@click.option("--n", "number", type=click.IntRange(1), required=True, help="How many galaxies.")
@click.option("--out", type=FOLDER, required=True, help="Folder to fill.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    help="Series of galaxies: below 10000 for training, 1000000 and above for validation.",
)
@click.option("--start", type=click.IntRange(0), default=0, help="First index of the series.")
@click.option("--npix", type=click.IntRange(32, 1024), default=128, help="Image side, pixels.")
@click.option(
    "--redshift",
    type=click.FloatRange(0.001, 10.0),
    default=0.1,
    help="Redshift on the cards; it sets the angular scale.",
)
@click.option(
    "--bands",
    type=click.IntRange(1, 16),
    default=2,
    help="Bands per galaxy; if not 2, at wavelengths of its own, 0.2 to 2.5 micron.",
)
@click.option(
    "--law",
    type=click.IntRange(1, 2),
    default=1,
    help="1: what the shipped priors were trained on; 2: closer to TNG and HST galaxies.",
)
@click.option("--jobs", type=click.IntRange(1), default=1, help="Processes.")
def galaxies(number: int, out: Path, seed: int, **how: Any) -> None:
    """Write mock galaxies in the file layout of idealised TNG/SKIRT images.

    One file per galaxy, in two bands or more, noise-free and without PSF, and galaxies.ecsv with kind,
    inclination and half-light radius of each. Repeating the command goes on where it stopped.
    """
    from galbatch.cli.progress import counted
    from galbatch.simulate.skirt import write_galaxies

    with counted(number, "galaxies") as done:
        table = write_galaxies(out, number, seed, progress=done, **how)
    click.echo(f"{number} galaxies in {out}, listed in {table.name}")


@command.command("field")
@click.option(
    "--out", type=FOLDER, required=True, help="Folder for CATALOG.parquet, CATALOG.toml and the images."
)
@click.option("--name", default="demo", help="Stem of the catalogue and folder of images.")
@click.option("--n", "number", type=click.IntRange(1), default=48, help="How many galaxies.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1_000_000,
    help="Seed of galaxies and noise; training uses seeds below 10000.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing field of that name.")
def field(out: Path, name: str, number: int, seed: int, overwrite: bool) -> None:
    """Write a mock survey field in two NIRCam-like bands, with its catalogue, survey file and truth."""
    from galbatch.simulate.field_files import write_field

    paths = write_field(out, name=name, n=number, seed=seed, overwrite=overwrite)
    for path in paths:
        click.echo(str(path))
