"""A run that takes over from an earlier one what did not change has the bytes of one that computed it all."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toys
from astropy.io import fits
from runs import same

from galbatch.run import process, resume, verify

HOW = dict(cluster="none", draws=3, mode="fast", prior=toys.GaussianPrior())


@pytest.fixture
def survey(tmp_path):
    """Six sources, one off the image, two with larger stamps; half of them in an earlier run, in batches of
    another size."""
    catalog = toys.write_survey(tmp_path / "survey", n=6, off=2)
    sides = [np.nan, 2.88, np.nan, np.nan, 2.88, np.nan]
    pq.write_table(pq.read_table(catalog).append_column("stamp_arcsec", pa.array(sides)), catalog)
    process(catalog, out=tmp_path / "old.run", limit=4, batch=3, **HOW)
    return catalog


def updated(catalog, name="new.run", **options):
    """(run, what it said of the update) of a run that updates ``old.run``."""
    folder, said = catalog.parents[1], []
    options = {"update": str(folder / "old.run"), "batch": 4, "on_message": said.append} | HOW | options
    run = process(catalog, out=folder / name, **options)
    return run, [line for line in said if line.startswith("update")]


def test_what_did_not_change_is_taken_over_with_the_same_bytes(survey):
    """Sources are added: the old ones are not drawn again, the one that failed is tried again, and every byte
    is that of a run from nothing."""
    run, said = updated(survey)
    assert run.summary["update"]["reused"] == 3 and run.summary["draws"] == 2 * HOW["draws"]
    assert said[-1].endswith("computed: 2 new, 1 failed before")
    fresh = process(survey, out=survey.parents[1] / "fresh.run", batch=4, **HOW)
    same(fresh.paths.root, run.paths.root)
    assert verify(run.paths.root) == []


def test_pixels_that_changed_are_computed_again_and_others_are_not(survey):
    name = survey.parent / "sci.fits"
    with fits.open(name, mode="update") as file:
        run, _ = updated(survey, "before.run")
        x, y = run.wcs(100).all_world2pix(*(run.row(100)[k].value for k in ("ra", "dec")), 0)
        there = np.argwhere(file[0].data == run.observed(100)[0][int(y + 0.5), int(x + 0.5)])
        file[0].data[tuple(there[0])] += 50
    run, said = updated(survey)
    assert any("sci.fits" in line and "changed since" in line for line in said)
    changed = run.summary["update"]["changed"]
    assert 1 <= changed == run.summary["update"]["changed:f200w"]
    assert run.summary["update"]["reused"] == 3 - changed
    assert f"{changed} changed (pixels in f200w {changed})" in said[-1]
    same(process(survey, out=survey.parents[1] / "fresh.run", batch=4, **HOW).paths.root, run.paths.root)


@pytest.mark.parametrize(
    "change, why", [({"seed": 1}, "seed was 0, is 1"), ({"draws": 4}, "draws was 3, is 4")]
)
def test_other_settings_take_nothing_over_and_say_why(survey, change, why):
    run, said = updated(survey, **change)
    assert "update" not in run.summary and len(said) == 1
    assert "nothing can be taken over" in said[0] and why in said[0]


def test_a_damaged_batch_is_not_taken_over(survey):
    """A bit flips in a shard of the earlier run: its batch is computed again, with the same bytes."""
    shard = next((survey.parents[1] / "old.run" / "posterior.zarr" / "mean" / "c" / "0").rglob("*0"))
    shard = next(p for p in [shard, *shard.rglob("*")] if p.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    run, said = updated(survey)
    assert "damaged there" in said[-1] and run.summary["update"]["reused"] < 3
    same(process(survey, out=survey.parents[1] / "fresh.run", batch=4, **HOW).paths.root, run.paths.root)


def test_a_run_without_the_earlier_one_goes_on(survey):
    """Update is how a run is carried out, not what it is: it can be resumed with and without."""
    run, _ = updated(survey)
    for batch in run.paths.committed():
        run.paths.part(batch).unlink()
    before = toys.product(survey.parents[1] / "new.run")
    run.paths.summary.unlink()
    again = resume(run.paths.root, prior=toys.GaussianPrior(), cluster="none")
    assert "update" not in again.summary
    after = toys.product(again.paths.root)
    assert {n for n in before if before[n] != after[n]} == set()
