"""Planes that would spoil a run are found by check, each with its remedy; a noise map is held to the sky."""

import numpy as np
import pytest
from cutouts_field import gaussian_psf, noise_field, simple_survey, sources, wcs_of, write_image

from galbatch.cutouts import check_noise, check_tile_names, open_survey
from galbatch.cutouts.psf.check import limit_arcsec


def found(survey, code):
    return [f for f in survey.check() if f.code == code]


@pytest.mark.parametrize(("value", "level"), [(0.0, "error"), (np.nan, "error"), (-1.0, "error")])
def test_an_error_map_without_a_value_is_an_error(tmp_path, value, level):
    (finding,) = found(
        open_survey(simple_survey(tmp_path, err=np.full((300, 260), value, "f4"))), "noise_values"
    )
    assert finding.level == level and "100%" in finding.what and "err.fits" in finding.what


def test_an_error_map_with_few_values_is_a_warning_and_a_masked_border_is_none(tmp_path):
    err = np.full((300, 260), 0.5, "f4")
    err[:100] = 0
    assert not found(open_survey(simple_survey(tmp_path, err=err)), "noise_values")
    err[:200] = 0
    (finding,) = found(open_survey(simple_survey(tmp_path, err=err)), "noise_values")
    assert finding.level == "warn"


def test_an_error_map_in_another_unit_is_named_with_the_factor(tmp_path):
    path = simple_survey(tmp_path)
    write_image(tmp_path / "err.fits", np.full((300, 260), 0.0005, "f4"), wcs_of(), BUNIT="uJy")
    (finding,) = found(open_survey(path), "noise_unit")
    assert finding.level == "error" and "'uJy'" in finding.what and "err_scale = 1000" in finding.remedy
    write_image(tmp_path / "err.fits", np.full((300, 260), 0.5, "f4"), wcs_of(), BUNIT="nJy")
    assert not found(open_survey(path), "noise_unit")


def test_a_psf_as_wide_as_the_stamp_is_an_error(tmp_path):
    (finding,) = found(open_survey(simple_survey(tmp_path, head="stamp_arcsec = 0.2")), "psf_wide")
    assert finding.level == "error" and "stamp_arcsec = 1" in finding.remedy


def test_a_missing_file_of_the_noise_correlation_is_an_error(tmp_path):
    (finding,) = found(open_survey(simple_survey(tmp_path, extra='noise_acf = "no.fits"')), "noise_acf")
    assert finding.level == "error" and "no.fits" in finding.what


def test_tiles_that_the_survey_does_not_have_are_named(tmp_path):
    survey = open_survey(simple_survey(tmp_path, noise_field()))
    rows = sources([100, 120], [100, 120])
    assert check_tile_names(survey, [(0, rows)]) == []
    rows["tile"] = np.array(["0", "north"], dtype=object)
    (finding,) = check_tile_names(survey, [(0, rows)])
    assert finding.level == "error" and finding.what.startswith("1 rows") and "'north'" in finding.what


def defaults(folder, err=0.5, sci=None, extra=""):
    """A survey file that says nothing about its noise; noise_field has a scatter of 0.5."""
    path = simple_survey(folder, sci, err=np.full((300, 260), err, "f4"))
    lines = path.read_text().splitlines()
    kept = [x for x in lines if x.split(" =")[0] not in ("err_scale", "noise_acf", "error_floor")]
    path.write_text("\n".join([*kept, extra]) + "\n")
    return open_survey(path)


def test_by_default_a_map_that_is_off_is_mended_and_said_with_its_line(tmp_path):
    survey = defaults(tmp_path, err=0.95)
    stamp = survey.cut(sources([130], [150]), 24).bands[0]
    assert float(np.median(stamp.sigma)) == pytest.approx(0.5, rel=0.02)
    (finding,) = check_noise(survey)
    assert finding.level == "warn" and finding.remedy.endswith("write err_scale = 0.525 in [bands.f200w].")
    assert survey.measured["f200w"]["0"]["err_scale"] == pytest.approx(0.526, rel=0.02)


