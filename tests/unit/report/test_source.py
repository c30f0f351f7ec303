"""The figure of one source and its terminal form."""

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.text import Text
from report_fakes import fake_view
from rich.console import Console

from galbatch.report.figure import figure_source
from galbatch.report.small import print_source
from galbatch.report.view import Number, Stretch, plain, shared_stretch, with_error


def panels_of(fig):
    return {axis.get_title(): axis for axis in fig.axes if axis.get_title()}


def test_panels_with_and_without_truth():
    with_truth, without = (
        panels_of(figure_source(fake_view())),
        panels_of(figure_source(fake_view(truth=False))),
    )
    common = {"Observed", "Posterior mean", "Spread (1σ)", "Residual / σ", "Prior-dominated"}
    assert set(with_truth) == common | {"Truth"} | {f"Draw {k}" for k in range(1, 7)}
    assert set(without) == common | {f"Draw {k}" for k in range(1, 6)}


@pytest.mark.parametrize("oversample", [1, 2])
def test_a_grey_means_the_same_surface_brightness_in_every_panel(oversample):
    view = fake_view(oversample=oversample)
    flat = np.full_like(view.mean, 3.0 / oversample**2)
    view = dataclasses.replace(
        view,
        observed=np.full_like(view.observed, 3.0),
        mean=flat,
        std=flat,
        samples=np.stack([flat] * 6),
        truth=flat,
        mask=None,
    )
    panels = panels_of(figure_source(view))
    greys = [
        panels[t].images[0].get_array().mean()
        for t in ("Observed", "Posterior mean", "Spread (1σ)", "Truth", "Draw 3")
    ]
    assert np.ptp(greys) < 1e-9
    assert 0 < greys[0] <= 1


def test_residual_is_data_minus_model_over_sigma_and_masked_where_masked():
    view = fake_view()
    shown = panels_of(figure_source(view))["Residual / σ"].images[0].get_array()
    expected = (view.observed - view.model) / view.sigma
    assert np.array_equal(np.ma.getmaskarray(shown), view.mask)
    assert np.allclose(shown.compressed(), expected[~view.mask])


def test_without_a_model_the_residual_panel_says_so():
    axis = panels_of(figure_source(fake_view(model=False)))["Residual / σ"]
    assert [text.get_text() for text in axis.texts] == ["no model"]


def test_scale_bar_has_the_stated_length():
    view = fake_view(size=64)
    axis = panels_of(figure_source(view))["Observed"]
    x0, x1 = axis.lines[0].get_xdata()
    label = next(t.get_text() for t in axis.texts if t.get_text().endswith('"'))
    width_arcsec = view.observed.shape[1] * view.pixel_scale_arcsec
    assert (x1 - x0) * width_arcsec == pytest.approx(float(label.rstrip('"')))


