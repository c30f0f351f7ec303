"""A batch of sources to stamps in every band, with the flags that say what is wrong with each pixel and
each source.

Each band's stamp is centred on its own pixel nearest to the source, which is pixel (h // 2, w // 2) of the
stamp. What a tile cannot give (edge, bad pixels) another tile that covers the source may. Segments are those
of all bands together, or of those that lead (``scene``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.cutouts.neighbours import describe_neighbours, masked_labels
from galbatch.cutouts.noise.variance import floor_variance
from galbatch.cutouts.raw import (
    Place,
    RawCut,
    cut_band,
    resample_acf,
    resample_labels,
    resample_psf,
    resample_stamps,
)
from galbatch.cutouts.scene import Scene, View, find_scene
from galbatch.cutouts.survey.tile import RawStamps
from galbatch.errors import ConfigError, GalbatchError, ReadError
from galbatch.types import PSF_ERROR_PARTS, BandStamps, Failure, Flag, StampBatch

if TYPE_CHECKING:
    from galbatch.cutouts.survey.files import BandGeometry, SurveyFiles

MASKED_LIMIT = 0.25
CORE_RADIUS_PIX = 1


def cut_batch(survey: SurveyFiles, sources: dict[str, np.ndarray], stamp_pix: int) -> StampBatch:
    """See ``Survey.cut``. Raises ``ConfigError`` only for a stamp size that the bands' ratios do not
    divide."""
    rows = {k: np.asarray(v) for k, v in sources.items()}
    parts = [_prepare(survey, band, rows, stamp_pix) for band in survey.band_names]
    leading = survey.config.segment_bands or survey.band_names
    views = [p.view(band in leading) for p, band in zip(parts, survey.band_names, strict=True)]
    scene = find_scene(views, rows.get("segmap_id"))
    bands = [_deliver(survey, part, scene, b) for b, part in enumerate(parts)]
    empty = np.array([b.mask.all(axis=(1, 2)) for b in bands])
    off = np.all([p.off for p in parts], axis=0)
    own = [b.flags for b in bands if b.flags is not None]
    flags = np.bitwise_or.reduce(own)
    flags |= np.where(empty.any(axis=0), int(Flag.BAND_MISSING), 0)
    flags = np.where(off, flags | int(Flag.OFF_IMAGE), flags & ~int(Flag.OFF_IMAGE))
    for of_band, missing in zip(own, empty, strict=True):
        of_band[missing] |= int(Flag.BAND_MISSING)
    unread = np.any([p.unread for p in parts], axis=0)
    bad_psf = np.all([(f & Flag.PSF_BAD) != 0 for f in own], axis=0)
    failures = {}
    for i in np.nonzero(empty.all(axis=0))[0].tolist():
        why = next((p.why[i] for p in parts if p.why[i]), "")
        failures[i] = _failure(rows, i, off[i], unread[i], bad_psf[i], why)
    return StampBatch(rows["source_id"], tuple(bands), flags, failures)


def _failure(
    rows: dict[str, np.ndarray], i: int, off: bool, unread: bool, bad_psf: bool, why: str
) -> Failure:
    sid = rows["source_id"][i]
    sid = sid.item() if hasattr(sid, "item") else sid
    if off and "ra" in rows and not (np.isfinite(rows["ra"][i]) and abs(rows["dec"][i]) <= 90):
        return Failure(
            sid, "cut", "BAD_POSITION", f"ra = {rows['ra'][i]}, dec = {rows['dec'][i]} is not a position"
        )
    if off and not unread:
        at = ", ".join(f"{k} = {rows[k][i]}" for k in ("ra", "dec", "x", "y", "tile") if k in rows)
        return Failure(sid, "cut", "OFF_IMAGE", f"{at} lies outside every image")
    if unread:
        return Failure(sid, "cut", "READ_ERROR", why or "the pixels could not be read")
    if bad_psf:
        return Failure(sid, "cut", "PSF_BAD", why or "the PSF cannot be used in any band")
    return Failure(sid, "cut", "ALL_MASKED", "no usable pixel in any band")


@dataclass
class _Prepared:
    """Stamps of a band before it is known what in them is whose. ``stamps``: fields of ``BandStamps``."""

    stamps: dict[str, Any]
    segmap: np.ndarray | None
    centre: np.ndarray
    cd: np.ndarray
    off: np.ndarray
    unread: np.ndarray
    why: list[str] = field(default_factory=list)

    def view(self, leads: bool) -> View:
        data, sigma, mask = (self.stamps[k] for k in ("data", "sigma", "mask"))
        return View(data, sigma, mask, self.segmap, self.centre, self.cd, self.stamps["ratio"], leads)


def _prepare(survey: SurveyFiles, band: str, rows: dict[str, np.ndarray], stamp_pix: int) -> _Prepared:
    """Stamps of a band with their flags, PSFs and WCS."""
    geometry = survey.geometry()[band]
    if stamp_pix % geometry.ratio:
        raise ConfigError(
            f"stamp_pix = {stamp_pix} is not a multiple of {geometry.ratio}, the ratio of band {band}'s "
            f"pixels to those of {survey.finest()}."
        )
    cut = cut_band(survey, band, rows, stamp_pix // geometry.ratio)
    step = geometry.step
    flags = _pixel_flags(cut.raw, cut.place) | _approximate(survey, band, cut.place)
    data, var, bad, segmap, acf = _planes(cut, survey.noise_acf(band), step)
    flags |= Flag.RESAMPLED if step != 1.0 else 0
    flags |= Flag.GRID_MISMATCH if survey.turned(band) else 0
    psf, ids, psf_flags, psf_scale = _psfs(survey, band, rows, cut.place, step, cut.why)
    unusable = (psf_flags & (Flag.PSF_BAD | Flag.READ_ERROR)) != 0
    bad = bad | unusable[:, None, None] | _beyond(rows.get("stamp_arcsec"), geometry, data.shape)
    delivered = geometry.delivered_scale_arcsec
    white, floor = _floors(survey, band, cut.place.tile, (data, var, bad, psf), psf_scale / delivered)
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(np.where(bad, np.inf, var if white is None else var + white)).astype(np.float32)
    stamps = {
        "band": band,
        "data": data,
        "sigma": sigma,
        "mask": bad,
        "psf": psf,
        "psf_id": ids,
        "pixel_scale_arcsec": delivered,
        "psf_scale_arcsec": psf_scale,
        "wcs": _wcs(survey, band, rows, cut, data.shape[1:], step),
        "noise_acf": acf,
        "ratio": geometry.ratio,
        "columns": {"err_scale": cut.scale.astype(np.float32), "error_floor": floor.astype(np.float32)},
        "sigma_white": None if white is None else np.sqrt(white).astype(np.float32),
        "flags": flags | psf_flags,
        "psf_error": _psf_error(survey, band, step),
    }
    cd = stamps["wcs"][:, 4:].reshape(-1, 2, 2).copy()
    cd[[t == "" or survey.tile(band, t).grid.wcs is None for t in cut.place.tile]] = np.nan
    unread = (stamps["flags"] & Flag.READ_ERROR) != 0
    return _Prepared(stamps, segmap, cut.centre(step), cd, cut.off, unread, cut.why)


def _planes(cut: RawCut, acf: np.ndarray | None, step: float) -> tuple[Any, ...]:
    """Data, variance, bad pixels, labels and the noise's correlation, on the stamp's pixels."""
    raw, size = cut.raw, cut.size
    data, var, bad, segmap = raw.data, raw.var, raw.bad | ~np.isfinite(raw.var), raw.segmap
    if step != 1.0:
        data, var, bad = resample_stamps(data, var, bad, size, size, step)
        acf, correlated = resample_acf(acf, step)
        var, acf = var * correlated, acf.astype(np.float32)
        segmap = None if segmap is None else resample_labels(segmap, size, size, step)
    return data, var, bad, segmap, acf


def _deliver(survey: SurveyFiles, part: _Prepared, scene: Scene, number: int) -> BandStamps:
    """The stamps of a band once the scene is known: neighbours masked, and what is said of them."""
    at, seg = part.stamps, scene.segs[number]
    bad, acf = at["mask"], at["noise_acf"]
    masked = [
        masked_labels(survey.config.neighbours, *of) for of in zip(seg, scene.touching[number], strict=True)
    ]
    found = describe_neighbours(
        at["data"], at["sigma"], bad, seg, 1.0 if acf is None else float(acf.sum()), masked
    )
    mask = bad | found.near
    sigma = np.where(mask, np.float32(np.inf), at["sigma"])
    valid = (~mask).mean(axis=(1, 2)).astype(np.float32)
    changed = {
        "sigma": sigma,
        "mask": mask,
        "seg": seg,
        "columns": {**at["columns"], **found.columns, "valid_frac": valid},
        "flags": at["flags"] | found.flags | np.where(scene.blended, int(Flag.BLENDED_SEG), 0),
        "to_scene": scene.maps[number],
    }
    return BandStamps(**{**at, **changed})


def _psf_error(survey: SurveyFiles, band: str, step: float) -> np.ndarray | None:
    """``PSF_ERROR_PARTS`` of a band in pixels of the stamp; None: exact."""
    known = survey.psf_error(band)
    lengths = [1 / step if unit.startswith("detector") else 1.0 for unit in PSF_ERROR_PARTS.values()]
    return None if known is None else (known * lengths).astype(np.float32)


def _floors(
    survey: SurveyFiles, band: str, tiles: np.ndarray, stamps: tuple, psf_step: float
) -> tuple[np.ndarray | None, np.ndarray]:
    """Variance (n, h, w) and size (n,) of the error floor, as each source's tile has it; None where no tile
    of the band has one."""
    settings = {t.name: t.error_floor for t in survey.band(band).tiles}
    floor = np.zeros(len(tiles))
    if not any(settings.values()):
        return None, floor
    white = np.zeros(stamps[0].shape)
    for name in sorted(set(tiles) - {""}):
        m = np.nonzero(tiles == name)[0]
        data, var, bad, psf = (a[m] for a in stamps)
        white[m], floor[m] = floor_variance(settings[name], data, var, bad, psf, psf_step)
    return white, floor


def _beyond(stamp_arcsec: np.ndarray | None, geometry: BandGeometry, shape: tuple[int, ...]) -> np.ndarray:
    """(n or 1, h, w): pixels outside the square of side ``stamp_arcsec`` (n,) that a row asks for, if any."""
    h, w = shape[1:]
    if stamp_arcsec is None:
        return np.zeros((1, h, w), bool)
    side = np.asarray(stamp_arcsec, float) / geometry.delivered_scale_arcsec
    half = np.where(np.isfinite(side) & (side > 0), np.maximum(side / 2, 1.0), np.inf)[:, None, None]
    y, x = np.abs(np.arange(h) - h // 2)[:, None], np.abs(np.arange(w) - w // 2)[None]
    return np.maximum(y, x)[None] > half


def _pixel_flags(raw: RawStamps, at: Place) -> np.ndarray:
    n, h, w = raw.data.shape
    cy, cx, r = h // 2, w // 2, CORE_RADIUS_PIX
    bad = raw.bad | ~np.isfinite(raw.var)
    core = np.s_[:, max(cy - r, 0) : cy + r + 1, max(cx - r, 0) : cx + r + 1]
    some, on = (1, 2), at.inside > 0
    lost_core = (raw.nonfinite | raw.zero_weight | raw.saturated)[core].mean(axis=some) > 0.5
    ring = ~bad[:, max(cy - 8, 0) : cy + 9, max(cx - 8, 0) : cx + 9]
    pairs = [
        (Flag.EDGE, raw.outside.any(axis=some) & on),
        (Flag.OFF_IMAGE, ~on & raw.ok),
        (Flag.NONFINITE, raw.nonfinite.any(axis=some)),
        (Flag.ZERO_WEIGHT, raw.zero_weight.any(axis=some)),
        (Flag.MASKED_CENTRE, bad[:, cy, cx] & on),
        (Flag.MASKED_FRACTION, (bad.mean(axis=some) > MASKED_LIMIT) & on),
        (Flag.SATURATED, raw.saturated[core].any(axis=some) | (lost_core & (ring.mean(axis=some) > 0.5))),
        (Flag.READ_ERROR, ~raw.ok),
    ]
    flags = np.zeros(n, np.int64)
    for flag, where in pairs:
        flags |= np.where(where, int(flag), 0)
    return np.where(raw.ok, flags, int(Flag.READ_ERROR))


def _psfs(
    survey: SurveyFiles, band: str, rows: dict[str, np.ndarray], at: Place, step: float, why: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """PSFs (n, p, p) of one size, ids, flags, scale. Sources without a tile get an empty PSF and no PSF
    flag."""
    n = len(at.x)
    images, ids, flags = (
        [np.zeros((1, 1), np.float32)] * n,
        np.full(n, "", dtype=object),
        np.zeros(n, np.int64),
    )
    scale = survey.geometry()[band].delivered_scale_arcsec
    for name in sorted(set(at.tile) - {""}):
        members = np.nonzero(at.tile == name)[0]
        try:
            provider = survey.tile(band, name).psf
        except GalbatchError as error:
            flags[members] |= Flag.READ_ERROR if isinstance(error, ReadError) else Flag.PSF_BAD
            for i in members.tolist():
                why[i] = why[i] or str(error)
            continue
        some, own, bad = provider.at({k: v[members] for k, v in rows.items()}, at.x[members], at.y[members])
        scale = provider.scale_arcsec
        if step != 1.0 and abs(scale / survey.geometry()[band].scale_arcsec - 1) < 1e-3:
            some, scale = [resample_psf(p, step) if p.sum() > 0 else p for p in some], scale * step
        for k, i in enumerate(members.tolist()):
            images[i], ids[i], flags[i] = some[k], own[k], bad[k]
    size = max((p.shape[0] for p in images), default=1)
    out = np.zeros((n, size, size), np.float32)
    for i, p in enumerate(images):
        start = (size - p.shape[0]) // 2
        out[i, start : start + p.shape[0], start : start + p.shape[1]] = p
    return out, ids, flags, scale


def _wcs(
    survey: SurveyFiles,
    band: str,
    rows: dict[str, np.ndarray],
    cut: RawCut,
    shape: tuple[int, ...],
    step: float,
) -> np.ndarray:
    out = np.full((len(cut.place.x), 8), np.nan)
    side = cut.raw.data.shape[1]
    for name in sorted(set(cut.place.tile) - {""}):
        m = np.nonzero(cut.place.tile == name)[0]
        ra, dec = (rows[k][m] if k in rows else np.zeros(len(m)) for k in ("ra", "dec"))
        grid = survey.tile(band, name).grid
        out[m] = grid.stamp_wcs(cut.first[m, 1], cut.first[m, 0], cut.place.x[m], cut.place.y[m], ra, dec)
    if step != 1.0:
        for k, size in ((0, shape[1]), (1, shape[0])):
            out[:, k] = (out[:, k] - 1 - side // 2) / step + size // 2 + 1
        out[:, 4:] *= step
    return out


def _approximate(survey: SurveyFiles, band: str, at: Place) -> np.ndarray:
    names = {name: survey.tile(band, name).approximate for name in set(at.tile) - {""}}
    return np.array([int(Flag.VARIANCE_APPROX) if names.get(t) else 0 for t in at.tile], np.int64)
