"""Do the sources of a catalogue lie on the images of a survey, and if not, why not."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from galbatch.cutouts.place import place
from galbatch.errors import GalbatchError
from galbatch.types import Finding

LEAST_INSIDE = 0.05


def check_footprint(survey, batches: Iterable[tuple[int, dict[str, np.ndarray]]]) -> list[Finding]:
    """Count the sources inside each band; ``batches`` as from ``Catalog.batches``.

    Level 'error' when fewer than ``LEAST_INSIDE`` of all sources lie inside any band: a run would be
    not worth starting.
    """
    total, anywhere, sample = 0, 0, None
    inside = dict.fromkeys(survey.band_names, 0)
    try:
        survey.geometry()
        for _, rows in batches:
            hits = {b: place(survey, b, rows).inside.max(axis=0) > 0 for b in survey.band_names}
            for band, hit in hits.items():
                inside[band] += int(hit.sum())
            any_band = np.any(list(hits.values()), axis=0)
            anywhere, total = anywhere + int(any_band.sum()), total + len(any_band)
            sample = rows if sample is None else sample
    except GalbatchError as error:
        remedy = "Mend the tiles or the positions that are named, then check again."
        return [Finding("error", "footprint", survey.config.path, str(error), remedy)]
    if not total:
        return []
    found = f"{anywhere} of {total} sources lie on the images"
    if anywhere < LEAST_INSIDE * total:
        return [Finding("error", "footprint", survey.config.path, found, _why(survey, sample))]
    out = [Finding("info", "footprint", "catalogue", found, "Nothing to do: those are computed.")]
    for band, count in inside.items():
        if count < anywhere:
            found = f"{anywhere - count} sources of {anywhere} are not covered"
            out.append(Finding("warn", "footprint", band, found, "They lack this band (BAND_MISSING)."))
    if anywhere < total:
        found = f"{total - anywhere} sources lie outside every image"
        remedy = "They fail in the run (OFF_IMAGE); all others are processed."
        out.append(Finding("warn", "footprint", "catalogue", found, remedy))
    return out


def _why(survey, rows) -> str:
    """A guess that would put the sources of the first batch onto the images."""
    if survey.config.pixel_columns or not {"ra", "dec"} <= set(rows):
        return "Are x and y (and tile) those of the finest band's images?"
    ra, dec = np.asarray(rows["ra"], float), np.asarray(rows["dec"], float)
    guesses = {
        "ra and dec look swapped.": (dec, ra),
        "They look like radians: convert to degrees.": (np.degrees(ra), np.degrees(dec)),
        "ra looks like hours: multiply by 15.": (ra * 15, dec),
    }
    for text, (a, b) in guesses.items():
        found = place(survey, survey.finest(), {"ra": a, "dec": b}).inside.max(axis=0) > 0
        if found.mean() > 0.5:
            return text
    name, tile = survey.finest(), None
    for spec in survey._band(name).tiles:
        if survey._usable(name, spec.name):
            tile = survey.tile(name, spec.name)
            break
    if tile is None or tile.grid.wcs is None:
        return "Is it the right survey file?"
    ny, nx = tile.shape
    at = tile.grid.to_sky([(nx - 1) / 2], [(ny - 1) / 2])
    return (
        f"Is it the right survey file? {tile.images['sci'].path} is centred on ra {at[0][0]:.5f}, dec "
        f"{at[1][0]:.5f}; the first source is at {ra[0]:.5f}, {dec[0]:.5f}."
    )
