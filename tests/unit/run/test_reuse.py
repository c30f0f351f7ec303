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


@pytest.mark.parametrize(
    "before, now",
    [("regenerate", "regenerate"), ("stored", "none"), ("none", "none")],
)
def test_draws_that_are_not_stored_need_not_be_made(survey, updated, tmp_path, before, now):
    """What the earlier run keeps is enough where the new one keeps no more: every byte is that of a run from
    nothing, and the draws of sources that were taken over are made again as those of others."""
    old = process(survey, out=tmp_path / "old.run", limit=4, batch=3, samples=before, **HOW)
    whole = process(survey, out=tmp_path / "whole.run", batch=4, samples=now, **HOW)
    run, _ = updated(update=str(old.paths.root), samples=now)
    assert run.summary["update"]["reused"] == 3 and run.summary["draws"] == 2 * HOW["draws"]
    same(whole.paths.root, run.paths.root)
    assert verify(run.paths.root) == []
    again = open_run(run.paths.root, toys.GaussianPrior())
    assert all(again.redraw(source).equal for source in again.finished_ids())


@pytest.mark.parametrize(
    "before, now", [("stored", "regenerate"), ("none", "stored"), ("none", "regenerate")]
)
def test_what_the_earlier_run_did_not_keep_is_computed(survey, updated, tmp_path, before, now):
    old = process(survey, out=tmp_path / "old.run", limit=2, samples=before, **HOW)
    run, said = updated(update=str(old.paths.root), samples=now, limit=2)
    assert "update" not in run.summary and f"samples was {before}, is {now}" in said[0]


