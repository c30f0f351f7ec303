"""A finished (or half-finished) run, opened for reading: the catalogue and what the store holds of each
source."""

from __future__ import annotations

import json
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.display import html_table
from galbatch.errors import InputError, RunError
from galbatch.flags import Level, count_flags, quality_of
from galbatch.quantity import plain
from galbatch.store.layout import STATUS
from galbatch.store.paths import RunPaths, opened, place_of, zarr_place
from galbatch.store.selection import GRADES, chosen, grade_counts, read_row, separation_arcsec, worst_first
from galbatch.store.sources import Sources

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable


def open_run(path: str | Path, prior: Any = None) -> Run:
    """Open a run folder, finished or not.

    Parameters
    ----------
    path : str or Path
        The folder; also a URL of a bucket with the extra ``cloud``.
    prior : Denoiser, optional
        The object with which it was made, if it was one, to make draws again.

    Returns
    -------
    Run
        Catalogue, draws and pictures of the run.

    Raises
    ------
    RunError
        It is not a run.

    Examples
    --------
    >>> import galbatch
    >>> run = galbatch.open_run("demo.run")  # doctest: +SKIP
    >>> run.samples(1001, "f200w").shape  # doctest: +SKIP
    (16, 64, 64)
    """
    return Run(RunPaths(place_of(path)), prior)


