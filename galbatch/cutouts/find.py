"""A catalogue where there is none: sources found on the images of a survey file (Bertin & Arnouts 1996).

A start for cutouts and small mosaics; a survey has a catalogue whose deblending was looked at.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from galbatch.cutouts.neighbours import DEBLEND_CONTRAST, DEBLEND_LEVELS
from galbatch.cutouts.survey import open_survey
from galbatch.cutouts.survey_file import load_survey
from galbatch.cutouts.tile import Tile
from galbatch.errors import InputError

THRESHOLD, LEAST_PIX = 5.0, 12  # sigma of the sky, and pixels above it, of a source
EDGE_PIX = 12  # a source nearer to the edge of its image is left out
LARGEST_PIX = 12_000  # side of an image that is read whole


def find_sources(survey: str | Path) -> dict[str, np.ndarray]:
    """Columns ``id``, ``ra`` and ``dec`` (deg), or ``tile``, ``x``, ``y`` where the catalogue must have
    pixels, of sources on the finest band, the brightest of an image first.

    Raises ``InputError`` when there is none, or an image is too large to be read whole."""
    config = load_survey(survey)
    opened = open_survey(config)
    band = opened.finest()
    found: dict[str, list[np.ndarray]] = {"tile": [], "x": [], "y": [], "ra": [], "dec": []}
    for spec in opened.band(band).tiles:
        tile = opened.tile(band, spec.name)
        x, y = _positions(tile)
        sky = (x * np.nan, y * np.nan) if tile.grid.wcs is None else tile.grid.to_sky(x, y)
        for name, values in zip(found, (np.full(len(x), spec.name), x, y, *sky), strict=True):
            found[name].append(values)
    columns = {name: np.concatenate(values) for name, values in found.items()}
    if not len(columns["x"]):
        raise InputError(f"{survey}: no source of {THRESHOLD:g} sigma in {band}: give a catalogue.")
    kept = ("tile", "x", "y") if config.pixel_columns else ("ra", "dec")
    return {"id": np.arange(1, len(columns["x"]) + 1)} | {name: columns[name] for name in kept}


def _positions(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """x, y of the sources of an image, the brightest first."""
    import sep

    ny, nx = tile.shape
    if max(ny, nx) > LARGEST_PIX:
        raise InputError(
            f"{tile.images['sci'].path}: {nx} x {ny} pixels, too many to look for sources: give a catalogue."
        )
    data = np.ascontiguousarray(tile.images["sci"].boxes([0], [0], ny, nx)[0][0], np.float32)
    bad = ~np.isfinite(data)
    data[bad] = 0.0
    sky = sep.Background(data, mask=bad)
    try:
        objects = sep.extract(
            data - sky.back(),
            THRESHOLD,
            err=sky.globalrms,
            mask=bad,
            minarea=LEAST_PIX,
            deblend_nthresh=DEBLEND_LEVELS,
            deblend_cont=DEBLEND_CONTRAST,
        )
    except Exception as error:  # sep has no class of its own for full buffers
        raise InputError(
            f"{tile.images['sci'].path}: sources cannot be told apart ({error}): give a catalogue."
        ) from error
    x, y = objects["x"], objects["y"]
    inside = (np.minimum(x, nx - 1 - x) >= EDGE_PIX) & (np.minimum(y, ny - 1 - y) >= EDGE_PIX)
    order = np.argsort(-objects["flux"][inside], kind="stable")
    return x[inside][order], y[inside][order]
