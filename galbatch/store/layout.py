"""What the posterior store holds: the shape, type, unit and meaning of every array, known before any work
starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from galbatch.flags import FLAGS

SCHEMA_VERSION = 1
STATUS = ("pending", "ok", "flagged", "failed")
WCS_PARAMETERS = ("crpix1", "crpix2", "crval1", "crval2", "cd11", "cd12", "cd21", "cd22")
MASK_EXCLUDED, MASK_NEIGHBOUR = 1, 2
OF_PIXELS = ("observed", "sigma", "mask")
MADE_AGAIN = ("samples", "prior_driven", "model", *OF_PIXELS)


@dataclass(frozen=True)
class StoreLayout:
    """Sizes of a run's store, and what is kept in it.

    ``n_sources`` rows of the plan, ``batch`` sources per shard, ``stamp_pix`` detector pixels of the finest
    band along a side, ``oversample`` fine pixels a detector pixel of that band, ``pixel_ratio`` finest-band
    pixels along a side of each band's own pixel, ``pixel_scale_arcsec`` of each band, ``target_fwhm_pix`` in
    fine pixels. ``draw_columns``: the statistics of every draw are in the catalogue too. ``sides``: the
    sides, in these pixels, that stamps may have, ``stamp_pix`` the largest; () for that one alone. A smaller
    stamp lies in the middle of its place. ``samples``: the draws are stored; ``regenerate``: neither they are
    nor what is made again with them (``MADE_AGAIN``), but their hashes. ``wavelength_um`` of the bands where
    they are sampled together, so that draw k of every band is one galaxy; () where each is by itself.
    """

    n_sources: int
    batch: int
    draws: int
    bands: tuple[str, ...]
    stamp_pix: int
    oversample: int = 1
    samples: bool = True
    string_ids: bool = False
    pixel_ratio: tuple[int, ...] = ()
    pixel_scale_arcsec: tuple[float, ...] = ()
    target_fwhm_pix: float = 2.0
    draw_columns: bool = False
    sides: tuple[int, ...] = ()
    regenerate: bool = False
    wavelength_um: tuple[float, ...] = ()

    @property
    def joint(self) -> bool:
        """Whether the bands of a source are sampled together."""
        return bool(self.wavelength_um)

    @property
    def together(self) -> int:
        """How many bands are sampled together."""
        return len(self.bands) if self.joint else 1

    @property
    def n_batches(self) -> int:
        return -(-self.n_sources // self.batch)

    @property
    def n_padded(self) -> int:
        """Length of the source axis: whole shards only, because a partial shard needs read-modify-write."""
        return max(1, self.n_batches) * self.batch

    @property
    def fine_pix(self) -> int:
        return self.stamp_pix * self.oversample

    @property
    def common_pix(self) -> int:
        """Side of most stamps: the smallest."""
        return min(self.sides, default=self.stamp_pix)

    @property
    def said_of_stamps(self) -> str:
        """Their sides, in words."""
        if not self.sides:
            return f"{self.stamp_pix} pixels"
        return f"{self.common_pix} to {self.stamp_pix} pixels"

    def rows(self, batch: int) -> slice:
        """Where a batch lies on the source axis."""
        return slice(batch * self.batch, (batch + 1) * self.batch)

    def attributes(self) -> dict[str, Any]:
        """Attributes of the Zarr group: enough to read the store without the rest of the run folder."""
        own = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return own | {
            "galbatch_schema": SCHEMA_VERSION,
            "unit": "nJy per pixel",
            "pixel_centre": "integer, counted from 0",
            "flag_bits": {f.name: f.bit_length() - 1 for f in FLAGS},
        }

    @classmethod
    def from_attributes(cls, record: dict[str, Any]) -> StoreLayout:
        names = cls.__dataclass_fields__
        kept: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k in names
        }
        return cls(**kept)

    def sizes(self) -> dict[str, int]:
        """Length of every dimension name."""
        size = {
            "source": self.n_padded,
            "draw": self.draws,
            "band": len(self.bands),
            "y": self.fine_pix,
            "x": self.fine_pix,
            "wcs_parameter": len(WCS_PARAMETERS),
        }
        if self.oversample > 1:
            size.update(y_detector=self.stamp_pix, x_detector=self.stamp_pix)
        return size

    def kept(self, name: str) -> bool:
        """Is this array in the store?"""
        if name == "draws_hash":
            return self.regenerate
        if name == "stamp_pix":
            return bool(self.sides)
        return not (self.regenerate and name in MADE_AGAIN) and (self.samples or name != "samples")

    def arrays(self) -> dict[str, ArraySpec]:
        """Every per-source array of the store by name."""
        return {spec.name: spec for spec in self.every_array() if self.kept(spec.name)}

    def every_array(self) -> list[ArraySpec]:
        """All arrays that a store may have, as this one would have them."""
        text = {"source_id"} if self.string_ids else set()
        same = {f"{axis}_detector": axis for axis in ("y", "x")} if self.oversample == 1 else {}
        return [
            replace(
                spec,
                dims=tuple(same.get(dim, dim) for dim in spec.dims),
                dtype="str" if spec.name in text else spec.dtype,
            )
            for spec in ARRAYS
        ]

    def place(self, side: int, spec: ArraySpec | None = None) -> slice:
        """Where a stamp of ``side`` detector pixels of the finest band lies along an axis of an array, or of
        the detector."""
        fine = self.oversample if spec is not None and "y" in spec.dims else 1
        first = (self.stamp_pix - side) // 2 * fine
        return slice(first, first + side * fine)

    def predicted_bytes(self) -> int:
        """Expected size on disk: rounded noise compresses about 2.2-fold, the rest about 1.1-fold, and what
        is outside of stamps, most of which have the smallest side, to nothing."""
        size, total = replace(self, stamp_pix=self.common_pix).sizes(), 0.0
        for spec in self.arrays().values():
            count = float(np.prod([size[d] for d in spec.dims]))
            width = 16 if spec.dtype == "str" else np.dtype(spec.dtype).itemsize
            total += count * width / (2.2 if spec.rounded else 1.1)
        return int(total)


@dataclass(frozen=True)
class ArraySpec:
    """One array: its dimension names, type and meaning."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    description: str

    @property
    def is_image(self) -> bool:
        return len(self.dims) >= 4

    @property
    def rounded(self) -> bool:
        """Kept to 10 mantissa bits: far finer than the scatter of the draws, and half the bytes."""
        return self.name in ("samples", "mean", "std", "prior_driven", "model")

    @property
    def fill(self) -> str | float:
        if self.dtype == "str":
            return ""
        return np.nan if self.dtype.startswith("float") else 0

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        return tuple(sizes[d] for d in self.dims)