@pytest.mark.parametrize(("err", "why"), [(0.866, "allows for this correlation"), (0.6, "map is wrong")])
def test_a_map_that_is_larger_as_it_allows_for_correlation_is_said_to_be_so(tmp_path, err, why):
    image = noise_field()
    image = ((image + np.roll(image, 1, 0) + np.roll(image, 1, 1)) / np.sqrt(3)).astype("f4")
    (finding,) = check_noise(defaults(tmp_path, err=err, sci=image))  # sums scatter by 0.866 per pixel
    assert why in finding.what


def test_a_stated_factor_is_kept_and_held_to_the_sky(tmp_path):
    survey = defaults(tmp_path, err=0.95, extra="err_scale = 1.0")
    assert float(np.median(survey.cut(sources([130], [150]), 24).bands[0].sigma)) == pytest.approx(0.95)
    (finding,) = check_noise(survey)
    assert finding.level == "warn" and finding.remedy == "In [bands.f200w] write: err_scale = 0.525"


def test_a_map_that_is_right_is_no_warning_and_white_noise_stays_white(tmp_path):
    survey = defaults(tmp_path)
    assert [f.level for f in check_noise(survey)] == ["info"] and survey.noise_acf("f200w") is None


def test_correlated_noise_is_found_by_default_and_missed_noise_is_a_warning(tmp_path):
    image = noise_field()
    image = ((image + np.roll(image, 1, 0) + np.roll(image, 1, 1)) / np.sqrt(3)).astype("f4")
    acf = defaults(tmp_path, sci=image).noise_acf("f200w")
    assert acf[3, 4] == pytest.approx(1 / 3, abs=0.03)
    survey = defaults(tmp_path, sci=image, extra='noise_acf = "none"')
    assert [f.remedy for f in check_noise(survey) if f.level == "warn"] == [
        'In [bands.f200w] write: noise_acf = "measure"'
    ]


def test_without_blank_sky_the_map_is_used_as_it_is_unless_measuring_was_asked_for(tmp_path):
    image = np.full((300, 260), np.nan, "f4")
    image[130:170, 110:150] = np.random.default_rng(1).normal(size=(40, 40)).astype("f4")
    survey = defaults(tmp_path, sci=image)
    assert float(survey.cut(sources([130], [150]), 24).bands[0].sigma[0, 12, 12]) == 0.5
    (finding,) = check_noise(survey)
    assert finding.level == "warn" and "used as it is" in finding.what
    assert "err_scale = FACTOR" in finding.remedy
    (finding,) = check_noise(defaults(tmp_path, sci=image, extra='err_scale = "measure"'))
    assert finding.level == "error" and "err_scale = 1.0" in finding.remedy


@pytest.mark.parametrize(("layout", "band", "card", "limit"), [
    ("generic", "f200w", {"TELESCOP": "JWST"}, 0.0654),
    ("generic", "f1000w", {"TELESCOP": "JWST"}, 0.327),
    ("hst", "f606w", {}, 0.0536),
    ("generic", "anything", {"TELESCOP": "HST", "PHOTPLAM": 15369.2}, 0.1361),
    ("euclid-mer", "VIS", {}, 0.1266),
    ("generic", "f200w", {}, None),
])  # fmt: skip
def test_diffraction_limits(layout, band, card, limit):
    assert limit_arcsec(layout, band, card) == (limit and pytest.approx(limit, rel=0.01))


def test_a_psf_sharper_than_the_telescope_is_an_error(tmp_path):
    path = simple_survey(tmp_path, TELESCOP="JWST")
    assert not any(f.code == "psf_sharp" for f in open_survey(path).check())
    write_image(tmp_path / "psf.fits", gaussian_psf(), wcs_of(), PIXSCALE=0.01)
    path.write_text(path.read_text() + "psf_scale_arcsec = 0.01\n")
    (finding,) = (f for f in open_survey(path).check() if f.code == "psf_sharp")
    assert finding.level == "error" and "0.065" in finding.what