class Run(Sources):
    """A run: its tables, and what ``Sources`` has of each source. Images are (band, y, x); pass ``band`` to
    get one band."""

    def __repr__(self) -> str:
        bands = ", ".join(self.bands)
        return f"<galbatch run {self.paths.root}: {self.layout.n_sources} sources, bands {bands}>"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """``summary.json``: counts by status, seconds by stage. Raises ``RunError`` before the run is
        finished."""
        self.paths.need(self.paths.summary)
        return json.loads(self.paths.summary.read_text())

    def finished_ids(self) -> list:
        """Ids of the sources that did not fail, in the order of the store. Raises ``RunError`` before the run
        is finished."""
        self.paths.need(self.paths.catalog)
        status = self._arrays["status"][: self.layout.n_sources]
        return self.ids[np.isin(status, [STATUS.index("ok"), STATUS.index("flagged")])].tolist()

    @cached_property
    def catalog(self) -> QTable:
        """``catalog.parquet`` as an astropy ``QTable`` with units; missing texts, integers and truth values
        are masked, missing floats NaN. Raises ``RunError`` before the run is finished."""
        self.paths.need(self.paths.catalog)
        from galbatch.store.tables import read_table

        return read_table(self.paths.catalog)

    @cached_property
    def statistics(self) -> QTable:
        """``statistics.parquet`` as an astropy ``QTable`` with units: all that is measured beside the
        catalogue, row by row of the same sources. Raises ``RunError`` before the run is finished."""
        self.paths.need(self.paths.statistics)
        from galbatch.store.tables import read_table

        return read_table(self.paths.statistics)

    def values(self, *names: str) -> dict[str, np.ndarray]:
        """(n,) plain values of the columns of these names that either table has; no others are read."""
        import pyarrow.parquet as pq

        found: dict[str, np.ndarray] = {}
        for path in (self.paths.catalog, self.paths.statistics):
            if path.exists():
                with pq.ParquetFile(opened(path)) as file:
                    there = [name for name in names if name in file.schema_arrow.names]
                    table = file.read(columns=there)
                    found |= {name: table[name].to_numpy() for name in there}
        return found

    def record(self, source_id: int | str) -> dict[str, Any]:
        """All values of a source in both tables by column, None where missing; empty before the run is
        finished. Its row alone is read: it is that of the plan. Raises ``InputError`` for an unknown id."""
        row = self.index(source_id)
        found: dict[str, Any] = {}
        for path in (self.paths.catalog, self.paths.statistics):
            if path.exists():
                found |= read_row(path, row)
        return found

    def good(self, band: str | None = None) -> QTable:
        """Rows of the catalogue of which every number may be used: quality 0, in ``band`` or in all."""
        return self.select(0, band)

    def select(self, quality: int = 0, band: str | None = None, snr: float | None = None) -> QTable:
        """Rows of the catalogue by grade, in its order. Nothing else is read.

        Parameters
        ----------
        quality : int
            The worst that is accepted: 0 good, 1 caution too, 2 all that did not fail.
        band : str, optional
            Judge by this band alone; else by all.
        snr : float, optional
            Least flux over its error, in the band, or in one of all.

        Returns
        -------
        astropy.table.QTable
            With units; ``write("some.parquet")`` saves it.

        Raises
        ------
        InputError
            Unknown band or quality.
        RunError
            The run is not finished.

        Examples
        --------
        >>> usable = run.select(quality=1, band="f200w")
        """
        if band is not None:
            self.band_index(band)
        return self.catalog[chosen(self.catalog, self.bands, quality, band, snr)]

    def worst(self, n: int) -> list:
        """Ids of the ``n`` worst sources that did not fail, the worst first."""
        return self.catalog["source_id"][worst_first(self.catalog, self.bands)[:n]].tolist()

    def near(self, coord: SkyCoord, radius: Any) -> QTable:
        """Rows of the catalogue around a position, the nearest first.

        Parameters
        ----------
        coord : astropy.coordinates.SkyCoord
            One position.
        radius : astropy.units.Quantity or float
            An angle; a number is arcsec.

        Returns
        -------
        astropy.table.QTable
            Empty where there is none.

        Raises
        ------
        InputError
            ``coord`` is no single position.
        RunError
            The run is not finished.

        Examples
        --------
        >>> from astropy.coordinates import SkyCoord
        >>> first = run.catalog[0]
        >>> rows = run.near(SkyCoord(first["ra"], first["dec"]), 30)  # arcsec
        """
        away = separation_arcsec(self.catalog, coord)
        inside = np.flatnonzero(away <= plain(radius, "arcsec", "near: radius"))
        return self.catalog[inside[np.argsort(away[inside])]]

    def at(self, coord: SkyCoord, within: Any = 1.0) -> Any:
        """Id of the source nearest to a position.

        Parameters
        ----------
        coord : astropy.coordinates.SkyCoord
            One position.
        within : astropy.units.Quantity or float
            The largest distance; a number is arcsec.

        Returns
        -------
        int or str
            As in the catalogue.

        Raises
        ------
        InputError
            No source is so near, or ``coord`` is no single position.
        RunError
            The run is not finished.

        Examples
        --------
        >>> from astropy.coordinates import SkyCoord
        >>> first = run.catalog[0]
        >>> source_id = run.at(SkyCoord(first["ra"], first["dec"]))
        """
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
        row = self.catalog[self.index(source_id)]
        return {name: row[name] for name in self.catalog.colnames}

    def flag_counts(self) -> dict[str, int]:
        """Sources with each flag, the commonest first."""
        return count_flags(self._arrays["flags"][: self.layout.n_sources])

    def quality_counts(self) -> tuple[int, ...]:
        """Sources done so far by quality (good, caution, do not use), failed ones among the last."""
        status = self._arrays["status"][: self.layout.n_sources]
        found = np.asarray(quality_of(self._arrays["flags"][: self.layout.n_sources]))
        found = np.where(status == STATUS.index("failed"), int(Level.BAD), found)
        found = found[status != STATUS.index("pending")]
        return tuple(int(np.sum(found == level)) for level in Level)

    def show(self, source_id: int | str, png: str | Path | None = None, band: str | None = None) -> Any:
        """Figure of one source in one band (the first by default); Jupyter displays it. ``png``: also written
        there (.png, .pdf, .svg). ``InputError``: unknown id or band, ``RunError``: it failed."""
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
        self.paths.need(self.paths.catalog)
        import pyarrow.parquet as pq

        return pq.read_table(opened(self.paths.catalog)).to_pandas()

    def to_xarray(self) -> Any:
        """``posterior.zarr`` as an xarray ``Dataset``, read when used. Raises ``RunError`` without xarray."""
        return _needs("xarray").open_zarr(zarr_place(self.paths.posterior)).set_coords("source_id")

    def _repr_html_(self) -> str:
        facts = {
            "folder": self.paths.root,
            "sources": self.layout.n_sources,
            "bands": ", ".join(self.bands),
            "draws": self.layout.draws,
            "model": self.manifest.get("model", {}).get("name", ""),
        }
        if self.paths.catalog.exists():
            counts = grade_counts(self.catalog, self.bands)[""]
            facts |= {grade: n for grade, n in zip(GRADES, counts, strict=True)}
        else:
            facts["state"] = "not finished"
        return html_table("galbatch run", facts)


def _needs(name: str) -> Any:
    """An optional package. Raises ``RunError`` where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise RunError(f"{name} is not installed: `pip install {name}`, then try again.") from error
