"""What a preflight says of the planes beside the science image: noise maps without a value, in another
unit or at odds with the scatter of blank sky (with the line of the survey file that mends it), files that a
setting names, a PSF as wide as the stamp, tiles that only the catalogue knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from galbatch.cutouts.fits.units import njy_per_unit, states_flux_unit
from galbatch.cutouts.noise.measure import MEASURED, lag_one, measure_tile, sampled_boxes
from galbatch.cutouts.survey.config import UNIFORM, subject_of
from galbatch.display import first_few
from galbatch.errors import GalbatchError, InputError
from galbatch.types import Finding

if TYPE_CHECKING:
    from galbatch.cutouts.survey.config import TileConfig
    from galbatch.cutouts.survey.files import SurveyFiles
    from galbatch.cutouts.survey.tile import Tile

SAMPLE_PIX, FEW = 256, 0.5  # side of the boxes that are looked at; share of usable pixels that is few
WIDEST = 0.5  # of the stamp's side: FWHM of a PSF beyond which a stamp holds no galaxy
OFF = 0.01  # relative difference of two units


def check_planes(survey: SurveyFiles, tile: Tile) -> list[Finding]:
    """Findings on an open tile's noise plane and PSF."""
    return [*_values(tile), *_unit(tile), *_width(survey, tile), *_acf_file(survey, tile)]


def check_tile_names(
    survey: SurveyFiles, batches: Iterable[tuple[int, dict[str, np.ndarray]]]
) -> list[Finding]:
    """An error for names in the catalogue's column ``tile`` that no band has."""
    known = {t.name for band in survey.config.bands for t in band.tiles} | {""}
    unknown: dict[str, int] = {}
    for _, rows in batches:
        if "tile" not in rows:
            return []
        names, counts = np.unique(np.asarray(rows["tile"]).astype(str), return_counts=True)
        for name, count in zip(names.tolist(), counts.tolist(), strict=True):
            if name not in known:
                unknown[name] = unknown.get(name, 0) + count
    if not unknown:
        return []
    some = first_few([repr(name) for name in unknown], 3)
    what = f"{sum(unknown.values())} rows name tiles that the survey file does not have: {some}"
    remedy = f"It has {', '.join(sorted(known - {''}))[:200]}: correct the column tile, or add the tile."
    return [Finding("error", "tile_name", "catalogue", what, remedy)]


def _values(tile: Tile) -> list[Finding]:
    (ny, nx), plane = tile.shape, tile.images[tile.noise]
    h, w = min(ny, SAMPLE_PIX), min(nx, SAMPLE_PIX)
    y0, x0 = np.array(sampled_boxes(ny, nx, h, w)).T
    if tile.noise == "exp" or tile.config.err == UNIFORM:  # subsampled: its own pixels
        return []
    try:
        image, noise = tile.images["sci"].boxes(y0, x0, h, w)[0], plane.boxes(y0, x0, h, w)[0]
    except GalbatchError:
        return []  # a read that fails may pass later: the run tries it again, and says so
    with np.errstate(invalid="ignore"):
        seen, good = np.isfinite(image) & (image != 0), np.isfinite(noise) & (noise > 0)
    share = float((seen & good).sum() / max(seen.sum(), 1))
    if not seen.any():
        where = "" if min(ny, nx) <= SAMPLE_PIX else " where it was looked at"
        what = f"{tile.images['sci'].path} has no pixel that is finite and not 0{where}"
        remedy = "Give the science image: the file may be empty, or name another plane with sci = FILE[EXT]."
        return [Finding("warn" if where else "error", "no_data", tile.subject, what, remedy)]
    if share >= FEW:
        return []
    what = f"{100 * (1 - share):.0f}% of the pixels with data have no {tile.noise} above 0 in {plane.path}"
    remedy = f"They cannot be used: give a map ({tile.noise}) with a positive value for every good pixel."
    return [Finding("error" if share == 0 else "warn", "noise_values", tile.subject, what, remedy)]


def _unit(tile: Tile) -> list[Finding]:
    """An error map must be in the unit of its image (a variance map in its square is not looked at)."""
    header, own = tile.images["err"].header if "err" in tile.images else {}, tile.images["sci"].header
    if tile.noise != "err" or not header.get("BUNIT") or header.get("BUNIT") == own.get("BUNIT"):
        return []
    if not (states_flux_unit(header) and states_flux_unit(own)):
        return []
    try:
        err, sci = (njy_per_unit(h, tile.grid.scale_arcsec) for h in (header, own))
    except GalbatchError:
        return []
    if abs(math.log(err / sci)) < OFF:
        return []
    mended = tile.config.err_scale in MEASURED
    what = f"the error map is in {header['BUNIT']!r} and its image in {own.get('BUNIT')!r}"
    what += "; the measured err_scale corrects this for the sky only" if mended else ""
    remedy = f"Convert the error map, or write err_scale = {err / sci:.6g}."
    return [Finding("warn" if mended else "error", "noise_unit", tile.subject, what, remedy)]


