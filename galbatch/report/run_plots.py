"""What a run shows of itself: ``show`` of one source, its statistics as a table, and ``run.plot``, the usual
figures of a finished run. Each returns a figure that Jupyter shows and that
``savefig`` writes; error bars are the 68% intervals of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.columns import INTERVAL
from galbatch.errors import InputError
from galbatch.flags import Flag, Level
from galbatch.morphology import all_quantities
from galbatch.report.figure import Picture, figure_source
from galbatch.report.read import RunReader
from galbatch.store import Run
from galbatch.store.selection import chosen, plain_column, quality_column

if TYPE_CHECKING:
    from astropy.table import QTable, Table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def show(run: Run, source_id: int | str, png: str | Path | None = None, band: str | None = None) -> Figure:
    """The figure of one source in one band (the run's first by default), written to ``png`` where given.

    Raises ``InputError`` for an unknown source or band, ``RunError`` for a source that failed.
    """
    figure = figure_source(RunReader(run).view(source_id, band))
    if png is not None:
        figure.savefig(png)
    return figure


_KEPT = (*INTERVAL, "raw16", "raw50", "raw84", "obs")
_HEADS = ("low", "value", "high", "raw16", "raw50", "raw84", "pixels")


def statistics_table(run: Run, source_id: int | str, band: str | None = None) -> Table:
    """One row per statistic of a source in a band: ``low``, ``value``, ``high`` of the 68% interval
    (``calibrated``: or that of the draws), percentiles of the draws, the classical value on the observed
    pixels. NaN where there is none."""
    from astropy.table import Table

    band = band or run.bands[0]
    quantities, row = all_quantities(), run.index(source_id)
    values = run.values(f"flags_{band}", *(f"{name}_{s}_{band}" for name in quantities for s in _KEPT))
    reached = not int(values[f"flags_{band}"][row]) & Flag.UNCALIBRATED
    rows = []
    for name, about in quantities.items():
        keys = [f"{name}_{s}_{band}" for s in _KEPT]
        numbers = [float(values[key][row]) if key in values else np.nan for key in keys]
        rows.append((name, about.unit, reached and bool(np.isfinite(numbers[1])), *numbers))
    table = Table(rows=rows, names=("statistic", "unit", "calibrated", *_HEADS))
    for head in _HEADS:
        table[head].format = ".6g"
    table.meta["source_id"], table.meta["band"] = str(source_id), band
    return table


SYMBOLS = {
    "mag_ab": "magnitude $m$ [AB]",
    "flux_njy": "flux [nJy]",
    "r_half": "half-light radius $r_{1/2}$ [arcsec]",
    "r_petro": r"Petrosian radius $r_\mathrm{P}$ [arcsec]",
    "concentration": "concentration $C$",
    "asymmetry": "asymmetry $A$",
    "smoothness": "smoothness $S$",
    "gini": "Gini coefficient $G$",
    "m20": "$M_{20}$",
    "sersic_n": "Sérsic index $n$",
    "ellipticity": "ellipticity",
}
CORNER = ("mag_ab", "r_half", "concentration", "asymmetry", "gini", "m20")
GOOD, CAUTION = "#0072b2", "#d55e00"  # Okabe and Ito (2008): told apart without colour vision


class RunPlots:
    """Figures of ``run``. ``band``: the run's first where None."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def gini_m20(self, band: str | None = None) -> Picture:
        """Gini against M20 with the lines of Lotz et al. (2008): mergers lie above the solid one, E to Sa
        above the dashed one."""
        band, figure, axis = self._begin(band)
        self._points(axis, "m20", "gini", band)
        m20 = np.array([-3.0, 0.0])
        axis.plot(m20, -0.14 * m20 + 0.33, "k-", lw=0.8, label="mergers above")
        early = np.array([-3.0, -1.68])  # where the two lines meet
        axis.plot(early, 0.14 * early + 0.80, "k--", lw=0.8, label="E to Sa above, Sb to Irr below")
        axis.set(xlim=(-0.5, -3.0), ylim=(0.3, 0.75))
        return _end(figure, axis)

    def size_magnitude(self, band: str | None = None) -> Picture:
        """Half-light radius against magnitude, bright sources on the left."""
        band, figure, axis = self._begin(band)
        self._points(axis, "mag_ab", "r_half", band)
        axis.set_yscale("log")
        return _end(figure, axis)

    def pixels(self, quantity: str = "r_half", band: str | None = None) -> Picture:
        """A statistic of the draws against the classical one on the observed pixels, with the line of
        equality."""
        band, figure, axis = self._begin(band)
        table, name = self._rows(quantity, band), f"{quantity}_obs_{band}"
        classical = self.run.values(name)[name][chosen(self.run.catalog, self.run.bands, 1, band)]
        for of_grade, style in _grades(table, band):
            low, middle, high = interval(table[of_grade], quantity, band)
            axis.errorbar(classical[of_grade], middle, yerr=_bars(low, middle, high), **style)
        ends = np.nanmin(axis.get_xlim()), np.nanmax(axis.get_xlim())
        axis.plot(ends, ends, "k-", lw=0.8)
        label = SYMBOLS.get(quantity, quantity)
        axis.set(xlabel=f"{label}, on the observed pixels", ylabel=f"{label}, posterior")
        return _end(figure, axis)

    def corner(
        self,
        source_id: int | str,
        band: str | None = None,
        statistics: Sequence[str] = CORNER,
        bins: int = 12,
    ) -> Picture:
        """The draws of one source, statistic against statistic; dashed: the value on the observed pixels.

        Raises ``InputError`` for an unknown source, band or statistic."""
        band = self._band(band)
        draws, observed = statistics_of_draws(self.run, source_id, band)
        unknown = [name for name in statistics if name not in (draws.dtype.names or ())]
        if unknown or not statistics:
            raise InputError(
                f"corner: unknown statistics {', '.join(unknown) or '(none)'}: use names of columns such as "
                f"{', '.join(CORNER)}."
            )
        n = len(statistics)
        figure = Picture(figsize=(1.7 * n + 0.6, 1.7 * n + 0.4), dpi=110, layout="constrained")
        axes = figure.subplots(n, n, squeeze=False, sharex="col")
        for row, own in enumerate(statistics):
            for col, other in enumerate(statistics):
                axis = axes[row, col]
                if col > row:
                    axis.set_axis_off()
                elif col == row:
                    values = draws[own][np.isfinite(draws[own])]
                    axis.hist(values, bins=bins, color=GOOD, alpha=0.6)
                    axis.set_yticks([])
                else:
                    axis.plot(draws[other], draws[own], "o", ms=3, color=GOOD, alpha=0.6)
                    axis.axhline(observed[own], ls="--", lw=0.8, color="0.4")
                if col <= row:
                    axis.axvline(observed[other], ls="--", lw=0.8, color="0.4")
                    axis.tick_params(labelsize=7)
                    axis.set_xlabel(SYMBOLS.get(other, other) if row == n - 1 else "", fontsize=8)
                    axis.set_ylabel(SYMBOLS.get(own, own) if col == 0 < row else "", fontsize=8)
        figure.suptitle(f"Source {source_id}, {band}, {len(draws)} draws", fontsize=10)
        return figure

    def _begin(self, band: str | None) -> tuple[str, Picture, Axes]:
        figure = Picture(figsize=(5.2, 4.2), dpi=110, layout="constrained")
        return self._band(band), figure, figure.subplots()

    def _band(self, band: str | None) -> str:
        band = band or self.run.bands[0]
        self.run.band_index(band)
        return band

    def _rows(self, quantity: str, band: str) -> Any:
        table = self.run.select(1, band)
        if f"{quantity}_p50_{band}" not in table.colnames:
            known = sorted(
                n.removesuffix(f"_p50_{band}") for n in table.colnames if n.endswith(f"_p50_{band}")
            )
            raise InputError(f"plot: unknown statistic {quantity!r}: use one of {', '.join(known)}.")
        return table

    def _points(self, axis: Axes, x: str, y: str, band: str) -> None:
        table = self._rows(x, band)
        for of_grade, style in _grades(table, band):
            a, b = interval(table[of_grade], x, band), interval(table[of_grade], y, band)
            axis.errorbar(a[1], b[1], xerr=_bars(*a), yerr=_bars(*b), **style)
        axis.set(xlabel=SYMBOLS.get(x, x), ylabel=SYMBOLS.get(y, y), title=band)


def statistics_of_draws(run: Run, source_id: int | str, band: str) -> tuple[np.ndarray, np.ndarray]:
    """Statistics (k,) of the draws of a source as the run measured them, and the classical ones (), as
    structured arrays. Its stamp is cut again; without its files the draws are measured by themselves."""
    from galbatch.morphology import measure, measure_posterior, own_light

    samples, layout = run.samples(source_id, band), run.layout
    samples = samples[np.isfinite(samples).all(axis=(1, 2))]
    stamp, _ = RunReader(run).stamp(source_id, band)
    if stamp is None:
        scale = min(layout.pixel_scale_arcsec) / layout.oversample
        seen = measure(run.mean(source_id, band)[None], scale, sky_sigma=0.0)[0]
        return measure(samples, scale, sky_sigma=0.0, psf_fwhm_pix=layout.target_fwhm_pix), seen
    fine = layout.oversample * stamp.ratio
    own = own_light(samples[None], stamp.seg, stamp.mask, fine)
    found, seen = measure_posterior(
        own.samples,
        *(stamp.data, stamp.sigma, stamp.mask, own.seg, stamp.psf, stamp.pixel_scale_arcsec),
        fine,
        layout.target_fwhm_pix,
        psf_scale_arcsec=stamp.psf_scale_arcsec,
    )
    return found[0], seen[0]


def interval(table: QTable, quantity: str, band: str) -> tuple[np.ndarray, ...]:
    """(low, middle, high) (n,) of the 68% interval."""
    return tuple(plain_column(table, f"{quantity}_{p}_{band}") for p in ("p16", "p50", "p84"))


def _bars(low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.clip([middle - low, high - middle], 0, None)


def _grades(table: QTable, band: str) -> Iterator[Any]:
    """(rows, style) of the sources that are good and of those with a caution."""
    quality = quality_column(table, band)
    kinds = ((Level.INFO, GOOD, GOOD, "good"), (Level.CAUTION, CAUTION, "none", "caution"))
    for level, colour, fill, name in kinds:
        rows = quality == level
        if rows.any():
            look = {"fmt": "o", "ms": 4, "lw": 0.7, "color": colour, "mfc": fill}
            yield rows, look | {"label": f"{name} ({rows.sum()})"}


def _end(figure: Picture, axis: Axes) -> Picture:
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=7, frameon=False)
    return figure
