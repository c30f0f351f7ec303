"""The HTML page of a run: one self-contained file that opens without a network."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

import galbatch
from galbatch.flags import FLAGS
from galbatch.report.numbers import LABELS
from galbatch.report.summary import QUANTITIES, RunSummary

if TYPE_CHECKING:
    from bokeh.model import Model


def render_page(summary: RunSummary) -> str:
    """The page of ``summary`` as HTML text."""
    from bokeh.embed import components
    from bokeh.resources import Resources

    library = "\n".join(Resources(mode="inline", components=["bokeh", "bokeh-gl"]).js_raw)
    return fill_template(summary, *components(_plots(summary)), library)


def fill_template(summary: RunSummary, plot_script: str, divs: dict[str, str], plot_library: str) -> str:
    """The page around plots that Bokeh made ready: their script, the element of each, BokehJS itself."""
    from jinja2 import Environment

    planes = {
        band: [divs[name] for name in divs if name.startswith(f"plane {band} ")] for band in summary.bands
    }
    template = Environment(autoescape=True).from_string(_asset("report.html"))
    return template.render(
        summary=summary,
        flag_counts=summary.flag_counts(),
        divs=divs,
        planes=planes,
        data=_script_json(page_data(summary)),
        bokeh_js=plot_library,
        bokeh_script=plot_script,
        css=_asset("report.css"),
        js=_asset("report.js"),
        version=galbatch.__version__,
    )


def _plots(summary: RunSummary) -> dict[str, Model]:
    from galbatch.report.plots import coverage_bars, distributions, plane_figures, stage_bars

    plots = dict(distributions(summary))
    plots["stages"] = stage_bars(summary.stages)
    if summary.calibration:
        plots["coverage"] = coverage_bars(summary.calibration)
    for band in summary.bands:
        plots.update({f"plane {band} {plane}": fig for plane, fig in plane_figures(summary, band).items()})
    return plots


def page_data(summary: RunSummary) -> dict:
    """What the page's script needs, JSON-able: numbers rounded to four digits, NaN as null."""
    names = [
        f"{q}_{stat}_{band}"
        for band in summary.bands
        for q in QUANTITIES
        for stat in ("p16", "p50", "p84", "obs")
    ]
    names += [
        f"{stem}_{band}"
        for band in summary.bands
        for stem in ("chi2", "chi2_p", "prior_driven_frac", "quality")
    ]
    return {
        "bands": list(summary.bands),
        "panels": list(summary.panels),
        "ids": [str(i) for i in summary.source_id],
        "status": [str(s) for s in summary.status],
        "flags": [int(f) for f in summary.flags],
        "flag_names": [[flag.name, int(flag).bit_length() - 1] for flag in FLAGS],
        "flag_text": {
            flag.name: f"{about.meaning} ({about.level.name.lower()}): {about.remedy}."
            for flag, about in FLAGS.items()
        },
        "quantities": [
            [q, " ".join(filter(None, (LABELS[q][0], LABELS[q][1] and f"[{LABELS[q][1]}]")))]
            for q in QUANTITIES
        ],
        "columns": {name: _rounded(summary.columns[name]) for name in names if name in summary.columns},
        "strips": summary.strips,
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in np.asarray(values, dtype=float)]


def _script_json(data: dict) -> str:
    """JSON that cannot end the script element that holds it."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return files("galbatch.report").joinpath("templates", name).read_text(encoding="utf-8")
