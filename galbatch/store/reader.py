"""A finished (or half-finished) run, opened for reading: the catalogue and what the store holds of each
source."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.display import html_table
from galbatch.errors import InputError, RunError
from galbatch.flags import Level, quality_of
from galbatch.quantity import plain
from galbatch.store.layout import STATUS, ArraySpec, StoreLayout
from galbatch.store.lookup import find_sources, read_row
from galbatch.store.manifest import read_manifest
from galbatch.store.paths import RunPaths
from galbatch.store.posterior import open_store
from galbatch.store.selection import GRADES, chosen, grade_counts, separation_arcsec, worst_first
from galbatch.types import Flag

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable
    from astropy.wcs import WCS

_KEPT_WHOLE = 1 << 16  # sources of a run up to which the positions of all are looked up at once


def open_run(path: str | Path) -> Run:
    """Open a run folder. Raises ``RunError`` when it is not one."""
    return Run(RunPaths(Path(path)))


class Run:
    """Per-source access. Images are (band, y, x); pass ``band`` to get one band."""

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths
        self.manifest = read_manifest(paths)
        self._group = open_store(paths.posterior)
        self.layout = StoreLayout.from_attributes(dict(self._group.attrs))
        self._kept: dict[str, tuple[int, np.ndarray]] = {}
        self._positions: dict[str, int] = {}

    def __repr__(self) -> str:
        bands = ", ".join(self.bands)
        return f"<galbatch run {self.paths.root}: {self.layout.n_sources} sources, bands {bands}>"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """``summary.json``: counts by status, seconds by stage. Raises ``RunError`` before the run is
        finished."""
        try:
            return json.loads(self.paths.summary.read_text())
        except FileNotFoundError as err:
            raise RunError(
                f"{self.paths.summary}: not written yet. Finish the run with "
                f"`galbatch resume {self.paths.root}`."
            ) from err

    @property
    def bands(self) -> tuple[str, ...]:
        return self.layout.bands

    @cached_property
    def ids(self) -> np.ndarray:
        """(n,) source ids by position in the store; rows of batches not done yet hold 0 or ''."""
        return self._arrays["source_id"][: self.layout.n_sources]

    def finished_ids(self) -> list:
        """Ids of the sources that did not fail, in the order of the store. Raises ``RunError`` before the run
        is finished."""
        self._refuse_unfinished()
        status = self._arrays["status"][: self.layout.n_sources]
        return self.ids[np.isin(status, [STATUS.index("ok"), STATUS.index("flagged")])].tolist()

    def _refuse_unfinished(self, table: Path | None = None) -> None:
        table = table or self.paths.catalogue
        if not table.exists():
            raise RunError(
                f"{table}: not written yet. Finish the run with `galbatch resume {self.paths.root}`."
            )

    @cached_property
    def catalog(self) -> QTable:
        """``catalog.parquet`` as an astropy ``QTable`` with units; missing texts, integers and truth values
        are masked, missing floats NaN. Raises ``RunError`` before the run is finished."""
        self._refuse_unfinished()
        from galbatch.store.tables import read_table

        return read_table(self.paths.catalogue)

    @cached_property
    def statistics(self) -> QTable:
        """``statistics.parquet`` as an astropy ``QTable`` with units: all that is measured beside the
        catalogue, row by row of the same sources. Raises ``RunError`` before the run is finished."""
        self._refuse_unfinished(self.paths.statistics)
        from galbatch.store.tables import read_table

        return read_table(self.paths.statistics)

    def values(self, *names: str) -> dict[str, np.ndarray]:
        """(n,) plain values of the columns of these names that either table has; no others are read."""
        import pyarrow.parquet as pq

        found: dict[str, np.ndarray] = {}
        for path in (self.paths.catalogue, self.paths.statistics):
            if path.exists():
                with pq.ParquetFile(path) as file:
                    there = [name for name in names if name in file.schema_arrow.names]
                    table = file.read(columns=there)
                    found |= {name: table[name].to_numpy() for name in there}
        return found

    def record(self, source_id: int | str) -> dict[str, Any]:
        """All values of a source in both tables by column, None where missing; empty before the run is
        finished. Its row alone is read: it is that of the plan. Raises ``InputError`` for an unknown id."""
        row = self.index(source_id)
        found: dict[str, Any] = {}
        for path in (self.paths.catalogue, self.paths.statistics):
            if path.exists():
                found |= read_row(path, row)
        return found

    def good(self, band: str | None = None) -> QTable:
        """Rows of the catalogue of which every number may be used: quality 0, in ``band`` or in all."""
        return self.select(0, band)

    def select(self, quality: int = 0, band: str | None = None, snr: float | None = None) -> QTable:
        """Rows of the catalogue by grade, in its order.

        ``quality``: the worst that is accepted (0 good, 1 caution too, 2 all that did not fail); ``band``:
        judged in this band alone; ``snr``: least flux over its error, in the band, or in one of all. Nothing
        but the catalogue is read. Raises ``InputError`` for an unknown band or quality, ``RunError`` before
        the run is finished.
        """
        if band is not None:
            self._band(band)
        return self.catalog[chosen(self.catalog, self.bands, quality, band, snr)]

    def worst(self, n: int) -> list:
        """Ids of the ``n`` worst sources that did not fail, the worst first."""
        return self.catalog["source_id"][worst_first(self.catalog, self.bands)[:n]].tolist()

    def near(self, coord: SkyCoord, radius: Any) -> QTable:
        """Rows of the catalogue within ``radius`` (a quantity, or arcsec) of a position, the nearest first.

        Raises ``InputError`` when ``coord`` is no single ``SkyCoord``, ``RunError`` before the run is
        finished.
        """
        away = separation_arcsec(self.catalog, coord)
        inside = np.flatnonzero(away <= plain(radius, "arcsec", "near: radius"))
        return self.catalog[inside[np.argsort(away[inside])]]

    def at(self, coord: SkyCoord, within: Any = 1.0) -> Any:
        """Id of the source nearest to a position. Raises ``InputError`` when there is none within ``within``
        (a quantity, or arcsec)."""
        away, limit = separation_arcsec(self.catalog, coord), plain(within, "arcsec", "at: within")
        if not np.nanmin(away, initial=np.inf) <= limit:
            raise InputError(
                f"No source within {limit:g} arcsec of {coord.to_string('hmsdms')}: the nearest is "
                f"{np.nanmin(away, initial=np.inf):.2f} arcsec away. Give another position, or a larger "
                "`within`."
            )
        return self.catalog["source_id"][int(np.nanargmin(away))].item()

    def row(self, source_id: int | str) -> dict[str, Any]:
        """The catalogue row of a source as a dict."""
        match = np.flatnonzero(np.asarray(self.catalog["source_id"]).astype(str) == str(source_id))
        if not len(match):
            raise self._unknown(source_id)
        row = self.catalog[int(match[0])]
        return {name: row[name] for name in self.catalog.colnames}

    def samples(self, source_id: int | str, band: str | None = None) -> np.ndarray:
        """(draw, band, y, x) float32 posterior draws, nJy per fine pixel; (draw, y, x) with ``band``."""
        if not self.layout.samples:
            raise RunError(
                f"{self.paths.root}: made with --no-samples. Mean and std are there; "
                "for draws run again without it."
            )
        values = self._entry("samples", source_id)
        return values if band is None else values[:, self._band(band)]

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

    def status(self, source_id: int | str) -> str:
        """pending, ok, flagged or failed."""
        return STATUS[int(self._entry("status", source_id))]

    def flags(self, source_id: int | str) -> int:
        """Flag bits (``galbatch.Flag``)."""
        return int(self._entry("flags", source_id))

    def flag_counts(self) -> dict[str, int]:
        """Sources with each flag, the commonest first."""
        flags = self._arrays["flags"][: self.layout.n_sources]
        counts = {str(flag.name): int(np.count_nonzero(flags & flag)) for flag in Flag}
        return dict(sorted(((k, n) for k, n in counts.items() if n), key=lambda item: -item[1]))

    def quality_counts(self) -> tuple[int, ...]:
        """Sources done so far by quality (good, caution, do not use), failed ones among the last."""
        status = self._arrays["status"][: self.layout.n_sources]
        found = np.asarray(quality_of(self._arrays["flags"][: self.layout.n_sources]))
        found = np.where(status == STATUS.index("failed"), int(Level.BAD), found)
        found = found[status != STATUS.index("pending")]
        return tuple(int(np.sum(found == level)) for level in Level)

    def stamp_pix(self, source_id: int | str) -> int:
        """Side of a source's stamp in detector pixels of the finest band."""
        if not self.layout.sides:
            return self.layout.stamp_pix
        return int(self._at("stamp_pix", self.index(source_id)))

    def wcs(self, source_id: int | str, band: str | None = None) -> WCS:
        """WCS of the fine grid: of the pixels of ``samples``, ``mean`` and ``std``."""
        from astropy.wcs import WCS

        number = self._band(band or self.bands[0])
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

    def show(self, source_id: int | str, png: str | Path | None = None, band: str | None = None) -> Any:
        """Figure of one source in one band (the first by default). The plotting lives above the store, in
        ``galbatch.report``, and is found by name."""
        return import_module("galbatch.report").show(self, source_id, png, band)

    @property
    def plot(self) -> Any:
        """The usual figures: ``plot.corner(id)``, ``plot.pixels("gini")``, ``plot.size_magnitude()``,
        ``plot.gini_m20()``."""
        return import_module("galbatch.report").RunPlots(self)

    def to_pandas(self) -> Any:
        """``catalog.parquet`` as a pandas ``DataFrame``. Raises ``RunError`` without pandas, and before the
        run is finished."""
        _needs("pandas")
        self._refuse_unfinished()
        import pyarrow.parquet as pq

        return pq.read_table(self.paths.catalogue).to_pandas()

    def to_xarray(self) -> Any:
        """``posterior.zarr`` as an xarray ``Dataset``, read when used, ``source_id`` a coordinate. Raises
        ``RunError`` without xarray."""
        return _needs("xarray").open_zarr(self.paths.posterior).set_coords("source_id")

    def _repr_html_(self) -> str:
        facts = {
            "folder": self.paths.root,
            "sources": self.layout.n_sources,
            "bands": ", ".join(self.bands),
            "draws": self.layout.draws,
            "model": self.manifest.get("model", {}).get("name", ""),
        }
        if self.paths.catalogue.exists():
            counts = grade_counts(self.catalog, self.bands)[""]
            facts |= {grade: n for grade, n in zip(GRADES, counts, strict=True)}
        else:
            facts["state"] = "not finished"
        return html_table("galbatch run", facts)

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
        return values if band is None else values[self._band(band)]

    def _entry(self, array: str, source_id: int | str) -> np.ndarray:
        """A source's entry; of an image, its own stamp."""
        values, spec = self._at(array, self.index(source_id)), self._specs[array]
        if spec.is_image and self.layout.sides:
            inside = self.layout.place(self.stamp_pix(source_id), spec)
            values = values[..., inside, inside]
        return np.copy(values)

    @cached_property
    def _specs(self) -> dict[str, ArraySpec]:
        return self.layout.arrays()

    def _at(self, array: str, index: int) -> np.ndarray:
        """The entry at a position. The chunk that holds it is kept: its neighbours are often read next."""
        values = self._arrays[array]
        first = index // values.chunks[0] * values.chunks[0]
        if self._kept.get(array, (-1,))[0] != first:
            self._kept[array] = (first, values[first : first + values.chunks[0]])
        return self._kept[array][1][index - first]

    def _band(self, band: str) -> int:
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


def _needs(name: str) -> Any:
    """An optional package. Raises ``RunError`` where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise RunError(f"{name} is not installed: `pip install {name}`, then try again.") from error