def _width(survey: SurveyFiles, tile: Tile) -> list[Finding]:
    try:
        side = survey.stamp_pix() * survey.geometry()[survey.finest()].scale_arcsec
    except GalbatchError:
        return []
    width = tile.psf.fwhm_arcsec()
    if not width > WIDEST * side:
        return []
    what = f"the PSF has a FWHM of {width:.3f} arcsec, more than half of the stamp's {side:.2f}"
    remedy = f"Write stamp_arcsec = {math.ceil(8 * width)} or more, or correct psf_scale_arcsec."
    return [Finding("error", "psf_wide", tile.subject, what, remedy)]


def _acf_file(survey: SurveyFiles, tile: Tile) -> list[Finding]:
    if tile.config.noise_acf in (*MEASURED, "none"):
        return []
    try:
        survey.noise_acf(tile.band)
    except GalbatchError as error:
        remedy = 'Correct the path of noise_acf, or write noise_acf = "measure".'
        return [Finding("error", "noise_acf", tile.subject, str(error), remedy)]
    return []


DISAGREES = 1.15  # factor between the scatter of blank sky and what is used, or what the map says
CORRELATED = 0.1  # mean correlation with the next pixel that must not be ignored


def check_noise(survey: SurveyFiles, every_tile: bool = True) -> list[Finding]:
    """Findings on the noise maps of a survey, of one tile per band unless ``every_tile``.

    What was measured for the run is used; a tile whose noise is stated is measured to hold the statement to
    the sky.
    """
    out = []
    for band in survey.config.bands:
        tiles = survey.usable_tiles(band.name)
        for config in tiles if every_tile else tiles[:1]:
            out += _tile(survey, band.name, config)
    return out


def _tile(survey: SurveyFiles, band: str, config: TileConfig) -> list[Finding]:
    subject = subject_of(band, config.name)
    place = f"[bands.{band}]" if config.name == "0" else f"the table of tile {config.name} of [bands.{band}]"
    tile = survey.tile(band, config.name)
    stated = config.err_scale not in MEASURED and tile.noise != "exp"
    try:
        open_question = config.err_scale in MEASURED or config.noise_acf in MEASURED or tile.noise == "exp"
        entry = survey.measured_tile(band, config.name) if open_question else measure_tile(tile)
    except InputError as error:
        if stated and config.noise_acf not in MEASURED:
            return []  # all is stated, and there is no blank sky to hold it to
        remedy = f'In {place} write err_scale = 1.0 if the noise map is right, and noise_acf = "none".'
        what = str(error).removeprefix(f"{tile.subject}: ")
        return [Finding("error", "noise", subject, what, remedy)]
    if entry.get("why"):
        what = f"the noise map is used as it is, and as white: {entry['why'].split(': ', 1)[-1]}"
        remedy = f"If you know by how much the map is off, write err_scale = FACTOR in {place}."
        return [Finding("warn", "noise", subject, what, remedy)]
    return _judge(subject, place, config, entry, float(config.err_scale) if stated else None)


def _judge(subject: str, place: str, config: TileConfig, entry: dict, stated: float | None) -> list[Finding]:
    scale, lag = entry["err_scale"], lag_one(entry["noise_acf"])
    found = (
        f"blank sky scatters by {scale:.3f} of the noise map"
        f"{' (measured around each source)' if entry['local'] else ''}, correlation of neighbouring pixels "
        f"{lag:.2f}, {100 * entry['blank_frac']:.0f}% of the pixels are blank"
    )
    out = []
    if stated is not None and abs(math.log(scale / stated)) > math.log(DISAGREES):
        what = f"{found}; but err_scale = {stated:g} is used: all error bars are wrong by that factor"
        out.append(Finding("warn", "noise", subject, what, f"In {place} write: err_scale = {scale:.3f}"))
    elif config.err == UNIFORM:
        what = f"there is no error map; {found.replace('of the noise map', 'of its unit')}"
        remedy = "Nothing to do; with an error map (err = FILE) bright cores are weighted better."
        out.append(Finding("info", "noise", subject, what, remedy))
    elif stated is None and not entry["local"] and abs(math.log(scale)) > math.log(DISAGREES):
        sums = scale * math.sqrt(np.sum(entry["noise_acf"]))  # of the scatter of sums over many pixels
        allows = abs(math.log(sums)) < math.log(DISAGREES)
        why = "the map allows for this correlation, which the run models" if allows else "the map is wrong"
        what = f"{found}; {why}: the run multiplies it by {scale:.3f}"
        remedy = f"To skip the measurement, write err_scale = {scale:.3f} in {place}."
        out.append(Finding("warn", "noise", subject, what, remedy))
    if config.noise_acf == "none" and lag > CORRELATED:
        what = f'neighbouring pixels are correlated by {lag:.2f}, but noise_acf = "none" is used'
        out.append(Finding("warn", "noise_acf", subject, what, f'In {place} write: noise_acf = "measure"'))
    return out or [Finding("info", "noise", subject, found, "Nothing to do: this is what the run uses.")]
