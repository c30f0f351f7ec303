"""A run in a notebook: selections by position, tables, figures that show themselves, the usual plots."""

import sys

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from fake_run import write_fake_run

import galbatch
from galbatch.display import html_table
from galbatch.errors import InputError, RunError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return galbatch.open_run(write_fake_run(tmp_path_factory.mktemp("runs") / "<b>.run").root)


def position(run, n):
    row = run.catalog[n]
    return SkyCoord(row["ra"], row["dec"], unit="deg")


def test_sources_by_position(run):
    here = position(run, 2)
    wanted = run.catalog["source_id"][2].item()
    assert run.at(here) == wanted == run.at(here.directional_offset_by(0 * u.deg, 0.5 * u.arcsec))
    with pytest.raises(InputError, match=r"No source within 1 arcsec.*the nearest is"):
        run.at(here.directional_offset_by(0 * u.deg, 3 * u.deg))
    every = run.near(here, 180 * u.deg)
    assert len(every) == np.isfinite(run.catalog["ra"]).sum() and every["source_id"][0] == wanted
    away = here.separation(SkyCoord(every["ra"], every["dec"], unit="deg"))
    assert np.all(np.diff(away) >= 0)
    assert len(run.near(here, away[-1] * 0.999)) < len(every) == len(run.near(here, away[-1].arcsec * 1.001))
    with pytest.raises(InputError, match="give a SkyCoord"):
        run.near((150.0, 2.0), 1)
    with pytest.raises(InputError, match="near: radius is in nJy"):
        run.near(here, 1 * u.nJy)


def test_tables_of_other_packages(run, monkeypatch):
    frame = run.to_pandas()
    assert list(frame["source_id"]) == run.catalog["source_id"].tolist()
    cube = run.to_xarray()
    assert cube["samples"].dims == ("source", "draw", "band", "y", "x") and "source_id" in cube.coords
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RunError, match="pip install pandas"):
        run.to_pandas()


def test_html_is_escaped(run):
    text = run._repr_html_()
    assert "&lt;b&gt;.run" in text and "<b>.run" not in text and "good" in text
    assert "<script>" not in html_table("<script>", {"<script>": "<script>"})
    data = np.zeros((1, 1, 8, 8))
    assert "8 x 8" in galbatch.Observation(data, data + 1, np.ones((1, 3, 3)))._repr_html_()


def shown(figure):
    return figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_source_shows_itself(run):
    assert shown(run.show(run.finished_ids()[0]))


def test_the_usual_plots(run):
    for figure in (run.plot.gini_m20(), run.plot.size_magnitude(), run.plot.pixels("gini")):
        assert shown(figure)
    axis = run.plot.gini_m20().axes[0]
    assert axis.get_xlabel() == "$M_{20}$" and axis.get_xlim()[0] > axis.get_xlim()[1]
    drawn = sum(len(line.get_xdata()) for line in axis.lines if line.get_marker() == "o")
    assert drawn == len(run.select(1, run.bands[0]))
    with pytest.raises(InputError, match="unknown statistic 'ginny': use one of"):
        run.plot.pixels("ginny")


def test_a_corner_has_every_draw(run):
    source = run.finished_ids()[0]
    figure = run.plot.corner(source, statistics=("gini", "m20"))
    assert shown(figure)
    points = next(line for axis in figure.axes for line in axis.lines if line.get_marker() == "o")
    assert len(points.get_xdata()) == len(run.samples(source))
    with pytest.raises(InputError, match="unknown statistics ginny"):
        run.plot.corner(source, statistics=("ginny",))