def test_a_damaged_batch_is_not_taken_over(survey, updated, fresh):
    """A bit flips in a shard of the earlier run: its batch is computed again, with the same bytes."""
    shard = next(p for p in survey.with_name("old.run").glob("posterior.zarr/mean/c/0/**/*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    with changed(shard, data):
        run, said = updated()
    assert "damaged there" in said[-1] and run.summary["update"]["reused"] < 3
    same(fresh, run.paths.root)


def with_bands(catalog, *bands, first=""):
    """A survey file beside ``catalog`` with these bands (f200w as it is, others drawn anew on its grid), and
    what is to stand ``first`` in it."""
    text = catalog.with_suffix(".toml").read_text()
    head, _, about = text.partition("[bands.f200w]\n")
    lines = [first, head]
    for number, band in enumerate(bands):
        image, header = fits.getdata(catalog.with_name("sci.fits"), header=True)
        noise = np.random.default_rng(number).normal(0, 1, image.shape)
        fits.writeto(
            catalog.with_name(f"{band}.fits"), (1.7 * image + noise).astype("f4"), header, overwrite=True
        )
        own = about if band == "f200w" else about.replace("sci.fits", f"{band}.fits")
        lines.append(f"[bands.{band}]\n{own}")
    path = catalog.with_name(f"{'-'.join(bands)}{bool(first)}.toml")
    path.write_text("\n".join(lines))
    return path


def test_a_band_that_leads_nothing_leaves_the_others_as_they_are(tmp_path):
    """Two bands are there, and a third is added in which no segments are found: of the old sources it alone
    is drawn; colours of old and new bands, and every other byte, are those of a run from nothing."""
    catalog = toys.write_sizes(tmp_path)
    how = HOW | {"batch": 4}
    three = with_bands(catalog, "f115w", "f200w", "f444w", first='segment_bands = ["f200w", "f444w"]')
    two = with_bands(catalog, "f200w", "f444w")
    old = process(catalog, two, tmp_path / "old.run", limit=4, **how)
    fresh = process(catalog, three, tmp_path / "fresh.run", **how)
    said = []
    run = process(
        catalog, three, tmp_path / "new.run", update=str(old.paths.root), on_message=said.append, **how
    )
    same(fresh.paths.root, run.paths.root)
    assert np.isfinite(run.values("color_f115w_f200w_p50")["color_f115w_f200w_p50"][:2]).all()
    new = run.layout.n_sources - 4
    assert run.summary["update"]["reused_in_old_bands"] == 3
    assert run.summary["draws"] == (3 + 3 * new) * HOW["draws"]  # of the third band, and of all bands
    said = [line for line in said if line.startswith("update")]
    assert "3 sources taken over" in said[-1] and "drawn in those added" in said[-1]
    assert not any("segment_bands =" in line for line in said)


def test_a_band_that_changes_the_segments_takes_nothing_over_and_says_how_to_keep_them(tmp_path):
    catalog = toys.write_survey(tmp_path, n=3)
    old = process(catalog, with_bands(catalog, "f200w"), tmp_path / "old.run", **HOW)
    two, said = with_bands(catalog, "f200w", "f444w"), []
    run = process(
        catalog, two, tmp_path / "new.run", update=str(old.paths.root), on_message=said.append, **HOW
    )
    assert run.summary["update"]["changed:f200w"] == 3 and "reused_in_old_bands" not in run.summary["update"]
    assert any('segment_bands = ["f200w"]' in line for line in said)
    same(process(catalog, two, tmp_path / "fresh.run", **HOW).paths.root, run.paths.root)


@pytest.mark.parametrize("before", ["stored", "none"])
def test_a_run_without_draws_can_add_a_band_to_one_that_has_them(tmp_path, before):
    catalog, how = toys.write_survey(tmp_path, n=3), HOW | {"samples": "none"}
    two, said = with_bands(catalog, "f200w", "f444w", first='segment_bands = ["f200w"]'), []
    old = process(catalog, with_bands(catalog, "f200w"), tmp_path / "old.run", **HOW | {"samples": before})
    update = str(old.paths.root)
    run = process(catalog, two, tmp_path / "new.run", update=update, on_message=said.append, **how)
    same(process(catalog, two, tmp_path / "fresh.run", **how).paths.root, run.paths.root)
    if before == "stored":
        assert run.summary["update"]["reused_in_old_bands"] == 3
    else:
        assert any("which that run did not store" in line for line in said)


class TestJoint:
    """Bands that are sampled together."""

    @pytest.fixture
    def run(self, tmp_path):
        """A call for (run, what it said) of a joint run of two bands, or of three."""
        catalog = toys.write_survey(tmp_path, n=4)
        names = ("f115w", "f200w", "f444w")
        surveys = {n: with_bands(catalog, *names[-n:], first='segment_bands = ["f200w"]') for n in (2, 3)}

        def run(out, n=2, **options):
            said = []
            how = HOW | {"prior": toys.JointRedPrior(), "joint": True, "batch": 4} | options
            return process(catalog, surveys[n], tmp_path / out, on_message=said.append, **how), said

        return run

    def test_sources_are_added_and_a_pixel_of_one_band_changes(self, run, tmp_path):
        """A source is drawn again in all bands where it changed in one, for each band decides the others."""
        old, _ = run("old.run", limit=3)
        place = tmp_path / "f444w.fits"
        image, header = fits.getdata(place, header=True)
        x, y = old.wcs(101).all_world2pix(*(old.row(101)[k].value for k in ("ra", "dec")), 0)
        there = np.argwhere(image == old.observed(101, "f444w")[int(y + 0.5), int(x + 0.5)])
        image[tuple(there[0])] += 50
        fits.writeto(tmp_path / "other.fits", image, header)
        with changed(place, (tmp_path / "other.fits").read_bytes()):
            new, said = run("new.run", update=str(old.paths.root))
            whole, _ = run("whole.run")
        number = new.summary["update"]["changed:f444w"]
        assert 1 <= number < 3 and new.summary["update"]["reused"] == 3 - number
        assert "changed:f200w" not in new.summary["update"] and "computed: 1 new" in said[-2] + said[-1]
        same(whole.paths.root, new.paths.root)

    def test_a_band_that_is_added_changes_all_and_the_run_says_so(self, run):
        old, _ = run("old.run")
        new, said = run("new.run", n=3, update=str(old.paths.root))
        assert any("all are sampled together: --separate" in line for line in said)
        assert "update" not in new.summary
        same(run("whole.run", n=3)[0].paths.root, new.paths.root)

    def test_a_joint_model_that_sees_each_band_by_itself_keeps_them(self, run):
        old, _ = run("old.run", joint=False)
        new, _ = run("new.run", n=3, joint=False, update=str(old.paths.root))
        assert new.summary["update"]["reused_in_old_bands"] == 4
        same(run("whole.run", n=3, joint=False)[0].paths.root, new.paths.root)


@pytest.mark.ci("obstore", "moto")
@pytest.mark.parametrize("samples", ["stored", "regenerate"])
def test_a_run_in_a_bucket_updates_another_there(survey, tmp_path, samples):
    """And has the bytes of one in a folder that updates nothing; also where the earlier run is elsewhere."""
    from bucket import amazon, contents, exported, same_bytes

    from galbatch.cli.main import main

    how = HOW | {"samples": samples}
    whole = process(survey, out=tmp_path / "whole.run", batch=4, **how).paths.root
    with exported(amazon()):
        old = process(survey, out="s3://bucket/old.run", limit=4, batch=3, **how)
        before = contents(old.paths.root)
        for out in ("s3://bucket/new.run", str(tmp_path / "new.run")):
            run = process(survey, out=out, batch=4, update="s3://bucket/old.run", **how)
            assert run.summary["update"]["reused"] == 3 and run.summary["draws"] == 2 * HOW["draws"]
            same_bytes(whole, run.paths.root) if "://" in out else same(whole, run.paths.root)
            assert verify(out) == [] and main(["status", out]) == 0
        run = process(survey, out="s3://bucket/x.run", batch=4, update=str(tmp_path / "new.run"), **how)
        assert run.summary["update"]["reused"] == 5
        same_bytes(whole, run.paths.root)
        assert contents(old.paths.root) == before, "the earlier run stays as it is"


@pytest.mark.parametrize(
    "bands, change, why",
    [
        (("f200w", "f444w"), {"samples": "regenerate"}, "samples was stored, is regenerate"),
        (("f444w",), {}, "bands were f200w, are f444w"),
    ],
)
def test_bands_that_cannot_be_joined_are_computed(tmp_path, bands, change, why):
    catalog = toys.write_survey(tmp_path, n=2)
    old = process(catalog, with_bands(catalog, "f200w"), tmp_path / "old.run", **HOW)
    said = []
    process(
        catalog,
        with_bands(catalog, *bands),
        tmp_path / "new.run",
        update=str(old.paths.root),
        on_message=said.append,
        **HOW | change,
    )
    assert any("nothing can be taken over" in line and why in line for line in said)
