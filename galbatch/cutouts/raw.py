"""Which tile of a band holds a source, and at which pixel: the tile whose edge is farthest wins, others stay
candidates. Raw stamps of a batch of sources in one band, each from the tile that covers it best; those of a
band whose pixel scale is no integer multiple of the finest band's are brought to one by area overlap.

A target pixel gathers the flux of the pixels that it overlaps (drizzling with pixfrac 1, Fruchter & Hook
2002): flux is conserved, the variance is ``sum w^2 var`` and what the correlation of the input adds, a target
pixel is bad when any of it comes from a bad pixel. Output pixels share input pixels: their noise is
correlated, also where that of the input is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.cutouts.noise.measure import positive_definite
from galbatch.cutouts.survey.tile import CAUSES, RawStamps, unreadable
from galbatch.errors import GalbatchError

if TYPE_CHECKING:
    from galbatch.cutouts.survey.files import SurveyFiles


def overlap(n_out: int, n_in: int, step: float) -> np.ndarray:
    """(n_out, n_in) overlap, in input pixels, of output pixels ``step`` wide; the centres of pixels n // 2
    coincide."""
    low_out = (np.arange(n_out) - n_out // 2 - 0.5) * step
    low_in = np.arange(n_in) - n_in // 2 - 0.5
    low = np.maximum(low_out[:, None], low_in[None, :])
    high = np.minimum(low_out[:, None] + step, low_in[None, :] + 1.0)
    return np.clip(high - low, 0.0, None)


def input_size(n_out: int, step: float) -> int:
    """How many input pixels cover ``n_out`` output pixels, with one to spare on each side."""
    return 2 * int(np.ceil((n_out // 2 + 1) * step)) + 3


def resample_stamps(
    data: np.ndarray, var: np.ndarray, bad: np.ndarray, h: int, w: int, step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, hi, wi) data, variance and bad pixels to (n, h, w)."""
    wy, wx = overlap(h, data.shape[1], step), overlap(w, data.shape[2], step)

    def apply(a: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.einsum("ij,njk,lk->nil", y, a, x, optimize=True)

    touched = apply(bad.astype(np.float64), wy, wx) > 1e-9
    out = apply(np.where(bad, 0.0, data).astype(np.float64), wy, wx)
    spread = apply(np.where(bad, 0.0, var), wy**2, wx**2)
    return (np.where(touched, np.nan, out).astype(np.float32), np.where(touched, np.inf, spread), touched)


def resample_acf(acf: np.ndarray | None, step: float, lags: int = 7) -> tuple[np.ndarray, float]:
    """Of noise with autocorrelation ``acf`` (r, r) in input pixels (None: white) after ``resample_stamps``:
    its autocorrelation (lags, lags) in output pixels, the mean over their positions, and the factor by which
    its variance exceeds ``sum w^2 var``."""
    r = np.ones((1, 1)) if acf is None else np.asarray(acf, np.float64)
    reach, half = r.shape[0] // 2, lags // 2
    n = 40 + 2 * half
    weight = overlap(n, input_size(n, step), step)
    middle = weight[half : n - half]
    pairs = np.zeros((lags, 2 * reach + 1))  # mean over i of sum_j w(i, j) w(i + m, j + l)
    for m in range(lags):
        shifted = weight[m : m + len(middle)]
        for k in range(-reach, reach + 1):
            pairs[m, k + reach] = np.mean(np.sum(middle * np.roll(shifted, -k, axis=1), axis=1))
    covariance = pairs @ r @ pairs.T
    variance = covariance[half, half]
    white = pairs[half, reach] ** 2
    return positive_definite(covariance / variance), float(variance / white)


def resample_labels(labels: np.ndarray, h: int, w: int, step: float) -> np.ndarray:
    """(n, hi, wi) integers to (n, h, w) by the nearest pixel."""

    def index(n_out: int, n_in: int) -> np.ndarray:
        return np.clip(np.rint((np.arange(n_out) - n_out // 2) * step).astype(int) + n_in // 2, 0, n_in - 1)

    return labels[:, index(h, labels.shape[1])[:, None], index(w, labels.shape[2])[None, :]]


def resample_psf(psf: np.ndarray, step: float) -> np.ndarray:
    """(p, p) PSF at the input scale to (q, q), q odd, at the output scale; its sum is kept."""
    p = psf.shape[0]
    q = 2 * int(np.floor((p // 2) / step)) + 1
    weight = overlap(q, p, step)
    out = weight @ psf.astype(np.float64) @ weight.T
    return (out * (psf.sum() / out.sum())).astype(np.float32)


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


def place(survey: SurveyFiles, band: str, rows: dict[str, np.ndarray]) -> Places:
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


def _may_lie_in(survey: SurveyFiles, band: str, name: str, rows: dict[str, np.ndarray]) -> np.ndarray:
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
    survey: SurveyFiles, band: str, name: str, rows: dict[str, np.ndarray]
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


@dataclass
class RawCut:
    """Raw stamps of one band for all (n,) sources of a batch, gathered from its tiles; ``scale`` (n,): the
    factor on the noise map's sky."""

    raw: RawStamps
    place: Place
    first: np.ndarray
    scale: np.ndarray
    why: list[str]
    size: int

    @property
    def off(self) -> np.ndarray:
        """(n,) whether a source lies outside every tile."""
        return self.place.inside <= 0

    def centre(self, step: float) -> np.ndarray:
        """(n, 2) x, y of the sources in the stamp, whose pixels have ``step`` raw ones; NaN where off."""
        first = np.stack([self.place.x - self.first[:, 1], self.place.y - self.first[:, 0]], axis=1)
        centre = (first - self.raw.data.shape[1] // 2) / step + self.size // 2
        centre[self.off] = np.nan
        return centre


def cut_band(survey: SurveyFiles, band: str, rows: dict[str, np.ndarray], size: int) -> RawCut:
    """Cut from the best tile; where it covers a source only in part, try the other tiles and keep the best
    covered."""
    step = survey.geometry()[band].step
    side = size if step == 1.0 else input_size(size, step)
    places = place(survey, band, rows)
    n = places.x.shape[1]
    order = np.argsort(-places.inside, axis=0, kind="stable")
    raw, chosen, score = unreadable(n, side, side), order[0].copy(), np.full(n, -1.0)
    raw.ok[:] = True
    first, why, scale = np.zeros((n, 2), np.int64), [""] * n, np.full(n, np.nan)
    for rank in range(len(places.names)):
        tiles = order[rank]
        todo = np.nonzero((places.inside[tiles, np.arange(n)] > 0) & (score < 1.0))[0]
        for k in np.unique(tiles[todo]):
            members = todo[tiles[todo] == k]
            origin = np.stack(
                [np.floor(v[k, members] + 0.5).astype(np.int64) - side // 2 for v in (places.y, places.x)], 1
            )
            part, factor = _read(survey, band, places.names[k], origin, side)
            good = np.where(part.ok, (~part.bad).mean(axis=(1, 2)), -0.5)
            better = good > score[members]
            _store(raw, part, members[better], better)
            first[members[better]], chosen[members[better]] = origin[better], k
            scale[members[better]] = factor[better]
            score[members[better]] = good[better]
            for j in members[~part.ok]:
                why[j] = part.error
    for i in np.nonzero((score < -0.9) & (places.hidden != ""))[0]:
        raw.ok[i], why[i] = False, places.hidden[i]
    return RawCut(raw, places.pick(chosen, np.arange(n)), first, scale, why, size)


def _read(
    survey: SurveyFiles, band: str, name: str, origin: np.ndarray, side: int
) -> tuple[RawStamps, np.ndarray]:
    """Raw stamps (n, side, side) of a tile, and the factor (n,) on its noise map's sky."""
    n, middle = len(origin), origin + side // 2
    try:
        scale = np.broadcast_to(survey.err_scale(band, name, middle[:, 1], middle[:, 0], side), n)
    except GalbatchError as error:
        return unreadable(n, side, side, str(error)), np.full(n, np.nan)
    photon = survey.photon_noise(band, name)
    y0, x0 = origin.T
    raw = survey.tile(band, name).read(y0, x0, side, side, scale[:, None, None], photon=photon)
    return raw, scale


def _store(raw: RawStamps, part: RawStamps, members: np.ndarray, chosen: np.ndarray) -> None:
    for name in ("data", "var", "ok", *CAUSES):
        getattr(raw, name)[members] = getattr(part, name)[chosen]
    if part.segmap is not None:
        if raw.segmap is None:
            raw.segmap = np.zeros(raw.data.shape, np.int64)
        raw.segmap[members] = part.segmap[chosen]
