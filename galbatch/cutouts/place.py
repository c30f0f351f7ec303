"""Which tile of a band holds a source, and at which pixel: the tile whose edge is farthest wins, others
stay candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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


def place(survey, band: str, rows: dict[str, np.ndarray]) -> Places:
    """Positions of the sources of ``rows`` (ra, dec, or x, y; tile) in the tiles of ``band``.

    A row that names a tile is looked for there alone; with pixel columns and several tiles it must name one.
    """
    names = tuple(t.name for t in survey._band(band).tiles)
    n = len(next(iter(rows.values())))
    x, y = np.full((len(names), n), np.nan), np.full((len(names), n), np.nan)
    inside, hidden = np.full((len(names), n), -np.inf), np.full(n, "", dtype=object)
    wanted = np.array([_name(t) for t in rows["tile"]] if "tile" in rows else [""] * n, dtype=object)
    free = ~np.isin(wanted, names) & (not survey.config.pixel_columns or len(names) == 1)
    for k, name in enumerate(names):
        allowed = free | (wanted == name)
        if not survey._usable(band, name):
            hidden[allowed & _may_lie_in(survey, band, name, rows)] = survey._broken[band, name]
            continue
        grid = survey.tile(band, name).grid
        if survey.config.pixel_columns:
            x[k], y[k] = _from_pixels(survey, band, name, rows)
        else:
            x[k], y[k] = grid.to_pixel(rows["ra"], rows["dec"])
        inside[k] = np.where(allowed, grid.edge_distance(x[k], y[k]), -np.inf)
    return Places(names, x, y, inside, hidden)


def _may_lie_in(survey, band: str, name: str, rows) -> np.ndarray:
    """(n,) bool: positions inside an unusable tile; everywhere where not even its WCS can be read."""
    first, second = ("x", "y") if survey.config.pixel_columns else ("ra", "dec")
    known = np.isfinite(np.asarray(rows[first], float)) & np.isfinite(np.asarray(rows[second], float))
    grid = None if survey.config.pixel_columns else survey.sky_grid(band, name)
    return (
        known if grid is None else known & (grid.edge_distance(*grid.to_pixel(rows["ra"], rows["dec"])) > 0)
    )


def _name(value) -> str:
    return "" if value is None else str(value)


def _from_pixels(survey, band: str, name: str, rows):
    """x and y are pixels of the finest band: over the sky to other bands, or by the ratio of scales without
    a WCS."""
    x, y = np.asarray(rows["x"], float), np.asarray(rows["y"], float)
    finest = survey.finest()
    if band == finest:
        return x, y
    grid = survey.tile(band, name).grid
    fine = {t.name for t in survey._band(finest).tiles}
    origin = name if name in fine else next(iter(fine)) if len(fine) == 1 else None
    if origin is not None and survey._usable(finest, origin):
        base = survey.tile(finest, origin).grid
        if base.wcs is not None and grid.wcs is not None:
            return grid.to_pixel(*base.to_sky(x, y))
        step = grid.scale_arcsec / base.scale_arcsec
        return (x + 0.5) / step - 0.5, (y + 0.5) / step - 0.5
    return np.full(x.shape, np.nan), np.full(x.shape, np.nan)