@pytest.mark.parametrize("truth", [True, False])
def test_no_two_numbers_of_the_figure_overlap(truth):
    """The widest that there are: errors of four decimals on every number."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    at = 22.4341 if truth else np.nan
    names = ("mag_ab", "r_petro", "sersic_n")
    numbers = tuple(Number(name, 22.3675, 22.3721, 22.3773, 22.4342, at) for name in names)
    fig = figure_source(dataclasses.replace(fake_view(truth=truth), numbers=numbers))
    FigureCanvasAgg(fig).draw()
    panel = next(a for a in fig.axes if any(t.get_text() == "posterior" for t in a.texts))
    boxes = [(t.get_text(), t.get_window_extent()) for t in panel.texts if t.get_text()]
    for k, (text, box) in enumerate(boxes):
        for other, second in boxes[k + 1 :]:
            wide = min(box.x1, second.x1) - max(box.x0, second.x0)
            high = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert wide <= 0 or high < 2, f"{text} lies on {other}"


def test_figure_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figure_source(fake_view(truth=False))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", [60, 80, 160])
def test_terminal_fits_its_width_and_has_the_numbers(width, colour):
    out = io.StringIO()
    system = "truecolor" if colour else None
    console = Console(file=out, width=width, force_terminal=colour, color_system=system)
    print_source(fake_view(), console)
    text = out.getvalue()
    plain_text = "".join(part.split("m", 1)[-1] for part in text.split("\x1b[")) if colour else text
    assert max(map(len, plain_text.splitlines())) <= width
    assert ("▀" in text) == colour
    for word in ("demo-17", "Gini", "0.540", "0.020", "NEIGHBOUR", "chi2"):
        assert word in text


def test_terminal_shows_the_galaxy_brighter_than_the_sky():
    out = io.StringIO()
    print_source(fake_view(), Console(file=out, width=160, color_system=None))
    rows = [line for line in out.getvalue().splitlines() if "@" in line or "#" in line]
    assert rows, "no bright pixel was drawn"


def test_stretch_is_monotonic_and_linear_for_faint_light():
    stretch = Stretch(vmin=-1.0, vmax=1000.0, softening=2.0)
    values = np.linspace(-1, 1000, 500)
    assert np.all(np.diff(stretch(values)) > 0)
    assert stretch(-1.0) == 0 and stretch(1000.0) == 1 and stretch(1e9) == 1
    small = stretch(np.array([0.0, 0.1, 0.2]))
    assert small[2] - small[1] == pytest.approx(small[1] - small[0], rel=0.01)
    assert np.isnan(stretch(np.nan))


@pytest.mark.parametrize("sky", [0.25, 0.6, 1.1, 2.4, 7.0])
def test_a_faint_source_has_ticks(sky):
    """Between its softening and its brightest pixel a faint source may have no round value."""
    stretch = Stretch(vmin=-1.5 * sky, vmax=5 * sky, softening=2 * sky)
    assert len(stretch.ticks()) >= 2 and 0 < stretch.ticks()[-1] <= stretch.vmax


@pytest.mark.parametrize("observed, sigma, mean", [
    (np.zeros((4, 4)), np.ones((4, 4)), np.zeros((4, 4))),
    (np.full((4, 4), np.nan), np.full((4, 4), np.nan), np.full((4, 4), np.nan)),
    (np.ones((4, 4)), np.full((4, 4), np.nan), np.ones((4, 4))),
    (-np.ones((4, 4)), np.zeros((4, 4)), -np.ones((4, 4))),
])  # fmt: skip
def test_stretch_of_empty_and_bad_images_is_finite(observed, sigma, mean):
    stretch = shared_stretch(observed, sigma, mean)
    assert stretch.vmin < stretch.vmax and stretch.softening > 0
    assert np.isfinite(stretch.ticks()).all()


@pytest.mark.parametrize("percentiles, text", [
    ((24.31, 24.35, 24.391), ("24.350", "0.041", "0.040")),
    ((640.0, 662.1, 670.0), ("662", "8", "22")),
    ((81000.0, 82345.0, 84000.0), ("82300", "1700", "1300")),
    ((-1.9, -1.75, -1.7), ("-1.75", "0.05", "0.15")),
    ((0.5, 0.5, 0.5), ("0.500", "0.000", "0.000")),
    ((np.nan, np.nan, np.nan), ("-", "", "")),
])  # fmt: skip
def test_digits_follow_the_error_bar(percentiles, text):
    assert with_error(*percentiles) == text


def test_plain_numbers():
    assert plain(np.nan) == "-"
    assert plain(0.123456) == "0.1235"
    assert plain(0.123456, like=0.02) == "0.123"


NAMES = ["[red]x", "[/]", "$a$", "a_$\\frac$", ":smile:", "back\\\\slash\\", "[bold"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is(name, tmp_path):
    """rich reads [red] as a colour and :smile: as a picture, matplotlib $a$ as mathematics."""
    number = Number(name, 1.0, 2.0, 3.0, unit=name)
    view = dataclasses.replace(
        fake_view(), source_id=name, band=name, facts={"flags": name}, numbers=(number,)
    )
    out = io.StringIO()
    print_source(view, Console(file=out, width=160, color_system=None))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith(f"Source {name}  {name}, 8 draws") and lines[-1] == f"flags: {name}"
    row = next(line for line in lines if line.startswith(name))
    assert row.rstrip().endswith(name) and len(row.split(name)) == 3
    figure = figure_source(view)
    figure.savefig(tmp_path / "figure.png")
    mine = [text for text in figure.findobj(Text) if name in text.get_text()]
    assert len(mine) == 4 and not any(text.get_parse_math() for text in mine)
    assert any(text.get_parse_math() and text.get_text().startswith("$^{+") for text in figure.findobj(Text))
