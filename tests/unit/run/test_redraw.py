"""Draws made again from their seeds: those that were measured, bit for bit, or a refusal in words."""

import json

import numpy as np
import pytest
import toys
from astropy.io import fits

from galbatch import open_run
from galbatch.cli.main import main
from galbatch.errors import RunError
from galbatch.run import process, verify
from galbatch.store.layout import MADE_AGAIN
from galbatch.store.posterior import round_mantissa

HOW = dict(cluster="none", draws=3, mode="fast", batch=4)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toys.write_sizes(tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="module")
def runs(survey):
    return {
        kind: process(
            survey, out=survey.parent / f"{kind}.run", prior=toys.GaussianPrior(), samples=kind, **HOW
        )
        for kind in ("stored", "regenerate", "none")
    }


def test_what_is_made_again_is_what_another_run_stored(runs):
    """Draws, images and pixels, of small and large stamps, each source alone though the run had batches."""
    stored, again = runs["stored"], runs["regenerate"]
    assert stored.layout.sides and not {*MADE_AGAIN} & {*again.layout.arrays()}
    for source in stored.finished_ids():
        assert again.redraw(source).equal and again.redraw(source).difference < 1e-3
        for name in (*MADE_AGAIN, "mean", "std"):
            made, kept = getattr(again, name)(source), getattr(stored, name)(source)
            rounded = made if name in ("observed", "sigma", "mask") else round_mantissa(made)
            np.testing.assert_array_equal(rounded, kept, name)
    assert not np.array_equal(again.samples(source), stored.samples(source)), "they are not rounded"


def test_tables_do_not_depend_on_what_is_kept(runs):
    tables = [(run.paths.catalog.read_bytes(), run.paths.statistics.read_bytes()) for run in runs.values()]
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize("kind", ["stored", "regenerate", "none"])
def test_each_kind_of_run_is_sound_and_can_be_drawn_again(runs, kind):
    assert verify(runs[kind].paths.root) == []
    source = runs[kind].finished_ids()[0]
    made = open_run(runs[kind].paths.root, toys.GaussianPrior()).redraw(source)
    assert made.equal and "bit for bit" in made.line


def test_a_run_without_draws_says_how_to_make_them(runs):
    run = open_run(runs["none"].paths.root, toys.GaussianPrior())
    source = run.finished_ids()[0]
    with pytest.raises(RunError, match=f"galbatch draw .*none.run {source}"):
        run.samples(source)
    run.redraw(source)
    np.testing.assert_array_equal(round_mantissa(run.samples(source)), runs["stored"].samples(source))


def test_the_prior_object_of_a_run_is_asked_for(runs):
    run = open_run(runs["regenerate"].paths.root)
    with pytest.raises(RunError, match="prior object"):
        run.samples(run.finished_ids()[0])


def test_a_failed_source_has_no_draws(runs):
    with pytest.raises(RunError, match="failed and has no images or draws"):
        runs["regenerate"].redraw(102)


def test_other_pixels_are_refused_and_changes_elsewhere_are_not(survey, runs):
    """The mosaic changes under one source; another, whose stamp does not hold that pixel, is as it was."""
    run, name = runs["regenerate"], survey.parent / "sci.fits"
    before = name.read_bytes()
    near, far = 100, 103
    try:
        name.rename(name.with_suffix(".away"))
        with pytest.raises(RunError, match=r"pixels .*sci.fits"):
            open_run(run.paths.root, toys.GaussianPrior()).samples(near)
        name.with_suffix(".away").rename(name)
        with fits.open(name, mode="update") as file:
            x, y = run.wcs(near).all_world2pix(*(run.row(near)[k].value for k in ("ra", "dec")), 0)
            observed = run.observed(near)[0]
            where = np.argwhere(file[0].data == observed[int(y + 0.5), int(x + 0.5)])
            assert len(where) == 1
            file[0].data[tuple(where[0])] += 1
        changed = open_run(run.paths.root, toys.GaussianPrior())
        assert changed.redraw(far).equal
        for what in (changed.redraw, changed.samples, changed.observed):
            with pytest.raises(RunError, match=r"(?s)pixels in f200w are not those.*sci.fits") as error:
                what(near)
        assert "--update" in str(error.value)
    finally:
        name.write_bytes(before)


class Nearly(toys.GaussianPrior):
    """The same prior on a machine that rounds otherwise."""

    def __init__(self, off):
        super().__init__()
        self.off = off

    def denoise(self, x, sigma):
        return super().denoise(x, sigma) * (1 + self.off)


def test_rounding_is_said_and_more_than_rounding_is_refused(runs):
    root = runs["regenerate"].paths.root
    run = open_run(root, Nearly(1e-6))
    source = run.finished_ids()[0]
    made = run.redraw(source)
    assert not made.equal and 0 < made.difference < 0.1 and "within rounding" in made.line
    with pytest.warns(UserWarning, match="within rounding"):
        run.samples(source)
    with pytest.raises(RunError, match=r"not those that were measured.*All versions"):
        open_run(root, Nearly(0.2)).redraw(source)


def test_another_seed_is_found_out(runs):
    run = open_run(runs["none"].paths.root, toys.GaussianPrior())
    run.manifest["settings"]["seed"] = 1
    with pytest.raises(RunError, match="not those that were measured"):
        run.redraw(run.finished_ids()[0])


def test_the_command_with_a_shipped_model(tmp_path, capsys):
    """Draws of the network, by the command, as FITS; and ``show``, which makes them again as well."""
    catalog = toys.write_survey(tmp_path, n=2)
    run = process(catalog, out=tmp_path / "a.run", model="small", samples="regenerate", **HOW | {"draws": 2})
    assert main(["draw", str(run.paths.root), "100", "--out", str(tmp_path / "fits")]) == 0
    assert "source 100: 2 draws in 1 band made again, bit for bit" in capsys.readouterr().out
    cube = fits.getdata(tmp_path / "fits" / "100.fits", "F200W_SAMPLES")
    np.testing.assert_array_equal(cube, run.samples(100, "f200w"))
    assert main(["show", str(run.paths.root), "100", "--png", str(tmp_path / "a.png")]) == 0
    assert main(["report", str(run.paths.root)]) == 0, "which draws nothing"
    manifest = json.loads(run.paths.manifest.read_text())
    assert manifest["settings"]["samples"] == "regenerate"
    assert main(["draw", str(run.paths.root), "7"]) == 1
