"""Which tile of a band holds a source, and at which pixel: the tile whose edge is farthest wins, others
stay candidates. And do the sources of a catalogue lie on the images of a survey at all, and if not, why not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.errors import GalbatchError
from galbatch.types import Finding

if TYPE_CHECKING:
    from galbatch.cutouts.survey import Survey


@dataclass(frozen=True)
class Place:
    """Of (n,) sources in one tile each: tile name ('' if none), x, y (NaN if none), ``inside``: pixels to
    the edge."""

    tile: np.ndarray
    x: np.ndarray
    y: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True)
class Places:
    """Of (n,) sources in every tile (t, n) of a band: x, y, and ``inside`` (-inf where the tile is out of
    question); ``hidden`` (n,): why a tile that may hold the source cannot be used, '' if none."""

    names: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray
    inside: np.ndarray
    hidden: np.ndarray

    def first(self) -> Place:
        """The best tile of each source."""
        best = np.argmax(self.inside, axis=0)
        columns = np.arange(self.x.shape[1])
        return self.pick(best, columns)

    def pick(self, tile: np.ndarray, columns: np.ndarray) -> Place:
        """Tile number ``tile`` (n,) of sources ``columns`` (n,)."""
        inside = self.inside[tile, columns]
        known = inside > -np.inf
        names = np.array([*self.names, ""], dtype=object)[np.where(known, tile, -1)]
        return Place(
            names,
            np.where(known, self.x[tile, columns], np.nan),
            np.where(known, self.y[tile, columns], np.nan),
            np.where(inside > 0, inside, -np.inf),
        )


def place(survey: Survey, band: str, rows: dict[str, np.ndarray]) -> Places:
    """Positions of the sources of ``rows`` (ra, dec, or x, y; tile) in the tiles of ``band``.

    A row that names a tile is looked for there alone; with pixel columns and several tiles it must name one.
    """
    names = tuple(t.name for t in survey.band(band).tiles)
    n = len(next(iter(rows.values())))
    x, y = np.full((len(names), n), np.nan), np.full((len(names), n), np.nan)
    inside, hidden = np.full((len(names), n), -np.inf), np.full(n, "", dtype=object)
    wanted = np.array([_name(t) for t in rows["tile"]] if "tile" in rows else [""] * n, dtype=object)
    free = ~np.isin(wanted, names) & (not survey.config.pixel_columns or len(names) == 1)
    for k, name in enumerate(names):
        allowed = free | (wanted == name)
        if not survey.usable(band, name):
            hidden[allowed & _may_lie_in(survey, band, name, rows)] = survey.broken[band, name]
            continue
        grid = survey.tile(band, name).grid
        if survey.config.pixel_columns:
            x[k], y[k] = _from_pixels(survey, band, name, rows)
        else:
            x[k], y[k] = grid.to_pixel(rows["ra"], rows["dec"])
        inside[k] = np.where(allowed, grid.edge_distance(x[k], y[k]), -np.inf)
    return Places(names, x, y, inside, hidden)


def _may_lie_in(survey: Survey, band: str, name: str, rows: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) bool: positions inside an unusable tile; everywhere where not even its WCS can be read."""
    first, second = ("x", "y") if survey.config.pixel_columns else ("ra", "dec")
    known = np.isfinite(np.asarray(rows[first], float)) & np.isfinite(np.asarray(rows[second], float))
    grid = None if survey.config.pixel_columns else survey.sky_grid(band, name)
    return (
        known if grid is None else known & (grid.edge_distance(*grid.to_pixel(rows["ra"], rows["dec"])) > 0)
    )


def _name(value: Any) -> str:
    return "" if value is None else str(value)


def _from_pixels(
    survey: Survey, band: str, name: str, rows: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """x and y are pixels of the finest band: over the sky to other bands, or by the ratio of scales without
    a WCS."""
    x, y = np.asarray(rows["x"], float), np.asarray(rows["y"], float)
    finest = survey.finest()
    if band == finest:
        return x, y
    grid = survey.tile(band, name).grid
    fine = {t.name for t in survey.band(finest).tiles}
    origin = name if name in fine else next(iter(fine)) if len(fine) == 1 else None
    if origin is not None and survey.usable(finest, origin):
        base = survey.tile(finest, origin).grid
        if base.wcs is not None and grid.wcs is not None:
            return grid.to_pixel(*base.to_sky(x, y))
        step = grid.scale_arcsec / base.scale_arcsec
        return (x + 0.5) / step - 0.5, (y + 0.5) / step - 0.5
    return np.full(x.shape, np.nan), np.full(x.shape, np.nan)


LEAST_INSIDE = 0.05


def check_footprint(survey: Survey, batches: Iterable[tuple[int, dict[str, np.ndarray]]]) -> list[Finding]:
    """Count the sources inside each band; ``batches`` as from ``Catalog.batches``.

    Level 'error' when fewer than ``LEAST_INSIDE`` of all sources lie inside any band: a run would be
    not worth starting.
    """
    total, anywhere = 0, 0
    sample: dict[str, np.ndarray] = {}
    inside = dict.fromkeys(survey.band_names, 0)
    try:
        survey.geometry()
        for _, rows in batches:
            hits = {b: place(survey, b, rows).inside.max(axis=0) > 0 for b in survey.band_names}
            for band, hit in hits.items():
                inside[band] += int(hit.sum())
            any_band = np.any(list(hits.values()), axis=0)
            anywhere, total = anywhere + int(any_band.sum()), total + len(any_band)
            sample = sample or rows
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
        found = f"{total - anywhere} of {total} sources lie outside every image"
        remedy = "They fail in the run (OFF_IMAGE); all others are processed."
        out.append(Finding("warn", "footprint", "catalogue", found, remedy))
    return out


def _why(survey: Survey, rows: dict[str, np.ndarray]) -> str:
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
    for spec in survey.band(name).tiles:
        if survey.usable(name, spec.name):
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
