"""From a run folder to pictures, page and exports, through the command line."""

import numpy as np
import pytest
from fake_run import BANDS, FAILED_ID, FIRST_ID, export, write_fake_run

import galbatch
from galbatch.cli.main import main
from galbatch.errors import InputError, RunError
from galbatch.report.gather import gather
from galbatch.report.read import RunReader
from galbatch.store import Run


def test_one_source_is_shown_without_the_catalogue_of_all(tmp_path, monkeypatch):
    """Its row alone is read of the tables: with 10^7 sources, they are gigabytes."""
    run = galbatch.open_run(write_fake_run(tmp_path / "a.run").root)
    with_all, alone = RunReader(run), RunReader(galbatch.open_run(run.paths.root))
    names = [n for n in with_all.columns if with_all.columns[n].dtype.kind in "fiu"]
    monkeypatch.setattr(Run, "catalog", property(lambda run: pytest.fail("the catalogue was read")))
    for source_id in run.finished_ids():
        for name in [*names, "no such column"]:
            expected = with_all.number(name, source_id)
            np.testing.assert_equal(alone.number(name, source_id), expected, err_msg=name)
        for band in run.bands:
            assert alone.view(source_id, band).facts == with_all.view(source_id, band).facts
    assert len(names) > 20 and "columns" not in vars(alone)


def test_view_holds_what_the_store_holds(run):
    view = RunReader(run).view(FIRST_ID + 1, "f444w")
    assert np.array_equal(view.samples, run.samples(FIRST_ID + 1, "f444w"))
    assert np.array_equal(view.observed, run.observed(FIRST_ID + 1, "f444w"))
    assert np.array_equal(view.mask, run.mask(FIRST_ID + 1, "f444w") > 0)
    gini = next(n for n in view.numbers if n.name == "gini")
    assert (gini.p16, gini.p50, gini.p84, gini.obs) == pytest.approx((0.481, 0.501, 0.531, 0.511), abs=1e-6)
    assert view.facts["chi2 per pixel"].startswith("0.900")
    assert view.north_deg == pytest.approx(0)
    assert view.truth is None and view.psf is None


@pytest.mark.parametrize("source_id, band, error, said", [
    (42, None, InputError, "42"),
    (FIRST_ID, "f999w", InputError, "f999w"),
    (FAILED_ID, None, RunError, r"outside every image \(OFF_IMAGE\)"),
])  # fmt: skip
def test_what_cannot_be_shown_is_said(run, source_id, band, error, said):
    with pytest.raises(error, match=said):
        RunReader(run).view(source_id, band)


def test_the_grade_of_the_band_and_of_all_bands_are_told_apart(run, monkeypatch):
    from galbatch.flags import Flag

    assert RunReader(run).view(FIRST_ID).facts["quality"] == "0: good"
    monkeypatch.setattr(RunReader, "_flags_of", lambda self, source_id, band: 0)
    monkeypatch.setattr(type(run), "flags", lambda self, source_id: int(Flag.BROKEN))
    assert RunReader(run).view(FIRST_ID).facts["quality"] == "0: good; all bands 2: do not use"


def test_show_prints_numbers_and_writes_the_figure(paths, tmp_path, capsys):
    png = tmp_path / "source.png"
    assert main(["show", str(paths.root), str(FIRST_ID), "--png", str(png), "--band", "f444w"]) == 0
    out = capsys.readouterr().out
    assert "f444w" in out and "Gini" in out and "0.500" in out
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and png.stat().st_size > 20_000


def test_the_worst_are_listed_with_figures(paths, run, tmp_path, capsys):
    assert len(run.good()) == len(run.select(2)) == 5 and FAILED_ID not in run.worst(9)
    png = tmp_path / "worst.png"
    assert main(["show", str(paths.root), "--worst", "2", "--png", str(png)]) == 0
    out = capsys.readouterr().out
    assert out.count("0 (good)") == 2 and len(list(tmp_path.glob("worst-*.png"))) == 2
    assert main(["show", str(paths.root)]) == 1 and "--worst" in capsys.readouterr().err


