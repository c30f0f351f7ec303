"""Does a noise map agree with the sky? What a preflight says of it, with the line of the survey file that
mends it."""

from __future__ import annotations

import math

import numpy as np

from galbatch.cutouts.config import UNIFORM
from galbatch.cutouts.noise import MEASURED, measure_tile
from galbatch.errors import InputError
from galbatch.types import Finding

DISAGREES = 1.15  # factor between the scatter of blank sky and what is used, or what the map says
CORRELATED = 0.1  # mean correlation with the next pixel that must not be ignored


def check_noise(survey, every_tile: bool = True) -> list[Finding]:
    """Findings on the noise maps of a survey, of one tile per band unless ``every_tile``.

    What was measured for the run is used; a tile whose noise is stated is measured to hold the statement to
    the sky.
    """
    out = []
    for band in survey.config.bands:
        tiles = [t for t in band.tiles if survey._usable(band.name, t.name)]
        for config in tiles if every_tile else tiles[:1]:
            out += _tile(survey, band.name, config)
    return out


def _tile(survey, band: str, config) -> list[Finding]:
    subject = band if config.name == "0" else f"{band}, tile {config.name}"
    place = f"[bands.{band}]" if config.name == "0" else f"the table of tile {config.name} of [bands.{band}]"
    tile = survey.tile(band, config.name)
    stated = config.err_scale not in MEASURED and tile.noise != "exp"
    try:
        open_question = config.err_scale in MEASURED or config.noise_acf in MEASURED or tile.noise == "exp"
        entry = survey._measured_tile(band, config.name) if open_question else measure_tile(tile)
    except InputError as error:
        if stated and config.noise_acf not in MEASURED:
            return []  # all is stated, and there is no blank sky to hold it to
        return [
            Finding(
                "error",
                "noise",
                subject,
                str(error),
                f'In {place} write err_scale = 1.0 if the noise map is right, and noise_acf = "none".',
            )
        ]
    if entry.get("why"):
        return [
            Finding(
                "warn",
                "noise",
                subject,
                f"the noise map is used as it is, and as white: {entry['why'].split(': ', 1)[-1]}",
                f"If you know by how much the map is off, write err_scale = FACTOR in {place}.",
            )
        ]
    return _judge(subject, place, config, entry, float(config.err_scale) if stated else None)


def _judge(subject: str, place: str, config, entry: dict, stated: float | None) -> list[Finding]:
    scale, lag = entry["err_scale"], _lag_one(entry)
    found = (
        f"blank sky scatters by {scale:.3f} of the noise map"
        f"{' (measured around each source)' if entry['local'] else ''}, correlation of neighbouring pixels "
        f"{lag:.2f}, {100 * entry['blank_frac']:.0f}% of the pixels are blank"
    )
    out = []
    if stated is not None and abs(math.log(scale / stated)) > math.log(DISAGREES):
        out.append(
            Finding(
                "warn",
                "noise",
                subject,
                f"{found}; but err_scale = {stated:g} is used: all error bars are wrong by that factor",
                f"In {place} write: err_scale = {scale:.3f}",
            )
        )
    elif config.err == UNIFORM:
        what = f"there is no error map; {found.replace('of the noise map', 'of its unit')}"
        remedy = "Nothing to do; with an error map (err = FILE) bright cores are weighted better."
        out.append(Finding("info", "noise", subject, what, remedy))
    elif stated is None and not entry["local"] and abs(math.log(scale)) > math.log(DISAGREES):
        out.append(
            Finding(
                "warn",
                "noise",
                subject,
                f"{found}; the map is wrong, and the run multiplies it by {scale:.3f}",
                f"To have no need of the measurement, write in {place}: err_scale = {scale:.3f}",
            )
        )
    if config.noise_acf == "none" and lag > CORRELATED:
        out.append(
            Finding(
                "warn",
                "noise_acf",
                subject,
                f'neighbouring pixels are correlated by {lag:.2f}, but noise_acf = "none" is used',
                f'In {place} write: noise_acf = "measure"',
            )
        )
    return out or [Finding("info", "noise", subject, found, "Nothing to do: this is what the run uses.")]


def _lag_one(entry: dict) -> float:
    acf = np.array(entry["noise_acf"])
    middle = acf.shape[0] // 2
    return float(acf[middle, middle + 1] + acf[middle + 1, middle]) / 2 if middle else 0.0