_FINE, _DETECTOR = ("source", "band", "y", "x"), ("source", "band", "y_detector", "x_detector")
ARRAYS = tuple(
    ArraySpec(*row)
    for row in (
        ("samples", ("source", "draw", "band", "y", "x"), "float32", "posterior draws, nJy per fine pixel"),
        ("mean", _FINE, "float32", "posterior mean, nJy per fine pixel"),
        ("std", _FINE, "float32", "posterior standard deviation, nJy per fine pixel"),
        ("prior_driven", _FINE, "float32", "0: the data dominate, 1: the prior does"),
        ("observed", _DETECTOR, "float32", "observed stamp, nJy per pixel of the finest band"),
        ("sigma", _DETECTOR, "float32", "its noise; inf where excluded"),
        (
            "model",
            _DETECTOR,
            "float32",
            "posterior mean seen by the telescope, nJy per pixel of the finest band",
        ),
        ("mask", _DETECTOR, "uint8", "bit 0: excluded from the fit; bit 1: belongs to a neighbour"),
        ("source_id", ("source",), "int64", "identifier of the catalogue"),
        ("status", ("source",), "uint8", "0 pending, 1 ok, 2 flagged, 3 failed"),
        ("flags", ("source",), "int64", "flag bits: see attribute flag_bits of the group"),
        ("chi2", ("source", "band"), "float32", "residual chi2 per valid pixel, mean over draws"),
        ("psf_id", ("source", "band"), "str", "which PSF was used"),
        (
            "wcs",
            ("source", "band", "wcs_parameter"),
            "float64",
            "FITS WCS (TAN, deg) of the band's own detector stamp: " + " ".join(WCS_PARAMETERS),
        ),
        (
            "stamp_pix",
            ("source",),
            "int32",
            "side of the source's own stamp in detector pixels of the finest band; nothing is outside",
        ),
        (
            "pixels_hash",
            ("source", "band"),
            "uint64",
            "of all that was cut for the source: pixels, noise, mask, segments, PSF",
        ),
        ("draws_hash", ("source", "band"), "uint64", "of the draws that were measured; 0: there are none"),
    )
)