def test_run_show_returns_the_figure(run, tmp_path):
    figure = run.show(FIRST_ID, tmp_path / "a.png")
    assert "Posterior mean" in {axis.get_title() for axis in figure.axes}
    assert (tmp_path / "a.png").stat().st_size > 20_000


def test_summary_of_a_run(run):
    seen = []
    summary = gather(run, lambda: seen.append(1))
    assert summary.counts == {"sources": 6, "ok": 4, "flagged": 1, "failed": 1} and summary.balanced
    assert len(seen) == 6
    assert summary.bands == BANDS and summary.stages == {"cut": 0.5, "sample": 11.0}
    assert [row["source_id"] for row in summary.failures] == [str(FAILED_ID)]
    assert [(r.name, r.sources) for r in summary.reasons] == [("OFF_IMAGE", 1), ("NEIGHBOUR", 1)]
    at = summary.source_id.tolist().index(FAILED_ID)
    assert summary.strips["f200w"][at] is None
    assert all(s for i, s in enumerate(summary.strips["f200w"]) if i != at)
    assert ("network evaluations per draw", "18.0") in summary.rates


def test_report_says_from_what_a_run_was_made(paths):
    run = galbatch.open_run(paths.root)
    acf = np.zeros((5, 5))
    acf[[1, 3], 2], acf[2, [1, 3]], acf[2, 2] = 0.4, 0.2, 1
    found = {"err_scale": 0.45, "noise_acf": acf.tolist(), "blank_frac": 0.61}
    tiles = [{"sci": {"path": f"/data/mosaic-{n}.fits"}, "psf": {"path": "/data/psf.fits"}} for n in (1, 2)]
    run.manifest["measured"] = {"f200w": {"1": found, "2": found | {"err_scale": 0.5}}}
    run.manifest["config"]["survey_resolved"] = {"bands": [{"name": "f200w", "tiles": tiles}]}
    run.manifest["warnings"] = ["f200w: the noise map is 2.2 times too large. It is scaled."]
    summary = gather(run)
    said = {what: by_band["f200w"] for what, by_band in summary.provenance}
    assert said["images"] == "mosaic-1.fits and 1 more" and said["PSF"] == "psf.fits"
    assert said["noise against its map"] == "0.45 to 0.50 times (2 tiles)"
    assert said["correlation of neighbouring pixels"] == "0.30"
    assert summary.warnings == ("f200w: the noise map is 2.2 times too large. It is scaled.",)
    assert all(by_band["f444w"] == "" for _, by_band in summary.provenance)


def test_report_command_writes_the_page(paths, capsys):
    assert main(["report", str(paths.root)]) == 0
    page = paths.report.read_text()
    assert "fake.run" in page and str(FIRST_ID) in page and "outside every image" in page
    assert str(paths.report) in capsys.readouterr().out


def test_fits_export_reads_back_with_its_wcs(paths, run, tmp_path):
    from astropy.io import fits
    from astropy.wcs import WCS

    assert export(paths, "fits", tmp_path, "--ids", f"{FIRST_ID},{FIRST_ID + 1}") == 0
    assert {p.name for p in tmp_path.glob("[!.]*")} == {"1000.fits", "1001.fits"}
    with fits.open(tmp_path / "1001.fits") as planes:
        assert planes[0].header["OBJECT"] == "1001"
        assert np.array_equal(planes["F200W_SAMPLES"].data, run.samples(1001, "f200w"))
        assert np.array_equal(planes["F444W_OBSERVED"].data, run.observed(1001, "f444w"))
        assert planes["F200W_MEAN"].header["BUNIT"] == "nJy"
        wcs, expected = WCS(planes["F200W_MEAN"].header), run.wcs(1001, "f200w")
        assert np.allclose(wcs.all_pix2world(3, 5, 0), expected.all_pix2world(3, 5, 0), atol=1e-9)
    assert export(paths, "fits", tmp_path / "all") == 0  # that did not fail
    assert {int(path.stem) for path in (tmp_path / "all").glob("*.fits")} == {1000, 1001, 1002, 1004, 1005}


