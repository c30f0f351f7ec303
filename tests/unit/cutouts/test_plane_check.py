"""Planes beside the science image that would spoil a run are found by check, each with its remedy."""

import numpy as np
import pytest
from cutouts_field import noise_field, simple_survey, sources, wcs_of, write_image

from galbatch.cutouts import check_tile_names, open_survey


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
