"""The columns of a run are defined once, and the catalogue is one that a person can print."""

import pytest

from galbatch.columns import (
    INTERVAL,
    LARGEST,
    MEASURED,
    QUANTITIES,
    STATISTICS,
    SUMMARIES,
    Column,
    columns_of,
    expand,
    statistics_of,
)
from galbatch.flags import FLAGS
from galbatch.morphology.calibration import CALIBRATED
from galbatch.pipeline.measurement import empty_columns

BANDS = ("f115w", "f150w", "f200w", "f277w", "f356w", "f410m", "f444w")


@pytest.mark.parametrize("n", range(1, len(BANDS) + 1))
def test_no_catalogue_has_more_than_45_columns_per_band(n):
    """All that a run adds to the columns of the user, those of the source and colours included."""
    found = columns_of(BANDS[:n], draws=True)
    printed = [name for name, about in found.items() if about.table == "catalog"]
    assert 33 * n < len(printed) <= LARGEST * n


def test_the_catalogue_holds_calibrated_intervals_and_no_other_statistic():
    found = columns_of(BANDS[:2], draws=True)
    for quantity, about in QUANTITIES.items():
        for name in statistics_of(about, draws=True):
            column = found[f"{quantity}_{name}_f150w"]
            assert (column.table == "catalog") == (about.table == "catalog" and name in INTERVAL)
            assert name not in INTERVAL or quantity in (*CALIBRATED, "mag_ab")
            assert "(band f150w)" in column.description and column.ucd.startswith(about.ucd)


def test_order_is_quantity_band_statistic_and_grades_at_the_end():
    names = [name for name, about in columns_of(BANDS[:2]).items() if about.table == "catalog"]
    assert names[:4] == [
        "flux_njy_p16_f115w",
        "flux_njy_p50_f115w",
        "flux_njy_p84_f115w",
        "flux_njy_p16_f150w",
    ]
    end = ["quality_f115w", "quality_f150w", "quality", "flags_f115w", "flags_f150w", "flags", "status"]
    end += ["chi2_f115w", "chi2_f150w", "prior_driven_frac_f115w", "prior_driven_frac_f150w", "n_draws_ok"]
    assert names[-len(end) - 4 : -4] == end and names[-1] == "_healpix_29"


def test_patterns_stand_for_bands_and_for_two_that_follow_each_other():
    about = Column("mag", "phot.color", "a difference")
    found = expand("difference_{pair}_p50", about, BANDS[:3])
    assert list(found) == ["difference_f115w_f150w_p50", "difference_f150w_f200w_p50"]
    assert found["difference_f115w_f150w_p50"].description == "a difference (f115w - f150w)"
    assert list(expand("x_{band}", about, BANDS[:2])) == ["x_f115w", "x_f150w"]
    assert expand("x", about, BANDS) == {"x": about} and expand("x_{pair}", about, BANDS[:1]) == {}
    assert "color_radius" not in columns_of(BANDS[:1]) and "color_f115w_f150w_p16" in columns_of(BANDS[:2])


def test_every_column_has_a_meaning_a_table_and_flags_with_a_level():
    for name, about in columns_of(BANDS[:2], draws=True).items():
        assert about.description and about.table in ("catalog", "statistics"), name
        assert all(flag in FLAGS for flag in FLAGS if about.flags & flag)
    assert {s for names in SUMMARIES.values() for s in names} | {"draws"} == set(STATISTICS)
    assert {about.summary for about in QUANTITIES.values()} == set(SUMMARIES)
    assert all(about.table == "statistics" for name, about in MEASURED.items() if name.startswith("p_"))


def test_units_and_ucds_are_those_of_the_standards():
    u = pytest.importorskip("astropy.units")
    from astropy.io.votable.ucd import check_ucd

    for name, about in columns_of(BANDS[:2], draws=True).items():
        u.Unit(about.unit)
        assert not about.ucd or check_ucd(about.ucd, check_controlled_vocabulary=True), (name, about.ucd)


def test_a_batch_begins_with_every_column_empty():
    found, info = empty_columns(BANDS[:2], 3), columns_of(BANDS[:2])
    assert set(info) - set(found) == {"source_id", "ra", "dec", "_healpix_29"}
    for name, values in found.items():
        kind = "O" if info[name].dtype == "str" else info[name].dtype
        assert values.shape == (3,) and values.dtype == kind, name
