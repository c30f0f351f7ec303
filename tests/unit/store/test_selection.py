"""Choosing sources by grade, by S/N, the worst first; and looking them up in the plan."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import QTable

from galbatch.errors import InputError, RunError
from galbatch.flags import Flag
from galbatch.store.plan import PlanWriter, plan_batch
from galbatch.store.selection import chosen, find_sources, grade_counts, read_row, worst_first


@pytest.fixture
def groups(monkeypatch):
    """The row groups that are read, as they are read."""
    read, seen = pq.ParquetFile.read_row_group, []
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, g, *a, **k: seen.append(g) or read(self, g, *a, **k)
    )
    return seen


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


NUMBERS = np.arange(1000) * 7 - 3
WORDS = [f"Gal-{k}{'xX'[k % 2]}" for k in range(998)] + ["GAL-3x", "É"]


def plan(path, ids):
    pq.write_table(
        pa.table({"tile": np.zeros(len(ids)), "source_id": pa.array(ids)}), path, row_group_size=100
    )
    return path


@pytest.mark.parametrize("ids", [NUMBERS, WORDS])
def test_all_are_found_where_they_are(tmp_path, ids):
    found = find_sources(plan(tmp_path / "plan.parquet", ids))
    assert found == {str(i): row for row, i in enumerate(list(ids))}


def test_integers_are_looked_for_where_they_can_be(tmp_path, groups):
    """In two row groups of ten; what is no integer as the catalogue has it is nowhere."""
    no_integers = {*"007 +4 4.0 x \u0664".split(), "", "9" * 19, "9" * 400}
    wanted = {str(NUMBERS[5]), str(NUMBERS[950]), "-3"} | no_integers
    found = find_sources(plan(tmp_path / "plan.parquet", NUMBERS), wanted)
    assert found == {"-3": 0, "32": 5, "6647": 950} and groups == [0, 9]


def test_words_are_found_with_those_that_differ_in_capitals(tmp_path):
    path = plan(tmp_path / "plan.parquet", WORDS)
    assert find_sources(path, ["Gal-3X", "Gal-4x", "é"]) == {"Gal-3X": 3, "GAL-3x": 998, "Gal-4x": 4}
    assert find_sources(path, ["Gal-5"]) == {}


def test_a_damaged_plan_is_said_with_what_mends_it(tmp_path):
    (tmp_path / "plan.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"plan.parquet: cannot be read .* `galbatch resume"):
        find_sources(tmp_path / "plan.parquet", ["1"])


def test_a_row_and_its_batch_are_read_alone(tmp_path, groups):
    with PlanWriter(tmp_path / "plan.parquet", 7) as plan_writer:
        ids = np.arange(200_000)
        plan_writer.add({"source_id": ids, "tile": np.full(len(ids), "t")}, {"note": ids % 11})
    path = tmp_path / "plan.parquet"
    for row in (0, 6, 7, 65_533, 65_534, 131_072, 199_999):
        batch = plan_batch(path, row)
        assert batch.batch == row // 7 and batch.columns["source_id"][row % 7] == row
        assert read_row(path, row) | {"source_id": row, "cat:note": row % 11} == read_row(path, row)
    assert set(groups) == {0, 1, 2, 3} and len(groups) == 7 * 3
    for row in (-1, 200_000):
        with pytest.raises(IndexError, match=f"row {row} of 200000"):
            read_row(path, row)
