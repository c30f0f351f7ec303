"""``galbatch cutout``: one galaxy, no catalogue: a picture and a table."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from galbatch.cli.options import DRAWS, MODE, MODEL, OVERSAMPLE

ABOVE_0 = click.FloatRange(min=0, min_open=True)


@click.command("cutout")
@click.argument("image", type=click.Path(exists=True, dir_okay=False))
@click.option("--psf", type=click.Path(exists=True, dir_okay=False), help="PSF of the image (FITS). Needed.")
@click.option(
    "--err",
    type=click.Path(exists=True, dir_okay=False),
    help="Error (sigma) map  [default: that in the file of IMAGE, else measured on blank sky].",
)
@click.option("--ra", type=float, help="Right ascension of the galaxy in deg.")
@click.option("--dec", type=float, help="Declination in deg.")
@click.option("--x", type=float, help="Its pixel, counted from 0, in place of --ra and --dec.")
@click.option("--y", type=float, help="Its pixel, counted from 0.")
@click.option("--unit", help="Unit of the pixel values, where the header does not say: nJy, MJy/sr, ...")
@click.option("--zero-point", type=float, metavar="AB", help="AB zero point, in place of a unit.")
@click.option("--pixel-scale", type=ABOVE_0, metavar="ARCSEC", help="Size of a pixel, where there is no WCS.")
@click.option("--psf-scale", type=ABOVE_0, metavar="ARCSEC", help="Size of a pixel of the PSF.")
@click.option("--stamp-arcsec", type=ABOVE_0, metavar="X", help="Side of the stamp in arcsec.")
@click.option(
    "--out", metavar="NAME", help="Write NAME.png and NAME.ecsv  [default: IMAGE's name + .galbatch]."
)
@DRAWS
@MODE
@MODEL
@OVERSAMPLE
@click.option("--seed", type=int, default=0, help="Seed of all random numbers.")
def command(
    image: Any,
    psf: Any,
    err: Any,
    ra: Any,
    dec: Any,
    x: Any,
    y: Any,
    unit: Any,
    zero_point: Any,
    pixel_scale: Any,
    psf_scale: Any,
    out: str | None,
    **options: Any,
) -> int:
    """Deconvolve and measure one galaxy of IMAGE, without a catalogue or survey file.

    The galaxy is at --ra and --dec, or at --x and --y; without them it is the brightest source near the
    middle of the image. A picture (observed, posterior mean, spread, residual, draws) and a table (statistics
    with their calibrated intervals) are written.

    \b
    galbatch cutout galaxy.fits --psf psf.fits
    galbatch cutout mosaic.fits --psf psf.fits --ra 150.1163 --dec 2.2010 --mode default
    """
    from rich.console import Console

    from galbatch.report.figure import figure_source
    from galbatch.report.read import RunReader
    from galbatch.report.run_plots import statistics_table
    from galbatch.report.small import print_source
    from galbatch.run.single import cutout

    known = {
        "unit": unit,
        "zero_point_ab": zero_point,
        "pixel_scale_arcsec": pixel_scale,
        "psf_scale_arcsec": psf_scale,
    }
    options = {k: v for k, v in options.items() if v is not None}
    settings: dict[str, Any] = {k: v for k, v in known.items() if v is not None}
    name = out or Path(image).name.split(".fit")[0] + ".galbatch"
    if not Path(name).parent.is_dir():
        raise click.UsageError(f"--out {name}: there is no folder {Path(name).parent}. Make it first.")
    with tempfile.TemporaryDirectory(prefix="galbatch-") as folder:
        run = cutout(
            image,
            psf,
            folder,
            err=err,
            sky=_pair(ra, dec, "--ra", "--dec"),
            pixel=_pair(x, y, "--x", "--y"),
            settings=settings,
            on_message=lambda text: click.echo(text, err=True),
            **options,
        )
        source_id = run.ids[0]
        view = RunReader(run).view(source_id)
        print_source(view, Console())
        figure_source(view).savefig(f"{name}.png")
        statistics_table(run, source_id).write(f"{name}.ecsv", format="ascii.ecsv", overwrite=True)
    click.echo(f"{name}.png\n{name}.ecsv")
    return 0


def _pair(a: float | None, b: float | None, first: str, second: str) -> tuple[float, float] | None:
    if (a is None) != (b is None):
        raise click.UsageError(f"Give both {first} and {second}, or neither.")
    return None if a is None or b is None else (a, b)
