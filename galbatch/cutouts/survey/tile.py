"""One band in one mosaic, opened: science, noise, mask and segmentation planes on one grid, in nJy per
pixel.

``read`` cuts boxes out of all planes at once; bad pixels are told apart by cause. No source of a batch can
make it raise: what cannot be read comes back as not ``ok``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from galbatch.cutouts.fits.grid import Grid, grid_of
from galbatch.cutouts.fits.images import ImagePool, OpenImage, UniformNoise
from galbatch.cutouts.fits.units import njy_per_unit, states_flux_unit
from galbatch.cutouts.noise.variance import Gain, exposure_boxes, gain_of, poisson, scale_sky, variance
from galbatch.cutouts.psf.provider import PsfProvider
from galbatch.cutouts.survey.config import UNIFORM, SurveyConfig, TileConfig, subject_of
from galbatch.cutouts.survey.layout import PLANES
from galbatch.errors import ConfigError, InputError

if TYPE_CHECKING:
    from galbatch.cutouts.fits.header import Header


CAUSES = ("outside", "nonfinite", "zero_weight", "masked", "saturated")


@dataclass
class RawStamps:
    """Boxes (n, h, w) of one tile: ``data`` nJy (NaN where not finite or outside), ``var`` nJy^2 (inf where
    unknown); bool planes by ``CAUSES``; ``segmap`` int64 or None; ``ok`` (n,) False where a file could not be
    read, with ``error``."""

    data: np.ndarray
    var: np.ndarray
    outside: np.ndarray
    nonfinite: np.ndarray
    zero_weight: np.ndarray
    masked: np.ndarray
    saturated: np.ndarray
    segmap: np.ndarray | None
    ok: np.ndarray
    error: str = ""

    @property
    def bad(self) -> np.ndarray:
        """Pixels that must not be used."""
        return self.outside | self.nonfinite | self.zero_weight | self.masked | self.saturated


@dataclass
class Tile:
    """A tile whose files are open. ``noise``: the noise plane in use; ``njy``: nJy per unit of the science
    image."""

    config: TileConfig
    band: str
    images: dict[str, OpenImage]
    grid: Grid
    njy: float
    noise: str
    poisson: str
    reject: int
    saturated_bits: int
    missing: list[str] = field(default_factory=list)
    _psf: PsfProvider | None = None

    @property
    def subject(self) -> str:
        return subject_of(self.band, self.config.name)

    @property
    def shape(self) -> tuple[int, int]:
        return self.images["sci"].shape

    @property
    def psf(self) -> PsfProvider:
        if self._psf is None:
            self._psf = PsfProvider(self.config, self.grid.scale_arcsec, self.subject)
        return self._psf

    @property
    def approximate(self) -> bool:
        """The variance lacks something: no error map, no exposure map though needed, no gain cards."""
        if self.poisson != "exposure":
            return self.poisson == "missing" or self.noise == "exp"
        return "exp" not in self.images or not self.gain.complete

    @property
    def gain(self) -> Gain:
        exp, sci = self.images["exp"], self.images["sci"]
        return gain_of(exp.header, sci.header, exp.shape, sci.shape)

    def read(
        self,
        y0: ArrayLike,
        x0: ArrayLike,
        h: int,
        w: int,
        err_scale: ArrayLike = 1.0,
        raw_var: bool = False,
        photon: float = 0.0,
    ) -> RawStamps:
        """Boxes with first pixels (y0, x0) (n,) int, also outside. ``err_scale`` multiplies sigma of the sky;
        ``photon``: variance per light of the tile, nJy."""
        y0, x0 = np.asarray(y0, np.int64), np.asarray(x0, np.int64)
        n, (ny, nx) = len(y0), self.shape
        rows, cols = y0[:, None] + np.arange(h), x0[:, None] + np.arange(w)
        outside = ~(((rows >= 0) & (rows < ny))[:, :, None] & ((cols >= 0) & (cols < nx))[:, None, :])
        try:
            sci, ok = self.images["sci"].boxes(y0, x0, h, w)
            var, good = self._variance(sci, y0, x0, err_scale, raw_var, photon)
            ok &= good
            masked, saturated, good = self._masks(sci, y0, x0)
            ok &= good
            weight, segmap = ~np.isfinite(var) | (sci == 0).all((1, 2), keepdims=True), None
            if "wht" in self.images and self.noise != "wht":
                wht, good = self.images["wht"].boxes(y0, x0, h, w)
                weight |= ~(wht > 0)
                ok &= good
            if "seg" in self.images:
                segmap, good = self.images["seg"].boxes(y0, x0, h, w, fill=0)
                ok &= good
        except InputError as error:
            return unreadable(n, h, w, str(error))
        data = finite_or_nan(sci, self.njy)
        nonfinite = np.isnan(data) & ~outside
        short = f"{self.images['sci'].path} or a file beside it ends before the stamp's pixels"
        return RawStamps(
            data,
            var * self.njy**2,
            outside,
            nonfinite,
            weight & ~outside,
            masked & ~outside,
            saturated & ~outside,
            segmap,
            ok,
            "" if ok.all() else short,
        )

    def _variance(
        self,
        sci: np.ndarray,
        y0: np.ndarray,
        x0: np.ndarray,
        err_scale: ArrayLike,
        raw_var: bool,
        photon: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of ``read``, in the tile's unit squared, and which boxes could be read."""
        h, w = sci.shape[1:]
        noise, ok = self.images[self.noise].boxes(y0, x0, h, w)
        if self.config.err_scale in ("measure", "auto") and self.noise in ("err", "var") and not raw_var:
            with np.errstate(invalid="ignore"):
                var = scale_sky(variance(self.noise, noise), sci, err_scale, photon / self.njy)
        else:
            var = variance(self.noise, noise, err_scale)
        if self.poisson == "exposure" and "exp" in self.images and not raw_var:
            exposure, good = exposure_boxes(self.images["exp"], y0, x0, h, w, self.gain.sample)
            ok = ok & good
            var = var + poisson(sci, exposure, self.gain)
        return var, ok

    def _masks(
        self, sci: np.ndarray, y0: np.ndarray, x0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        h, w = sci.shape[1:]
        masked, saturated, ok = np.zeros(sci.shape, bool), np.zeros(sci.shape, bool), np.ones(len(sci), bool)
        if "mask" in self.images:
            bits, ok = self.images["mask"].boxes(y0, x0, h, w, fill=0)
            masked = (bits & self.reject) != 0 if self.reject else bits != 0
            saturated = (bits & self.saturated_bits) != 0
        limit = self.config.saturation
        if limit is None:
            limit = self.images["sci"].header.get("SATURATE")
        if isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0:
            with np.errstate(invalid="ignore"):
                saturated |= sci >= limit
        return masked, saturated, ok


def open_tile(config: SurveyConfig, band: str, tile: TileConfig, pool: ImagePool) -> Tile:
    """Open and cross-check the files of a tile. Raises ``InputError`` or ``ConfigError`` naming the file at
    fault."""
    where = subject_of(band, tile.name)
    images, missing = _open_planes(tile, pool)
    sci = images["sci"]
    header = sci.header
    need_sky = not config.pixel_columns
    grid = grid_of(header, sci.shape, sci.path, tile.pixel_scale_arcsec, need_sky)
    for plane, image in images.items():
        if image.shape != sci.shape and plane != "exp":
            raise InputError(
                f"{image.path} ({plane} of {where}) has {image.shape} pixels, {sci.path} has {sci.shape}: "
                "all planes of a band lie on one grid."
            )
        if len(image.hdu.shape) != 2:
            raise InputError(f"{image.path} ({plane} of {where}) is a cube {image.hdu.shape}: name an image.")
    layout = config.layout
    noise = next((p for p in layout.noise_planes if p in images), None)
    if noise is None:
        raise ConfigError(
            f"{where} has no noise map that can be read; one of {', '.join(layout.noise_planes)} is needed."
        )
    unit, zero_point = tile.unit, tile.zero_point_ab
    if unit is None and zero_point is None and not states_flux_unit(header):
        unit, zero_point = layout.unit, layout.zero_point_ab
    njy = njy_per_unit(header, grid.scale_arcsec, unit, zero_point, f"{sci.path} ({where})")
    mask_header = images["mask"].header if "mask" in images else {}
    strict = tile.mask_bits != layout.mask_bits
    return Tile(
        tile,
        band,
        images,
        grid,
        njy,
        noise,
        "missing" if tile.err == UNIFORM else layout.poisson,
        _bit_mask(tile.mask_bits, mask_header, where, strict),
        _bit_mask(layout.saturated_bits, mask_header, where, False),
        missing,
    )


def _open_planes(tile: TileConfig, pool: ImagePool) -> tuple[dict[str, Any], list[str]]:
    """The images of a tile by plane, and the optional planes that could not be opened."""
    images: dict[str, Any] = {}
    missing: list[str] = []
    for plane in PLANES:
        spec = getattr(tile, plane)
        if spec is None:
            continue
        try:
            images[plane] = UniformNoise(images["sci"]) if spec == UNIFORM else pool.open(spec)
        except InputError:
            if not spec.optional:
                raise
            missing.append(plane)
    return images, missing


def _bit_mask(bits: int | tuple[int | str, ...], header: Header, where: str, strict: bool) -> int:
    """Bit numbers and names (MP_NAME cards) to an integer; 0: any bit."""
    if isinstance(bits, int):
        return bits
    out = 0
    for bit in bits:
        number = bit if isinstance(bit, int) else header.get(f"MP_{bit}".upper())
        if isinstance(number, int) and 0 <= number < 63:
            out |= 1 << number
        elif strict and header:
            known = ", ".join(k[3:] for k in header if k.startswith("MP_"))
            raise ConfigError(
                f"{where}: mask_bits names {bit!r}, which the mask's header does not define. It has: "
                f"{known or 'no MP_ cards; use bit numbers'}."
            )
    return out


def unreadable(n: int, h: int, w: int, error: str = "") -> RawStamps:
    """Boxes that could not be read, and why: nothing is on the image."""
    shape, causes = (n, h, w), [np.zeros((n, h, w), bool) for _ in CAUSES]
    causes[0][:] = True
    data, var = np.full(shape, np.nan, np.float32), np.full(shape, np.inf)
    planes: dict[str, Any] = dict(zip(CAUSES, causes, strict=True))
    return RawStamps(data, var, **planes, segmap=None, ok=np.zeros(n, bool), error=error)


def finite_or_nan(sci: np.ndarray, njy: float) -> np.ndarray:
    """Pixels in nJy, float32; NaN where not finite: a signalling NaN too, and what float32 cannot hold."""
    with np.errstate(invalid="ignore", over="ignore"):
        data = (sci * np.float32(njy)).astype(np.float32)
    data[~np.isfinite(data)] = np.nan
    return data
