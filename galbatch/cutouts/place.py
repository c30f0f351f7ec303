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
    question)."""

    names: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray
    inside: np.ndarray

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
    """Positions of the sources of ``rows`` (ra, dec, or x, y; tile) in the tiles of ``band``."""
    names = tuple(t.name for t in survey._band(band).tiles)
    n = len(next(iter(rows.values())))
    x, y = np.full((len(names), n), np.nan), np.full((len(names), n), np.nan)
    inside = np.full((len(names), n), -np.inf)
    wanted = None if "tile" not in rows else np.array([_name(t) for t in rows["tile"]], dtype=object)
    if wanted is not None and not np.isin(wanted, names).any():
        wanted = None
    for k, name in enumerate(names):
        if not survey._usable(band, name):
            continue
        grid = survey.tile(band, name).grid
        if survey.config.pixel_columns:
            x[k], y[k] = _from_pixels(survey, band, name, rows, wanted)
        else:
            x[k], y[k] = grid.to_pixel(rows["ra"], rows["dec"])
        inside[k] = grid.edge_distance(x[k], y[k])
        if wanted is not None:
            inside[k] = np.where(wanted == name, inside[k], -np.inf)
    return Places(names, x, y, inside)


def _name(value) -> str:
    return "" if value is None else str(value)


def _from_pixels(survey, band: str, name: str, rows, wanted):
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
