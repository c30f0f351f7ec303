"""What a preflight says of the planes beside the science image: noise maps without a value or in another
unit, files that a setting names, a PSF as wide as the stamp, tiles that only the catalogue knows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from galbatch.cutouts.config import UNIFORM
from galbatch.cutouts.noise import MEASURED, sampled_boxes
from galbatch.cutouts.units import njy_per_unit, states_flux_unit
from galbatch.errors import GalbatchError
from galbatch.types import Finding

SAMPLE_PIX, FEW = 256, 0.5  # side of the boxes that are looked at; share of usable pixels that is few
WIDEST = 0.5  # of the stamp's side: FWHM of a PSF beyond which a stamp holds no galaxy
OFF = 0.01  # relative difference of two units


def check_planes(survey, tile) -> list[Finding]:
    """Findings on an open tile's noise plane and PSF."""
    return [*_values(tile), *_unit(tile), *_width(survey, tile), *_acf_file(survey, tile)]


def check_tile_names(survey, batches: Iterable[tuple[int, dict[str, np.ndarray]]]) -> list[Finding]:
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
    some = ", ".join(repr(n) for n in list(unknown)[:3]) + (", ..." if len(unknown) > 3 else "")
    return [
        Finding(
            "error",
            "tile_name",
            "catalogue",
            f"{sum(unknown.values())} rows name tiles that the survey file does not have: {some}",
            f"It has {', '.join(sorted(known - {''}))[:200]}: correct the column tile, or add the tile.",
        )
    ]


def _values(tile) -> list[Finding]:
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
    if not seen.any() or share >= FEW:
        return []
    what = f"{100 * (1 - share):.0f}% of the pixels with data have no {tile.noise} above 0 in {plane.path}"
    remedy = f"They cannot be used: give a {tile.noise} map with a positive value for every good pixel."
    return [Finding("error" if share == 0 else "warn", "noise_values", tile.subject, what, remedy)]


def _unit(tile) -> list[Finding]:
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
    return [
        Finding(
            "warn" if mended else "error",
            "noise_unit",
            tile.subject,
            f"the error map is in {header['BUNIT']!r} and its image in {own.get('BUNIT')!r}"
            + ("; the measured err_scale corrects this for the sky only" if mended else ""),
            f"Convert the error map, or write err_scale = {err / sci:.6g}.",
        )
    ]


def _width(survey, tile) -> list[Finding]:
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


def _acf_file(survey, tile) -> list[Finding]:
    if tile.config.noise_acf in (*MEASURED, "none"):
        return []
    try:
        survey.noise_acf(tile.band)
    except GalbatchError as error:
        remedy = 'Correct the path of noise_acf, or write noise_acf = "measure".'
        return [Finding("error", "noise_acf", tile.subject, str(error), remedy)]
    return []
