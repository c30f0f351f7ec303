"""Pictures in colour, and maps of a colour with its error."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from fake_run import write_fake_run
from PIL import Image

from galbatch.errors import InputError
from galbatch.report.colour import blue_to_red, figure_colours, picture_of_mean, rgb
from galbatch.report.gather import gather
from galbatch.store import Run, open_run


def test_red_is_the_longest_wavelength_and_equal_light_is_grey():
    light = np.zeros((3, 5, 5))
    light[:, 1, 1] = 100.0
    light[2, 3, 3] = 100.0
    image = rgb(light, 1.0).astype(int)
    assert np.ptp(image[1, 1]) <= 1 and image[1, 1, 0] > 100
    assert image[3, 3, 0] > 100 > image[3, 3, 2]
    two = rgb(light[[0, 2]], 1.0).astype(int)
    assert two[3, 3, 0] > two[3, 3, 1] > two[3, 3, 2], "green is the mean of two bands"
    assert not np.any(np.isnan(rgb(np.full((2, 4, 4), np.nan), 1.0)))


def test_bands_are_sorted_by_wavelength_where_names_say_it():
    run = lambda *bands, waves=(): SimpleNamespace(bands=bands, layout=SimpleNamespace(wavelength_um=waves))  # noqa: E731
    assert blue_to_red(run("f444w", "f115w", "f200w")) == [1, 2, 0]
    assert blue_to_red(run("red", "f115w")) == [0, 1]
    assert blue_to_red(run("red", "blue", waves=(2.0, 1.0))) == [1, 0]


def test_a_map_of_a_colour_pairs_draws_and_is_blank_where_there_is_no_light():
    """Two bands whose draws vary together by 20% and apart by 1%."""
    rng = np.random.default_rng(0)
    y, x = np.indices((20, 20))
    blob = 100 * np.exp(-0.5 * ((x - 9) ** 2 + (y - 9) ** 2) / 9.0)
    shared = np.exp(rng.normal(0, 0.2, 200))
    samples = {
        band: (factor * shared * np.exp(rng.normal(0, 0.01, 200)))[:, None, None] * blob
        for band, factor in (("b", 1.0), ("r", 2.0))
    }
    run = Run.__new__(Run)
    run.samples = lambda _, band: samples[band]
    run.sigma = lambda _, band: np.ones((20, 20))
    run.layout = SimpleNamespace(oversample=1)
    middle, error = run.color_map(1, "b", "r")
    assert middle[9, 9] == pytest.approx(2.5 * np.log10(2), abs=0.01)
    assert error[9, 9] == pytest.approx(1.0857 * 0.01 * np.sqrt(2), rel=0.25)
    assert np.isnan(middle[0, 0]) and np.isnan(error[0, 0])


def test_the_figure_of_a_run(tmp_path):
    write_fake_run(tmp_path / "f.run", draws=6)
    run = open_run(tmp_path / "f.run")
    source = run.finished_ids()[0]
    figure = figure_colours(run, source)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["Observed", "Posterior mean"] and titles[3] == "its error [mag]"
    assert titles[4:8] == ["Draw 1", "Draw 2", "Draw 3", "Draw 4"]
    figure.savefig(tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000
    one = SimpleNamespace(bands=("f200w",), paths=run.paths)
    with pytest.raises(InputError, match="needs two"):
        figure_colours(one, source)


def test_a_run_of_three_bands_has_a_picture_in_colour_of_each_source_in_its_report(tmp_path):
    write_fake_run(tmp_path / "three.run", bands=("f115w", "f200w", "f444w"))
    run = open_run(tmp_path / "three.run")
    summary = gather(run)
    assert summary.panels[-1] == "all bands"
    source = run.finished_ids()[0]
    strip = summary.strips["f444w"][summary.source_id.tolist().index(source)]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(strip))).convert("RGB"), float)
    side = image.shape[0]
    shown, wanted = image[:, -side:], picture_of_mean(run, source)[::-1].astype(float)
    enlarged = wanted.repeat(side // len(wanted), 0).repeat(side // len(wanted), 1)
    assert image.shape[1] == side * len(summary.panels)
    assert np.corrcoef(shown.ravel(), enlarged.ravel())[0, 1] > 0.9
    write_fake_run(tmp_path / "two.run")
    assert "all bands" not in gather(open_run(tmp_path / "two.run")).panels
