"""A survey as it was asked for: frozen dataclasses, every path absolute, and their plain form for JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from galbatch.cutouts.fits.images import Plane
from galbatch.cutouts.survey.layout import PLANES, Layout, PlaneRule

UNIFORM = Plane("measure")  # in place of an error map: one sigma for the whole tile, measured on blank sky


@dataclass(frozen=True)
class TileConfig:
    """The files of one band in one mosaic, and what is known of them. Units are those of the keys of the
    survey file.

    ``err_scale``, ``noise_acf``: "measure" raises where too little sky is blank; "auto" then takes the noise
    map as it is, and the noise as white.
    """

    name: str
    sci: Plane
    psf: Plane
    err: Plane | None = None
    wht: Plane | None = None
    var: Plane | None = None
    exp: Plane | None = None
    mask: Plane | None = None
    seg: Plane | None = None
    mask_bits: int | tuple[int | str, ...] = ()
    pixel_scale_arcsec: float | None = None
    err_scale: float | str = "auto"
    noise_acf: str = "auto"
    zero_point_ab: float | None = None
    unit: str | None = None
    psf_scale_arcsec: float | None = None
    psf_frame: str | None = None
    psf_norm: str = "keep"
    psf_centre: str = "check"
    saturation: float | None = None
    error_floor: float | str = "measure"
    psf_error: tuple[float, ...] = ()
    psf_error_auto: bool = False


def subject_of(band: str, tile: str) -> str:
    """What findings and errors call a tile: by its band alone where the band has one."""
    return band if tile == "0" else f"{band}, tile {tile}"


@dataclass(frozen=True)
class BandConfig:
    """A band and its mosaics, at least one. ``wavelength_um``: None, what its name says."""

    name: str
    tiles: tuple[TileConfig, ...]
    wavelength_um: float | None = None


@dataclass(frozen=True)
class SurveyConfig:
    """A survey file, resolved: every path absolute, every default filled in. ``segment_bands``: those in
    which segments are found; () all."""

    name: str
    layout: Layout
    bands: tuple[BandConfig, ...]
    stamp_arcsec: float | None = None
    stamp_pix: int | None = None
    neighbours: str = "separate"
    pixel_columns: bool = False
    path: str = ""
    segment_bands: tuple[str, ...] = ()

    @property
    def stamp_auto(self) -> bool:
        """Whether the size of a source's stamp is found from its pixels."""
        return self.stamp_arcsec is None and self.stamp_pix is None

    def resolved(self) -> dict[str, Any]:
        """Plain dictionaries and lists, for JSON; ``from_resolved`` is its inverse."""
        return json.loads(json.dumps(asdict(self)))

    @staticmethod
    def from_resolved(table: dict[str, Any]) -> SurveyConfig:
        layout = dict(table["layout"])
        layout["planes"] = {k: PlaneRule(**_tuples(v)) for k, v in layout["planes"].items()}
        bands = tuple(
            BandConfig(**{**b, "tiles": tuple(_tile_from(t) for t in b["tiles"])}) for b in table["bands"]
        )
        own = {**_tuples(table), "layout": Layout(**_tuples(layout)), "bands": bands}
        return SurveyConfig(**own)


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}


def _tile_from(table: dict) -> TileConfig:
    table = _tuples(table)
    for key in (*PLANES, "psf"):
        if isinstance(table.get(key), dict):
            table[key] = Plane(**_tuples(table[key]))
    return TileConfig(**table)
