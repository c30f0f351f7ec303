"""One galaxy without a catalogue: ``galbatch cutout``. A survey file and a catalogue of one row are made in a
folder of their own, and a run like any other is made of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from galbatch.cutouts import load_survey, open_survey
from galbatch.cutouts.propose.folder import propose_one
from galbatch.cutouts.survey.read import open_questions
from galbatch.errors import ConfigError, InputError
from galbatch.run.start import process
from galbatch.store import Run

CENTRAL = 1 / 3  # of the image's side: where the source is looked for when no position is given
LARGEST_PIX = 3000  # side of an image whose middle is its source
SMOOTH_PIX = 2.0
NO_PSF = (
    "--psf is missing: the PSF of the image says what to deconvolve, and cannot be guessed. Make one from "
    "stars in the image (photutils.psf, PSFEx), with `galbatch psf` (JWST) or Tiny Tim (HST), or take that "
    "of the archive (HSC PSF picker); then: galbatch cutout {image} --psf psf.fits"
)
OPTIONS = {
    "psf_scale": "--psf-scale",
    "pixel_scale": "--pixel-scale",
    ".unit": "--unit",
    "zero": "--zero-point",
}
Position = tuple[float, float]


def cutout(
    image: str | Path,
    psf: str | Path | None,
    folder: str | Path,
    *,
    err: str | Path | None = None,
    sky: Position | None = None,
    pixel: Position | None = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> Run:
    """A finished run of the one source in ``folder``, which must be empty.

    ``sky``: (ra, dec) in deg; ``pixel``: (x, y) from 0; without either the brightest source near the middle
    of the image. ``settings``: lines of the survey file that the headers cannot say (``unit``,
    ``zero_point_ab``, ``psf_scale_arcsec``, ``pixel_scale_arcsec``). ``options``: of
    ``process``. Raises ``InputError`` or ``ConfigError`` that names what is missing and how to give it.
    """
    folder, image = Path(folder), Path(image)
    text = propose_one(
        image, None if psf is None else Path(psf), None if err is None else Path(err), folder, settings or {}
    )
    if psf is None and 'psf = "TODO' in text:
        raise InputError(NO_PSF.format(image=image))
    if questions := open_questions(text):
        said = [f"{image}: the headers do not say all that is needed:"]
        for question in map(str.strip, questions):
            said.append(question + next((f": give {o}" for key, o in OPTIONS.items() if key in question), ""))
        raise InputError("\n".join(said))
    (folder / "cutout.toml").write_text(text, encoding="utf-8")
    x, y = _position(folder / "cutout.toml", sky, pixel)
    (folder / "cutout.csv").write_text(f"source_id,x,y\n{_name(image)},{x!r},{y!r}\n", encoding="utf-8")
    chosen: dict[str, Any] = {"cluster": "none", "report": False} | options
    return process(folder / "cutout.csv", folder / "cutout.toml", folder / "cutout.run", **chosen)


def _name(image: Path) -> str:
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in image.name.split(".fit")[0]) or "source"


def _position(survey_file: Path, sky: Position | None, pixel: Position | None) -> Position:
    config = load_survey(survey_file)
    tile = open_survey(config).tile(config.bands[0].name, "0")
    ny, nx = tile.shape
    if sky is not None and pixel is not None:
        raise ConfigError("Give --ra and --dec, or --x and --y, not both.")
    if sky is not None:
        if tile.grid.wcs is None:
            raise InputError(f"{tile.images['sci'].path} has no WCS that can be used: give --x and --y.")
        x, y = (float(v[0]) for v in tile.grid.to_pixel([sky[0]], [sky[1]]))
        pixel = (x, y)
    if pixel is None:
        return _brightest(tile)
    if not (math.isfinite(pixel[0]) and -0.5 <= pixel[0] <= nx - 0.5 and -0.5 <= pixel[1] <= ny - 0.5):
        at = f"ra {sky[0]}, dec {sky[1]}" if sky else f"x {pixel[0]}, y {pixel[1]}"
        raise InputError(f"{at} is outside the image of {nx} x {ny} pixels: check the position.")
    return pixel


def _brightest(tile: Any) -> Position:
    """The peak of the smoothed image in the middle third of its sides."""
    ny, nx = tile.shape
    if max(ny, nx) > LARGEST_PIX:
        raise InputError(
            f"The image has {nx} x {ny} pixels: which source is meant? Give --ra and --dec, or --x and --y."
        )
    h, w = max(1, round(ny * CENTRAL)), max(1, round(nx * CENTRAL))
    y0, x0 = (ny - h) // 2, (nx - w) // 2
    data = tile.images["sci"].boxes([y0], [x0], h, w)[0][0]
    good = np.isfinite(data)
    if not good.any():
        raise InputError("The middle of the image has no finite pixel: give --ra and --dec, or --x and --y.")
    if np.ptp(data[good]) == 0:
        what = f"All pixels in the middle of the image are {data[good][0]:g}"
        raise InputError(f"{what}: give --ra and --dec, or --x and --y.")
    smooth = ndimage.gaussian_filter(np.where(good, data, 0.0), SMOOTH_PIX)
    y, x = np.unravel_index(np.argmax(np.where(good, smooth, -np.inf)), data.shape)
    return float(x0 + x), float(y0 + y)
