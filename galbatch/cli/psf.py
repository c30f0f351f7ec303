"""``galbatch psf``: a PSF from stpsf."""

from __future__ import annotations

from pathlib import Path

import click

from galbatch.cli.options import FILE


@click.command("psf")
@click.argument("band", metavar="FILTER")
@click.option(
    "--angle", type=float, default=0.0, metavar="DEG", help="PA_APER of the exposures, if north is up."
)
@click.option("--instrument", default="NIRCam", help="NIRCam, NIRISS or MIRI.")
@click.option("--fov", type=float, default=5.0, metavar="ARCSEC", help="Side of the image.")
@click.option("--out", type=FILE, metavar="PSF.fits", help="The file to write  [default: FILTER_psf.fits].")
def command(band: str, angle: float, instrument: str, fov: float, out: Path | None) -> None:
    """Make the PSF of FILTER with stpsf, which must be installed, with its data.

    It includes the detector's pixels and is turned by --angle, as a drizzled mosaic is. It lacks the
    smoothing of the drizzle: compare it with stars of the mosaic, which make a better PSF.

    \b
    galbatch psf f200w --angle 20.5 --out f200w_psf.fits
    """
    from astropy.io import fits

    from galbatch.cutouts.psf.file import model_psf

    path = out or Path(f"{band.lower()}_psf.fits")
    if path.exists():
        raise click.UsageError(f"{path} exists, and is not replaced. Name another file with --out.")
    image, scale = model_psf(band, angle, instrument, fov)
    cards = {"PIXELSCL": scale, "FILTER": band.upper(), "INSTRUME": instrument.upper(), "ANGLE": angle}
    fits.PrimaryHDU(image.astype("f4"), fits.Header(cards)).writeto(path)
    click.echo(path)
