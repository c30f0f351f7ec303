"""The files of a survey, opened when first needed: its tiles, how the pixels of its bands go together, and
its noise.

They can be sent to other processes. What goes along is the configuration, the pinned sizes and times of the
files, the geometry of the bands and the measured noise.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.cutouts.fits.grid import Grid, grid_of
from galbatch.cutouts.fits.images import ImagePool
from galbatch.cutouts.fits.remote import FileStamp
from galbatch.cutouts.noise.measure import (
    MEASURED,
    acf_from_file,
    is_white,
    local_scale,
    measure_tile,
    unmeasured,
)
from galbatch.cutouts.survey.config import UNIFORM, BandConfig, SurveyConfig, TileConfig
from galbatch.cutouts.survey.layout import PLANES
from galbatch.cutouts.survey.tile import Tile, open_tile
from galbatch.errors import GalbatchError, InputError

RATIO_TOLERANCE, TURN_TOLERANCE = 2e-3, 5e-3


@dataclass(frozen=True)
class BandGeometry:
    """``scale_arcsec`` of the band's own pixels, ``ratio`` to the finest band, ``step``: own pixels to one
    delivered (1 unless resampled), ``angle_deg`` by which its pixels are turned (0 without a WCS)."""

    scale_arcsec: float
    ratio: int
    step: float
    angle_deg: float = 0.0

    @property
    def delivered_scale_arcsec(self) -> float:
        return self.scale_arcsec * self.step


class SurveyFiles:
    """See the module. ``measured``: {band: {tile: {"err_scale": float, "noise_acf": (r, r) list, ...}}}."""

    def __init__(
        self, config: SurveyConfig, measured: dict | None = None, pins: dict[str, Any] | None = None
    ) -> None:
        self.config = config
        self.measured: dict[str, dict[str, dict]] = measured or {}
        self._pins = {k: v if isinstance(v, FileStamp) else FileStamp(*v) for k, v in (pins or {}).items()}
        self._forget()

    def _forget(self) -> None:
        self._pool = ImagePool(self._pins)
        self._tiles: dict[tuple[str, str], Tile] = {}
        self.broken: dict[tuple[str, str], str] = {}
        self._geometry: dict[str, BandGeometry] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "measured": self.measured,
            "_pins": dict(self._pool.pins),
            "_known": self._geometry,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        known = state.pop("_known")
        self.__dict__.update(state)
        self._forget()
        self._geometry = known

    @property
    def pins(self) -> dict[str, list]:
        """{path: [size, mtime_ns, etag]} of the files opened so far, for JSON."""
        return {k: [v.size, v.mtime_ns, v.etag] for k, v in self._pool.pins.items()}

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(b.name for b in self.config.bands)

    def band(self, band: str) -> BandConfig:
        return next(b for b in self.config.bands if b.name == band)

    def _tile_config(self, band: str, name: str) -> TileConfig:
        return next(t for t in self.band(band).tiles if t.name == name)

    def tile(self, band: str, name: str) -> Tile:
        """An open tile. Raises ``InputError``/``ConfigError`` when its files cannot be used."""
        key = (band, name)
        if key not in self._tiles:
            self._tiles[key] = open_tile(self.config, band, self._tile_config(band, name), self._pool)
        return self._tiles[key]

    def psf_error(self, band: str) -> np.ndarray | None:
        """(5,) ``PSF_ERROR_PARTS`` of a band, lengths in detector pixels, the largest of its tiles'; None:
        exact. Where no number is given and all tiles have one PSF file, none is below the scatter of its
        PSFs."""
        tiles = self.band(band).tiles
        known = [np.array(t.psf_error) for t in tiles if t.psf_error]
        if known and all(t.psf_error_auto and t.psf == tiles[0].psf for t in tiles):
            with contextlib.suppress(GalbatchError):  # each source says it
                known.append(self.tile(band, tiles[0].name).psf.scatter)
        return np.max(known, axis=0) if known else None

    def usable(self, band: str, name: str) -> bool:
        """Whether a tile can be opened; why not is kept in ``broken``."""
        key = (band, name)
        if key not in self.broken:
            try:
                self.tile(band, name)
                self.broken[key] = ""
            except InputError as error:
                self.broken[key] = str(error)
        return not self.broken[key]

    def usable_tiles(self, band: str) -> list[TileConfig]:
        """Those of a band that can be opened."""
        return [t for t in self.band(band).tiles if self.usable(band, t.name)]

    def forget_failures(self) -> None:
        """Try tiles again that could not be opened."""
        self.broken = {key: why for key, why in self.broken.items() if not why}

    def sky_grid(self, band: str, name: str) -> Grid | None:
        """The grid of a tile from its science image alone; None if not even that can be read."""
        spec = self._tile_config(band, name)
        try:
            sci = self._pool.open(spec.sci)
            return grid_of(sci.header, sci.shape, sci.path, spec.pixel_scale_arcsec)
        except InputError:
            return None

    def geometry(self) -> dict[str, BandGeometry]:
        """Pixel scales and ratios of the bands, from the first tile of each that can be used. The finest band
        has ratio 1. Raises ``InputError`` where the tiles of a band have different scales, or none can be
        used."""
        if self._geometry is None:
            scales = {band.name: self._band_scale(band) for band in self.config.bands}
            finest, self._geometry = min(scales.values()), {}
            for band, scale in scales.items():
                ratio = max(1, round(scale / finest))
                step = finest * ratio / scale
                step = step if abs(step - 1) > RATIO_TOLERANCE else 1.0
                self._geometry[band] = BandGeometry(scale, ratio, step, self._angle(band))
        return self._geometry

    def _band_scale(self, band: BandConfig) -> float:
        tiles = self.usable_tiles(band.name) or band.tiles[:1]
        scales = [self.tile(band.name, t.name).grid.scale_arcsec for t in tiles]
        low, high = min(scales), max(scales)
        if high / low - 1 > RATIO_TOLERANCE:
            raise InputError(
                f"The tiles of band {band.name} have different pixel scales, {low:.5f} and {high:.5f} "
                "arcsec. Make them two bands."
            )
        return scales[0]

    def _angle(self, band: str) -> float:
        for t in self.usable_tiles(band):
            if (wcs := self.tile(band, t.name).grid.wcs) is not None:
                cd = wcs.pixel_scale_matrix
                return math.degrees(math.atan2(cd[0, 1], cd[1, 1]))
        return 0.0

    def turned(self, band: str) -> float:
        """By how many degrees the band is turned against the finest band; 0 below a third of one."""
        geometry = self.geometry()
        angle = geometry[band].angle_deg - geometry[self.finest()].angle_deg
        return angle if abs(math.sin(math.radians(angle))) > TURN_TOLERANCE else 0.0

    def finest(self) -> str:
        """The first band with the smallest pixels: positions are stated in its pixels."""
        return self.all_finest()[0]

    def all_finest(self) -> list[str]:
        """The bands with the smallest pixels."""
        scales = {band: g.scale_arcsec for band, g in self.geometry().items()}
        return [b for b, s in scales.items() if s <= min(scales.values()) * (1 + RATIO_TOLERANCE)]

    def stamp_pix(self, stamp_arcsec: float | None = None) -> int:
        """Side of a stamp in pixels of the finest band: at least ``stamp_arcsec`` (else the survey's), and
        a multiple of every ratio. Without either: the survey's stamp_pix, else 64."""
        geometry = self.geometry()
        multiple = math.lcm(*(g.ratio for g in geometry.values()))
        arcsec = stamp_arcsec or self.config.stamp_arcsec
        wanted = self.config.stamp_pix or 64
        if arcsec and not (self.config.stamp_pix and stamp_arcsec is None):
            wanted = math.ceil(arcsec / geometry[self.finest()].scale_arcsec - 1e-6)
        return -(-wanted // multiple) * multiple

    def measure_noise(self) -> dict:
        """Measure the noise of every tile whose err_scale or noise_acf is not stated, once; returns
        ``measured``."""
        for band in self.config.bands:
            for tile in self.usable_tiles(band.name):
                asked = tile.err_scale in MEASURED or tile.noise_acf in MEASURED
                if asked or self.tile(band.name, tile.name).noise == "exp":
                    self.measured_tile(band.name, tile.name)
        return self.measured

    def err_scale(
        self, band: str, tile: str, x: np.ndarray | None = None, y: np.ndarray | None = None, size: int = 0
    ) -> float | np.ndarray:
        """The factor on sigma of a tile: given, or measured (now, if it was not before); (n,) around pixels
        (x, y), see ``local_scale``."""
        opened = self.tile(band, tile)
        given = opened.config.err_scale
        if given not in MEASURED and opened.noise != "exp":
            return float(given)
        entry = self.measured_tile(band, tile)
        if x is None or y is None or not entry["n_blank"]:
            return float(entry["err_scale"])
        return local_scale(opened, x, y, size, entry)

    def photon_noise(self, band: str, tile: str) -> float:
        """Variance per light of a tile whose noise was measured, nJy; 0 where its map holds none."""
        return float(self.measured.get(band, {}).get(tile, {}).get("photon", 0.0))

    def measured_tile(self, band: str, tile: str) -> dict:
        if tile not in self.measured.get(band, {}):
            opened = self.tile(band, tile)
            try:
                entry = measure_tile(opened)
            except InputError as error:
                asked = (opened.config.err_scale, opened.config.noise_acf)
                if "measure" in asked or opened.noise == "exp" or opened.config.err == UNIFORM:
                    raise
                entry = unmeasured(str(error))
            self.measured.setdefault(band, {})[tile] = entry
        return self.measured[band][tile]

    def noise_acf(self, band: str) -> np.ndarray | None:
        """(r, r) noise autocorrelation of a band, the mean of its tiles by blank pixels, from a file where
        one is named; None for white noise: where none is stated, a measured one is only used if a lag of it
        is beyond chance."""
        tiles = self.usable_tiles(band)
        if not tiles or all(t.noise_acf == "none" for t in tiles):
            return None
        total, weights, white = np.zeros((1, 1)), 0.0, True
        for tile in tiles:
            if tile.noise_acf == "none":
                continue
            if tile.noise_acf in MEASURED:
                try:
                    entry = self.measured_tile(band, tile.name)
                except InputError:
                    continue
                acf, weight = np.array(entry["noise_acf"]), float(entry["n_blank"])
                if not weight:
                    continue
                white &= tile.noise_acf == "auto" and is_white(acf, weight)
            else:
                acf, weight, white = acf_from_file(tile.noise_acf), 1.0, False
            size = max(len(total), len(acf))
            total, weights = _padded(total, size) + weight * _padded(acf, size), weights + weight
        return None if white else (total / weights).astype(np.float32)

    def inputs(self) -> list[dict]:
        """One dict per file: role, band, tile, path, size, mtime_ns."""
        out = []
        for band in self.config.bands:
            for tile in band.tiles:
                for role in (*PLANES, "psf"):
                    plane = getattr(tile, role)
                    if plane is not None and plane != UNIFORM:
                        named = {"role": role, "band": band.name, "tile": tile.name, "path": plane.path}
                        out.append(named | {"ext": list(plane.ext)} | _stat(plane.path, self._pool.pins))
        return out


def _padded(acf: np.ndarray, size: int) -> np.ndarray:
    """``acf`` (r, r) with zeros at the lags beyond its own, (size, size)."""
    return np.pad(acf, (size - len(acf)) // 2)


def _stat(path: str, pins: dict[str, FileStamp]) -> dict:
    if path in pins:
        return {"size": pins[path].size, "mtime_ns": pins[path].mtime_ns}
    try:
        info = Path(path).stat()
        return {"size": info.st_size, "mtime_ns": info.st_mtime_ns}
    except OSError:
        return {"size": None, "mtime_ns": None}