def test_hats_refuses_ids_and_galfit_needs_the_psf(paths, tmp_path, capsys):
    assert main(["export", str(paths.root), "--to", "hats", "--ids", "1000"]) == 1
    assert "--ids" in capsys.readouterr().err
    assert export(paths, "galfit", tmp_path, "--ids", "1000") == 1
    assert "PSF" in capsys.readouterr().err


def test_galfit_start_file_and_images(run, tmp_path, monkeypatch):
    import dataclasses

    from astropy.io import fits

    from galbatch.report.export import export_sources

    plain = RunReader.view
    psf = np.outer(np.hanning(9), np.hanning(9))

    def with_psf(self, source_id, band=None):
        return dataclasses.replace(plain(self, source_id, band), psf=psf / psf.sum(), psf_scale_arcsec=0.03)

    monkeypatch.setattr(RunReader, "view", with_psf)
    starts = export_sources(run, "galfit", [1001], tmp_path)
    assert [p.name for p in starts] == ["1001_f200w.galfit", "1001_f444w.galfit"]
    text = starts[0].read_text()
    values = {}  # the first of a number is the Sersic component, a later one the sky
    for line in text.splitlines():
        if ")" in line and not line.startswith("#"):
            values.setdefault(*line.split(")", 1))
    for letter in "ACDF":
        assert (tmp_path / values[letter].strip()).exists()
    assert values["H"].split() == ["1", "16", "1", "16"] and values["J"].strip() == "31.4"
    assert float(values[" 3"].split()[0]) == pytest.approx(24.301, abs=1e-3)
    assert float(values[" 4"].split()[0]) == pytest.approx(0.201 / 0.03, abs=1e-2)
    assert float(values[" 9"].split()[0]) == pytest.approx(0.699, abs=1e-3)
    assert float(values["10"].split()[0]) == pytest.approx(np.degrees(0.401) - 90, abs=0.1)
    mask = fits.getdata(tmp_path / values["F"].strip())
    assert np.array_equal(mask > 0, run.mask(1001, "f200w") > 0)
    sigma = fits.getdata(tmp_path / values["C"].strip())
    assert np.isfinite(sigma).all() and (sigma > 0).all()


def test_truth_is_cut_where_the_stamp_lies(run):
    """Every truth pixel holds its own mosaic coordinates, so that a shift by one pixel would show."""
    from galbatch.report.view import Truth, stamp_origin
    from galbatch.store import iter_plan

    rows = next(iter_plan(run.paths.plan)).columns
    row = {name: values[1:2] for name, values in rows.items()}
    origin = stamp_origin(run, 1001, row)
    assert origin == (20 - 7, 20 - 7)  # the WCS puts the source on pixel 7 of the stamp, the plan on pixel 20
    y, x = np.mgrid[0:40, 0:40]
    image = 1000.0 * (y + 5) + (x + 3)
    truth = Truth({"1001": 0}, BANDS, np.stack([image, image])[None], np.array([3]), np.array([5]), 0.03, 2.0)
    cut = truth.image(run, 1001, "f444w", origin)
    assert cut.shape == (16, 16) and cut[0, 0] == 1000 * 13 + 13 and cut[-1, -1] == 1000 * 28 + 28


def test_truth_of_another_grid_or_source_is_not_shown(run):
    from galbatch.report.view import Truth

    image = np.zeros((1, 2, 40, 40))
    for scale, fwhm, source_id, origin in [
        (0.06, 2.0, 1001, (13, 13)),
        (0.03, 3.0, 1001, (13, 13)),
        (0.03, 2.0, 1002, (13, 13)),
        (0.03, 2.0, 1001, (39, 13)),
    ]:
        truth = Truth({"1001": 0}, BANDS, image, np.array([3]), np.array([5]), scale, fwhm)
        assert truth.image(run, source_id, "f200w", origin) is None
