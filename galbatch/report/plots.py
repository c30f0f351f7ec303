"""The page's plots (Bokeh): morphology planes with error bars, chi2 and prior-driven distributions, stages.

Every plane of a band draws from one column source named ``points-<band>`` whose row is the page's source
index, so that the page's script can show the thumbnail of what the pointer is on. Colours are of Okabe & Ito
(2008) and go with a marker of their own: neither the theme nor colour vision decides what can be told apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.report.numbers import LABELS as NAMES
from galbatch.report.summary import PLANES, RunSummary

if TYPE_CHECKING:
    from bokeh.plotting import figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7f7f7f"
TOOLS = "pan,wheel_zoom,box_zoom,reset,save"
LABELS = {
    "m20": "M20",
    "gini": "Gini",
    "concentration": "concentration C",
    "asymmetry": "asymmetry A",
    "mag_ab": "magnitude (AB)",
    "r_half": "half-light radius (arcsec)",
}
# Lines that the literature draws: (quantity planes) -> [(x0, y0, x1, y1, what)].
LINES = {
    "Gini-M20": [
        (0.0, 0.33, -3.0, 0.75, "mergers (Lotz+ 2008)"),
        (-1.68, 0.565, -3.0, 0.38, "early types right"),
    ],
    "Concentration-asymmetry": [(1.0, 0.35, 6.0, 0.35, "mergers (Conselice 2003)")],
}


def plane_figures(summary: RunSummary, band: str) -> dict[str, figure]:
    """One figure for each morphology plane of ``band``."""
    from bokeh.models import ColumnDataSource

    flagged = summary.status != "ok"
    data = {"row": np.arange(len(flagged), dtype=np.int32), "id": [str(i) for i in summary.source_id]}
    for name in {q for pair in PLANES.values() for q in pair}:
        for stat in ("p16", "p50", "p84"):
            data[f"{name}_{stat}"] = summary.column(f"{name}_{stat}", band).astype(np.float32)
    source = ColumnDataSource(data, name=f"points-{band}")
    return {plane: _plane(plane, x, y, source, flagged) for plane, (x, y) in PLANES.items()}


def _plane(plane: str, x: str, y: str, source: Any, flagged: np.ndarray) -> figure:
    from bokeh.models import CDSView, CustomJS, HoverTool, IndexFilter, TapTool

    fig = _figure(plane, LABELS[x], LABELS[y], tools=TOOLS, output_backend="webgl", active_drag=None)
    dense = len(flagged) > 2000
    for rows, colour, marker, label in (
        (~flagged, BLUE, "circle", "ok"),
        (flagged, ORANGE, "triangle", "flagged"),
    ):
        view = CDSView(filter=IndexFilter(np.flatnonzero(rows).tolist()))
        bars = {"color": colour, "alpha": 0.12 if dense else 0.45, "source": source, "view": view}
        fig.segment(f"{x}_p16", f"{y}_p50", f"{x}_p84", f"{y}_p50", **bars)
        fig.segment(f"{x}_p50", f"{y}_p16", f"{x}_p50", f"{y}_p84", **bars)
        dots = fig.scatter(
            f"{x}_p50",
            f"{y}_p50",
            source=source,
            view=view,
            marker=marker,
            color=colour,
            size=4 if dense else 8,
            alpha=0.5 if dense else 0.85,
            legend_label=label,
            name=f"{label}-dots",
            nonselection_alpha=0.5,
        )
        hover = CustomJS(code="const i = cb_data.index.indices; if (i.length) window.galbatch?.peek(i[0])")
        tap = CustomJS(
            code="const i = cb_data.source.selected.indices; if (i.length) window.galbatch?.open(i[0])"
        )
        fig.add_tools(
            HoverTool(renderers=[dots], tooltips=None, callback=hover, visible=False),
            TapTool(renderers=[dots], callback=tap, visible=False),
        )
    for x0, y0, x1, y1, what in LINES.get(plane, ()):
        fig.line([x0, x1], [y0, y1], color=GREY, line_dash="dashed", legend_label=what)
    _limits(fig, source, x, y)
    return _legend_below(fig)


def _limits(fig: figure, source: Any, x: str, y: str) -> None:
    """Axes over the bulk of the points; M20 grows to the left, as in print."""
    for name, axis in ((x, fig.x_range), (y, fig.y_range)):
        values = source.data[f"{name}_p50"]
        values = values[np.isfinite(values)]
        if values.size:
            low, high = np.quantile(values, [0.002, 0.998])
            margin = 0.12 * (high - low) or 0.1
            low, high = float(low - margin), float(high + margin)
            axis.start, axis.end = (high, low) if name == "m20" else (low, high)


def histogram(
    title: str,
    label: str,
    values: dict[str, np.ndarray],
    bins: np.ndarray,
    expected: float | None = None,
) -> figure:
    """Histograms of one quantity, one per band; ``expected`` is marked.

    What lies outside ``bins`` counts in the outermost ones, as the label says.
    """
    from bokeh.models import Span

    fig = _figure(title, label, "sources", tools="save")
    for (band, sample), colour, dash in zip(
        values.items(), _cycle(len(values)), _dashes(len(values)), strict=True
    ):
        sample = sample[np.isfinite(sample)]
        counts, _ = np.histogram(np.clip(sample, bins[0], np.nextafter(bins[-1], bins[0])), bins)
        xs = np.repeat(bins, 2)
        ys = np.concatenate([[0], np.repeat(counts, 2), [0]])
        fig.patch(
            xs,
            ys,
            fill_color=colour,
            fill_alpha=0.18,
            line_color=colour,
            line_width=2,
            line_dash=dash,
            legend_label=band,
        )
    if expected is not None:
        fig.add_layout(
            Span(location=expected, dimension="height", line_color=GREY, line_dash="dashed", line_width=2)
        )
    fig.y_range.start = 0
    return _legend_below(fig)


def distributions(summary: RunSummary) -> dict[str, figure]:
    """chi2, its p-value and the prior-driven share, all bands in one plot each."""
    by = {
        stem: {band: summary.column(stem, band) for band in summary.bands}
        for stem in ("chi2", "chi2_p", "prior_driven_frac")
    }
    return {
        "chi2": histogram(
            "Residual chi2",
            "chi2 per pixel (dashed: noise alone; outer bins include values outside the axis)",
            by["chi2"],
            np.linspace(0.5, 1.5, 41),
            expected=1.0,
        ),
        "chi2_p": histogram(
            "p-value of chi2",
            "p-value of chi2 (flat if only noise remains, plus about 25% at 1)",
            by["chi2_p"],
            np.linspace(0, 1, 21),
        ),
        "prior": histogram(
            "Prior-dominated light",
            "share of the flux in prior-dominated regions",
            by["prior_driven_frac"],
            np.linspace(0, 1, 21),
        ),
    }


def stage_bars(stages: dict[str, float]) -> figure:
    """Seconds of work by stage, the longest on top."""
    names = sorted(stages, key=stages.get)
    fig = _figure(
        "Where the time went",
        "seconds of work",
        "",
        tools="save",
        y_range=names,
        height=max(140, 60 + 28 * len(names)),
    )
    fig.hbar(y=names, right=[stages[n] for n in names], height=0.6, color=BLUE)
    fig.x_range.start = 0
    return fig


def coverage_bars(calibration: Any) -> figure:
    """Share of truths inside the 68% interval by quantity, with its binomial error; 68% is dashed."""
    from bokeh.models import Span

    names = [f"{NAMES[quantity][0]} {band}" for quantity, band, _, _ in calibration][::-1]
    share = np.array([row[2] for row in calibration])[::-1]
    count = np.array([row[3] for row in calibration])[::-1]
    error = np.sqrt(0.68 * 0.32 / np.maximum(count, 1))
    fig = _figure(
        "Truths inside the 68% interval",
        "share of sources",
        "",
        tools="save",
        y_range=names,
        height=max(180, 60 + 24 * len(names)),
    )
    fig.segment(
        np.clip(share - error, 0, 1), names, np.clip(share + error, 0, 1), names, color=BLUE, line_width=2
    )
    fig.scatter(share, names, size=9, color=BLUE)
    fig.add_layout(Span(location=0.68, dimension="height", line_color=GREY, line_dash="dashed", line_width=2))
    fig.x_range.start, fig.x_range.end = 0, 1
    return fig


def _legend_below(fig: figure) -> figure:
    """Move the legend under the plot, where it hides nothing; a click on an entry hides its points."""
    legend = fig.legend[0]
    fig.center.remove(legend)
    fig.add_layout(legend, "below")
    legend.update(
        click_policy="hide",
        orientation="horizontal",
        ncols=2,
        border_line_alpha=0,
        padding=2,
        margin=0,
        spacing=6,
        label_standoff=2,
        label_text_font_size="11px",
    )
    return fig


def _cycle(n: int) -> list[str]:
    return [(BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")[i % 6] for i in range(n)]


def _dashes(n: int) -> list[str]:
    return [("solid", "dashed", "dotted", "dotdash", "dashdot", "solid")[i % 6] for i in range(n)]


def _figure(title: str, x_label: str, y_label: str, height: int = 330, **options: Any) -> figure:
    """A figure that fits its column, with the page's background; the page's script sets ink for the theme."""
    from bokeh.plotting import figure

    fig = figure(
        title=title,
        x_axis_label=x_label,
        y_axis_label=y_label,
        height=height,
        sizing_mode="stretch_width",
        background_fill_alpha=0,
        border_fill_alpha=0,
        toolbar_location="above",
        **options,
    )
    fig.toolbar.logo = None
    fig.outline_line_alpha = 0
    return fig
