"""Choosing sources by grade: in a band or in all, by S/N, the worst first."""

import numpy as np
import pytest
from astropy.table import QTable

from galbatch.errors import InputError
from galbatch.flags import Flag
from galbatch.store.selection import chosen, grade_counts, quality_column, worst_first


@pytest.fixture
def table():
    """Good; good but for its second band; bad; failed; good and faint."""
    broken, level = int(Flag.BROKEN), int(Flag.NOISE_LEVEL)
    table = QTable(
        {
            "source_id": np.arange(5),
            "status": ["ok", "flagged", "flagged", "failed", "ok"],
            "flags": np.array([int(Flag.EDGE), level, broken | level, int(Flag.OFF_IMAGE), 0]),
            "quality": np.array([0, 1, 2, 2, 0], np.int8),
        }
    )
    for band, quality in (("a", [0, 0, 2, 2, 0]), ("b", [0, 1, 0, 2, 0])):
        table[f"quality_{band}"] = np.array(quality, np.int8)
        table[f"chi2_{band}"] = [1.0, 1.3, 9.0, np.nan, 1.1]
        flux, error = np.array([100.0, 100, 100, np.nan, 100]), np.array([1.0, 1, 1, np.nan, 50])
        for p, at in (("p16", -1), ("p50", 0), ("p84", 1)):
            table[f"flux_njy_{p}_{band}"] = flux + at * error
    return table


@pytest.mark.parametrize(("asked", "rows"), [
    ({}, [0, 4]),
    ({"band": "a"}, [0, 1, 4]),
    ({"quality": 1}, [0, 1, 4]),
    ({"quality": 2}, [0, 1, 2, 4]),
    ({"snr": 5}, [0]),
    ({"quality": 2, "band": "b", "snr": 5}, [0, 1, 2]),
])  # fmt: skip
def test_sources_are_chosen_by_grade(table, asked, rows):
    assert np.flatnonzero(chosen(table, ("a", "b"), **asked)).tolist() == rows


def test_there_is_no_other_quality(table):
    with pytest.raises(InputError, match="0 \\(good\\)"):
        chosen(table, ("a", "b"), 3)


def test_the_worst_come_first_and_failed_ones_not_at_all(table):
    assert worst_first(table, ("a", "b")).tolist() == [2, 1, 4, 0]


def test_every_source_is_counted_once_in_each_band(table):
    counts = grade_counts(table, ("a", "b"))
    assert counts == {"": (2, 1, 2), "a": (3, 0, 2), "b": (3, 1, 1)}


def test_a_run_without_quality_is_graded_by_its_flags(table):
    table.remove_columns(["quality", "quality_a", "quality_b"])
    assert quality_column(table).tolist() == quality_column(table, "b").tolist() == [0, 1, 2, 2, 0]
