"""Raw stamps of a batch of sources in one band, each from the tile that covers it best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.cutouts.place import Place, place
from galbatch.cutouts.resample import input_size
from galbatch.cutouts.tile import RawStamps, unreadable
from galbatch.errors import GalbatchError

if TYPE_CHECKING:
    from galbatch.cutouts.survey import Survey

_BOOLS = ("outside", "nonfinite", "zero_weight", "masked", "saturated")


@dataclass
class RawCut:
    """Raw stamps of one band for all (n,) sources of a batch, gathered from its tiles."""

    raw: RawStamps
    place: Place
    first: np.ndarray
    why: list[str]
    size: int


def cut_band(survey: Survey, band: str, rows: dict[str, np.ndarray], size: int) -> RawCut:
    """Cut from the best tile; where it covers a source only in part, try the other tiles and keep the best
    covered."""
    step = survey.geometry()[band].step
    side = size if step == 1.0 else input_size(size, step)
    places = place(survey, band, rows)
    n = places.x.shape[1]
    order = np.argsort(-places.inside, axis=0, kind="stable")
    raw, chosen, first, why = _empty(n, side), order[0].copy(), np.zeros((n, 2), np.int64), [""] * n
    score = np.full(n, -1.0)
    for rank in range(len(places.names)):
        tiles = order[rank]
        todo = np.nonzero((places.inside[tiles, np.arange(n)] > 0) & (score < 1.0))[0]
        for k in np.unique(tiles[todo]):
            members = todo[tiles[todo] == k]
            origin = np.stack(
                [np.floor(v[k, members] + 0.5).astype(np.int64) - side // 2 for v in (places.y, places.x)], 1
            )
            part = _read(survey, band, places.names[k], origin, side)
            good = np.where(part.ok, (~part.bad).mean(axis=(1, 2)), -0.5)
            better = good > score[members]
            _store(raw, part, members[better], better)
            first[members[better]], chosen[members[better]] = origin[better], k
            score[members[better]] = good[better]
            for j in members[~part.ok]:
                why[j] = part.error
    for i in np.nonzero((score < -0.9) & (places.hidden != ""))[0]:
        raw.ok[i], why[i] = False, places.hidden[i]
    return RawCut(raw, places.pick(chosen, np.arange(n)), first, why, size)


def _read(survey: Survey, band: str, name: str, origin: np.ndarray, side: int) -> RawStamps:
    try:
        scale = survey.err_scale(band, name, origin[:, 1] + side // 2, origin[:, 0] + side // 2, side)
    except GalbatchError as error:
        return unreadable(len(origin), side, side, str(error))
    photon = survey.photon_noise(band, name)
    return survey.tile(band, name).read(
        origin[:, 0], origin[:, 1], side, side, np.reshape(scale, (-1, 1, 1)), photon=photon
    )


def _empty(n: int, side: int) -> RawStamps:
    no: dict[str, Any] = {name: np.zeros((n, side, side), bool) for name in _BOOLS}
    no["outside"][:] = True
    return RawStamps(
        np.full((n, side, side), np.nan, np.float32),
        np.full((n, side, side), np.inf),
        **no,
        segmap=None,
        ok=np.ones(n, bool),
    )


def _store(raw: RawStamps, part: RawStamps, members: np.ndarray, chosen: np.ndarray) -> None:
    for name in ("data", "var", "ok", *_BOOLS):
        getattr(raw, name)[members] = getattr(part, name)[chosen]
    if part.segmap is not None:
        if raw.segmap is None:
            raw.segmap = np.zeros(raw.data.shape, np.int64)
        raw.segmap[members] = part.segmap[chosen]
