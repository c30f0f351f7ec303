"""What a run holds of each source: its draws, images, masks and grades by id, wherever they are kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.errors import InputError, RunError
from galbatch.store.layout import OF_PIXELS, STATUS, ArraySpec, StoreLayout
from galbatch.store.manifest import read_manifest
from galbatch.store.paths import RunPaths, opened
from galbatch.store.posterior import open_store
from galbatch.store.selection import find_sources

if TYPE_CHECKING:
    from astropy.wcs import WCS

LEAST_LIGHT = 3.0  # of the noise of the sky in both bands: where a colour is shown
_KEPT_WHOLE = 1 << 16  # sources of a run up to which the positions of all are looked up at once


class Sources:
    """Per-source access to a run. Images are (band, y, x); pass ``band`` to get one band."""

    def __init__(self, paths: RunPaths, prior: Any = None) -> None:
        self.paths, self._prior = paths, prior
        self.manifest = read_manifest(paths)
        self._group = open_store(paths.posterior)
        self.layout = StoreLayout.from_attributes(dict(self._group.attrs))
        self._kept: dict[str, tuple[int, np.ndarray]] = {}
        self._positions: dict[str, int] = {}

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the axis ``band``."""
        return self.layout.bands

    @cached_property
    def ids(self) -> np.ndarray:
        """(n,) source ids by position in the store; rows of batches not done yet hold 0 or ''."""
        return self._arrays["source_id"][: self.layout.n_sources]

    def samples(self, source_id: int | str, band: str | None = None) -> np.ndarray:
        """Posterior draws of a source; made again, as by ``redraw``, where the run keeps their hashes only.

        Parameters
        ----------
        source_id : int or str
            Of a source that did not fail.
        band : str, optional
            One band; else all, in the order of ``bands``.

        Returns
        -------
        ndarray
            (draw, band, y, x) float32, nJy per fine pixel; (draw, y, x) with ``band``.

        Raises
        ------
        InputError
            Unknown source or band.
        RunError
            The run keeps no draws.

        Examples
        --------
        >>> flux = run.samples(run.ids[0], "f200w").sum(axis=(1, 2))  # of every draw, nJy
        """
        if not self.has_draws(source_id):
            raise RunError(
                f"{self.paths.root}: made with --samples none. Mean and std are there; make the draws again "
                f"with `galbatch draw {self.paths.quoted} {source_id}`, or run.redraw({source_id!r})."
            )
        values = self._entry("samples", source_id)
        return values if band is None else values[:, self.band_index(band)]

    def has_draws(self, source_id: int | str) -> bool:
        """Whether ``samples`` has draws of a source: stored, made again when asked for, or just made."""
        return self.layout.samples or self.layout.regenerate or self._redrawer.holds(source_id)

    def redraw(self, source_id: int | str) -> Any:
        """The draws of a source made again from their seeds and held to those that were measured: a
        ``Redraw`` with ``equal``, ``difference`` and ``line``. ``samples`` has them until the next source's.

        Raises ``RunError`` where the pixels or the model are not those of the run, or the draws differ by
        more than rounding.
        """
        return self._redrawer.draws(source_id)

    @cached_property
    def _redrawer(self) -> Any:
        return import_module("galbatch.run.redraw").Redrawer(self, self._prior)

    def mean(self, source_id: int | str, band: str | None = None) -> np.ndarray:
        """Posterior mean, nJy per fine pixel."""
        return self._read("mean", source_id, band)

    def std(self, source_id: int | str, band: str | None = None) -> np.ndarray:
        """Posterior standard deviation, nJy per fine pixel."""
        return self._read("std", source_id, band)

    def prior_driven(self, source_id: int | str, band: str | None = None) -> np.ndarray:
        """0 where the data decide, 1 where the prior does."""
        return self._read("prior_driven", source_id, band)

    def observed(self, source_id: int | str, band: str | None = None) -> np.ndarray:
        """The observed stamp on the finest band's detector grid, nJy per pixel (a coarser band is
        replicated)."""
        return self._read("observed", source_id, band)

    def sigma(self, source_id: int | str, band: str | None = None) -> np.ndarray:
        """Noise of ``observed``; inf where a pixel was excluded."""
        return self._read("sigma", source_id, band)

    def model(self, source_id: int | str, band: str | None = None) -> np.ndarray:
        """The posterior mean seen by the telescope (PSF and pixels), on the grid and in the unit of
        ``observed``."""
        return self._read("model", source_id, band)

    def mask(self, source_id: int | str, band: str | None = None) -> np.ndarray:
        """uint8: bit 0 excluded from the fit, bit 1 belongs to a neighbour."""
        return self._read("mask", source_id, band)

    def color_map(self, source_id: int | str, one: str, two: str) -> tuple[np.ndarray, np.ndarray]:
        """The colour of every pixel between two bands, with its error.

        Parameters
        ----------
        source_id : int or str
            Of a source whose draws the run has or can make again.
        one, two : str
            Bands: the colour is that of ``one`` less that of ``two``.

        Returns
        -------
        tuple of ndarray
            (y, x) median over the draws, mag AB, and half of the interval from their 16th to 84th percentile;
            NaN where the mean of either band is below ``LEAST_LIGHT`` times the noise of its sky. Draw n goes
            with draw n: one galaxy where bands were sampled together, else any two. The error is that of the
            draws, which no calibration has widened.

        Raises
        ------
        InputError
            Unknown source or band.
        RunError
            There are no draws.
        """
        light = [self.samples(source_id, band).astype(float) for band in (one, two)]
        least = [LEAST_LIGHT * self.sky_noise(source_id, band) for band in (one, two)]
        lit = np.all([image.mean(0) > level for image, level in zip(light, least, strict=True)], axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            magnitudes = [-2.5 * np.log10(np.where(image > 0, image, np.nan)[:, lit]) for image in light]
        found = np.full((3, *lit.shape), np.nan)
        found[:, lit] = np.nanpercentile(magnitudes[0] - magnitudes[1], [15.87, 50, 84.13], axis=0)
        return found[1], (found[2] - found[0]) / 2

    def sky_noise(self, source_id: int | str, band: str) -> float:
        """Median noise per fine pixel of a band, nJy; 0 without a usable pixel."""
        sigma = self.sigma(source_id, band)
        good = sigma[np.isfinite(sigma) & (sigma > 0)]
        return float(np.median(good)) / self.layout.oversample if good.size else 0.0

    def status(self, source_id: int | str) -> str:
        """pending, ok, flagged or failed."""
        return STATUS[int(self._entry("status", source_id))]

    def refuse_failed(self, source_id: int | str) -> None:
        """Raise ``RunError`` for a source that failed, ``InputError`` for an unknown id."""
        if self.status(source_id) == "failed":
            raise RunError(f"Source {source_id} failed and has no images or draws: {self._why(source_id)}.")

    def _why(self, source_id: int | str) -> str:
        """Why a source failed."""
        import pyarrow.parquet as pq

        try:
            kept = [("source_id", "=", str(source_id))]
            row = pq.read_table(opened(self.paths.failures), filters=kept).to_pylist()[0]
        except (OSError, IndexError, RunError):
            return f"failures.parquet in {self.paths.root} says why once the run is finished"
        return f"{row['message'] or 'no message'} ({row['code']})"

    def flags(self, source_id: int | str) -> int:
        """Flag bits (``galbatch.Flag``)."""
        return int(self._entry("flags", source_id))

    def stamp_pix(self, source_id: int | str) -> int:
        """Side of a source's stamp in detector pixels of the finest band."""
        if not self.layout.sides:
            return self.layout.stamp_pix
        return int(self._at("stamp_pix", self.index(source_id)))

    def wcs(self, source_id: int | str, band: str | None = None) -> WCS:
        """WCS of the fine grid: of the pixels of ``samples``, ``mean`` and ``std``."""
        from astropy.wcs import WCS

        number = self.band_index(band or self.bands[0])
        crpix1, crpix2, *rest = self._entry("wcs", source_id)[number].tolist()
        ratio = self.layout.pixel_ratio[number] if self.layout.pixel_ratio else 1
        fine = self.layout.oversample * ratio
        outside = self.layout.place(self.stamp_pix(source_id)).start / ratio
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crpix = [(c - outside - 0.5) * fine + 0.5 for c in (crpix1, crpix2)]
        wcs.wcs.crval = rest[:2]
        wcs.wcs.cd = np.reshape(rest[2:], (2, 2)) / fine
        return wcs

    def index(self, source_id: int | str) -> int:
        """Position of a source on the source axis of the store. Raises ``InputError`` for an unknown id."""
        position = self.locate([source_id]).get(str(source_id))
        if position is None or not self._at("status", position):
            raise self._unknown(source_id)
        return position

    def locate(self, source_ids: Iterable) -> dict[str, int]:
        """Positions on the source axis by id as text, of these sources and of those whose ids differ from
        theirs in capitals only; unknown ids are left out. To ask for many at once is one look through the
        plan."""
        texts = {str(i) for i in source_ids}
        if not texts <= self._positions.keys():
            whole = self.layout.n_sources <= _KEPT_WHOLE
            self._positions |= find_sources(self.paths.plan, None if whole else texts)
        return self._positions

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        """The arrays, opened once: opening one costs as much as reading a stamp."""
        return dict(self._group.arrays())

    def _read(self, array: str, source_id: int | str, band: str | None) -> np.ndarray:
        values = self._entry(array, source_id)
        return values if band is None else values[self.band_index(band)]

    def value(self, array: str, row: int) -> Any:
        """What an array of the store holds at a row of the plan, in the place of the largest stamp."""
        return np.copy(self._at(array, row))

    def hashes(self, array: str, source_id: int | str) -> np.ndarray:
        """(band,) ``pixels_hash`` or ``draws_hash`` of a source."""
        return self._at(array, self.index(source_id))

    def _entry(self, array: str, source_id: int | str) -> np.ndarray:
        """A source's entry, made again where the run does not keep it; of an image, its own stamp."""
        if array in self._arrays:
            values = self._at(array, self.index(source_id))
        elif array in OF_PIXELS:
            values = self._redrawer.pixels(source_id)[array]
        else:
            made = self._redrawer.draws(source_id)
            values = made.arrays[array]
            if not made.equal:
                warnings.warn(made.line, stacklevel=3)
        spec = self._specs[array]
        if spec.is_image and self.layout.sides:
            inside = self.layout.place(self.stamp_pix(source_id), spec)
            values = values[..., inside, inside]
        return np.copy(values)

    @cached_property
    def _specs(self) -> dict[str, ArraySpec]:
        return {spec.name: spec for spec in self.layout.every_array()}

    def _at(self, array: str, index: int) -> np.ndarray:
        """The entry at a position. The chunk that holds it is kept: its neighbours are often read next."""
        values = self._arrays[array]
        first = index // values.chunks[0] * values.chunks[0]
        if self._kept.get(array, (-1,))[0] != first:
            self._kept[array] = (first, values[first : first + values.chunks[0]])
        return self._kept[array][1][index - first]

    def band_index(self, band: str) -> int:
        """Place of a band on the axis ``band``. Raises ``InputError`` for one that the run has not."""
        if band not in self.bands:
            raise InputError(f"Band {band!r} is not in this run: it has {', '.join(self.bands)}.")
        return self.bands.index(band)

    def _unknown(self, source_id: int | str) -> InputError:
        some = ", ".join(map(str, self._first_done()))
        done = f"those done begin with {some}" if some else "no source of it is done yet"
        return InputError(
            f"Source {source_id!r} is not in {self.paths.root}, or not done yet: {done}. Take one from "
            "column source_id of the catalogue."
        )

    def _first_done(self) -> np.ndarray:
        """Ids of the first five sources that are done."""
        status, ids, end = self._arrays["status"], self._arrays["source_id"], self.layout.n_sources
        for first in range(0, end, _KEPT_WHOLE):
            done = np.flatnonzero(status[first : min(first + _KEPT_WHOLE, end)])[:5]
            if len(done):
                return ids[first : first + int(done[-1]) + 1][done]
        return np.array([])
