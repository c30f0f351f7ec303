"""A run that takes over from an earlier one what did not change has the bytes of one that computed it all."""

from contextlib import contextmanager

import numpy as np
import pytest
import toys
from astropy.io import fits
from runs import same

from galbatch.run import process, resume, verify
from galbatch.store import open_run

HOW = dict(cluster="none", draws=3, mode="fast", prior=toys.GaussianPrior())


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Six sources, four of them in ``old.run`` beside the catalogue, in batches of another size."""
    catalog = toys.write_sizes(tmp_path_factory.mktemp("survey"))
    process(catalog, out=catalog.with_name("old.run"), limit=4, batch=3, **HOW)
    return catalog


@pytest.fixture(scope="module")
def fresh(survey):
    """The run from nothing."""
    return process(survey, out=survey.with_name("fresh.run"), batch=4, **HOW).paths.root


@pytest.fixture
def updated(survey, tmp_path):
    """A call for (run, what it said of the update) of a run that updates ``old.run``."""

    def run(**options):
        said = []
        options = HOW | {"update": str(survey.with_name("old.run")), "batch": 4} | options
        made = process(survey, out=tmp_path / "new.run", on_message=said.append, **options)
        return made, [line for line in said if line.startswith("update")]

    return run


@contextmanager
def changed(path, content):
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_what_did_not_change_is_taken_over_with_the_same_bytes(updated, fresh):
    """Sources are added: the old ones are not drawn again, the one that failed is tried again, and every byte
    is that of a run from nothing. Update is how a run is carried out, not what it is: it goes on without."""
    run, said = updated()
    assert run.summary["update"]["reused"] == 3 and run.summary["draws"] == 2 * HOW["draws"]
    assert said[-1].endswith("computed: 2 new, 1 failed before")
    same(fresh, run.paths.root)
    assert verify(run.paths.root) == []
    for batch in run.paths.committed():
        run.paths.part(batch).unlink()
    run.paths.summary.unlink()
    again = resume(run.paths.root, prior=toys.GaussianPrior(), cluster="none")
    assert "update" not in again.summary
    same(fresh, run.paths.root)


def test_pixels_that_changed_are_computed_again_and_others_are_not(survey, updated, fresh, tmp_path):
    image, header = fits.getdata(survey.with_name("sci.fits"), header=True)
    run = open_run(fresh)
    x, y = run.wcs(100).all_world2pix(*(run.row(100)[k].value for k in ("ra", "dec")), 0)
    there = np.argwhere(image == run.observed(100)[0][int(y + 0.5), int(x + 0.5)])
    image[tuple(there[0])] += 50
    fits.writeto(tmp_path / "other.fits", image, header)
    with changed(survey.with_name("sci.fits"), (tmp_path / "other.fits").read_bytes()):
        run, said = updated()
        whole = process(survey, out=tmp_path / "whole.run", batch=4, **HOW)
    assert any("sci.fits" in line and "changed since" in line for line in said)
    number = run.summary["update"]["changed"]
    assert 1 <= number == run.summary["update"]["changed:f200w"]
    assert run.summary["update"]["reused"] == 3 - number
    assert f"{number} changed (pixels in f200w {number})" in said[-1]
    same(whole.paths.root, run.paths.root)


@pytest.mark.parametrize(
    "change, why", [({"seed": 1}, "seed was 0, is 1"), ({"draws": 4}, "draws was 3, is 4")]
)
def test_other_settings_take_nothing_over_and_say_why(updated, change, why):
    run, said = updated(limit=2, **change)
    assert "update" not in run.summary and len(said) == 1
    assert "nothing can be taken over" in said[0] and why in said[0]


def test_a_damaged_batch_is_not_taken_over(survey, updated, fresh):
    """A bit flips in a shard of the earlier run: its batch is computed again, with the same bytes."""
    shard = next(p for p in survey.with_name("old.run").glob("posterior.zarr/mean/c/0/**/*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    with changed(shard, data):
        run, said = updated()
    assert "damaged there" in said[-1] and run.summary["update"]["reused"] < 3
    same(fresh, run.paths.root)
