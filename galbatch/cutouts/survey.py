"""A survey opened: where sources lie, stamps of batches of them, what its files are and what is wrong with
them.

A ``Survey`` is small and can be sent to other processes: it holds the configuration, the pinned sizes and
times of its files, the geometry of the bands and the measured noise, and opens files when first needed there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from galbatch.cutouts.config import UNIFORM, BandConfig, SurveyConfig
from galbatch.cutouts.grid import RATIO_TOLERANCE, TURN_TOLERANCE, BandGeometry, Grid, geometry_of, grid_of
from galbatch.cutouts.images import ImagePool
from galbatch.cutouts.layout import PLANES
from galbatch.cutouts.noise import band_acf, local_scale, measure_survey, measure_tile, unmeasured
from galbatch.cutouts.place import place
from galbatch.cutouts.preflight import check_survey
from galbatch.cutouts.remote import FileStamp
from galbatch.cutouts.stamps import cut_batch
from galbatch.cutouts.survey_file import load_survey
from galbatch.cutouts.tile import Tile, open_tile
from galbatch.errors import InputError
from galbatch.types import Finding, Flag, StampBatch


@dataclass(frozen=True)
class Located:
    """Of (n,) sources: name of the tile in the finest band, x and y there (pixels from 0), flags (n,)
    int64."""

    tile: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flags: np.ndarray


def open_survey(
    config: SurveyConfig | str | Path, measured: dict | None = None, pins: dict[str, Any] | None = None
) -> Survey:
    """A survey from its configuration (or the path of its file); nothing is read yet.

    ``measured`` and ``pins``: from ``Survey.measured`` and ``Survey.pins`` of an earlier run.
    """
    if not isinstance(config, SurveyConfig):
        config = load_survey(config)
    return Survey(config, measured, pins)


class Survey:
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

    def tile(self, band: str, name: str) -> Tile:
        """An open tile. Raises ``InputError``/``ConfigError`` when its files cannot be used."""
        key = (band, name)
        if key not in self._tiles:
            spec = next(t for t in self.band(band).tiles if t.name == name)
            self._tiles[key] = open_tile(self.config, band, spec, self._pool)
        return self._tiles[key]

    def band(self, band: str) -> BandConfig:
        return next(b for b in self.config.bands if b.name == band)

    def geometry(self) -> dict[str, BandGeometry]:
        """Pixel scales and ratios of the bands, from the first tile of each. The finest band has ratio 1."""
        if self._geometry is None:
            self._geometry = geometry_of(self)
        return self._geometry

    def turned(self, band: str) -> float:
        """By how many degrees the band is turned against the finest band; 0 below a third of one."""
        geometry = self.geometry()
        angle = geometry[band].angle_deg - geometry[self.finest()].angle_deg
        return angle if abs(math.sin(math.radians(angle))) > TURN_TOLERANCE else 0.0

    def usable(self, band: str, name: str) -> bool:
        """Whether a tile can be opened; why not is kept in ``_broken``."""
        key = (band, name)
        if key not in self.broken:
            try:
                self.tile(band, name)
                self.broken[key] = ""
            except InputError as error:
                self.broken[key] = str(error)
        return not self.broken[key]

    def forget_failures(self) -> None:
        """Try tiles again that could not be opened."""
        self.broken = {key: why for key, why in self.broken.items() if not why}

    def sky_grid(self, band: str, name: str) -> Grid | None:
        """The grid of a tile from its science image alone; None if not even that can be read."""
        spec = next(t for t in self.band(band).tiles if t.name == name)
        try:
            sci = self._pool.open(spec.sci)
            return grid_of(sci.header, sci.shape, sci.path, spec.pixel_scale_arcsec)
        except InputError:
            return None

    def finest(self) -> str:
        """The first band with the smallest pixels: positions are stated in its pixels."""
        scales = {band: g.scale_arcsec for band, g in self.geometry().items()}
        return next(b for b, s in scales.items() if s <= min(scales.values()) * (1 + RATIO_TOLERANCE))

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

    def locate(
        self,
        ra: ArrayLike,
        dec: ArrayLike,
        tile: ArrayLike | None = None,
        x: ArrayLike | None = None,
        y: ArrayLike | None = None,
    ) -> Located:
        """Tile, pixel and pre-screen flags of (n,) sources: ra and dec in deg, or x and y in pixels of tile
        ``tile``.

        They refer to the finest band, or to the next that covers the source. OFF_IMAGE where no
        tile of any band holds the position (or it is not a position at all).
        """
        rows = {
            k: np.asarray(v)
            for k, v in {"ra": ra, "dec": dec, "tile": tile, "x": x, "y": y}.items()
            if v is not None
        }
        geometry = self.geometry()
        order = sorted(geometry, key=lambda b: (b != self.finest(), geometry[b].scale_arcsec))
        best = place(self, order[0], rows).first()
        for band in order[1:]:
            left = np.nonzero(best.inside <= 0)[0]
            if not len(left):
                break
            found = place(self, band, {k: v[left] for k, v in rows.items()}).first()
            for name in ("tile", "x", "y", "inside"):
                getattr(best, name)[left] = getattr(found, name)
        flags = np.where(best.inside > 0, 0, int(Flag.OFF_IMAGE)).astype(np.int64)
        return Located(best.tile, best.x, best.y, flags)

    def cut(self, sources: dict[str, np.ndarray], stamp_pix: int) -> StampBatch:
        """Stamps of a batch in every band. ``sources``: columns (n,) source_id, ra, dec (or x, y with pixel
        columns), and where they exist tile, psf_index, segmap_id, psf_x, psf_y. Never raises for a source:
        flags and failures."""
        return cut_batch(self, sources, stamp_pix)

    def measure_noise(self) -> dict:
        """Measure the noise of every tile whose err_scale or noise_acf is not stated, once; returns
        ``measured``."""
        measure_survey(self)
        return self.measured

    def err_scale(
        self, band: str, tile: str, x: np.ndarray | None = None, y: np.ndarray | None = None, size: int = 0
    ) -> float | np.ndarray:
        """The factor on sigma of a tile: given, or measured (now, if it was not before); (n,) around pixels
        (x, y) where the measurement found that it varies."""
        opened = self.tile(band, tile)
        given = opened.config.err_scale
        if given not in ("measure", "auto") and opened.noise != "exp":
            return float(given)
        entry = self.measured_tile(band, tile)
        scale = float(entry["err_scale"])
        if x is None or y is None or not entry.get("local"):
            return scale
        return local_scale(opened, x, y, size, scale)

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
        """(r, r) noise autocorrelation of a band, the mean over its tiles; None for white noise."""
        return band_acf(self, band)

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

    def check(self, columns: list[str] | None = None) -> list[Finding]:
        """What is wrong, or worth knowing, before a run. ``columns``: names of the catalogue's columns."""
        return check_survey(self, columns)


def _stat(path: str, pins: dict[str, FileStamp]) -> dict:
    if path in pins:
        return {"size": pins[path].size, "mtime_ns": pins[path].mtime_ns}
    try:
        info = Path(path).stat()
        return {"size": info.st_size, "mtime_ns": info.st_mtime_ns}
    except OSError:
        return {"size": None, "mtime_ns": None}
