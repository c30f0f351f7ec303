"""Positions of sources, looked up in the plan."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch.errors import RunError
from galbatch.store.plan import PlanWriter, plan_batch
from galbatch.store.selection import find_sources, read_row

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


def test_integers_are_looked_for_where_they_can_be(tmp_path, monkeypatch):
    """In two row groups of ten; what is no integer as the catalogue has it is nowhere."""
    read, groups = pq.ParquetFile.read_row_group, []
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, g, *a, **k: groups.append(g) or read(self, g, *a, **k)
    )
    wanted = {str(NUMBERS[5]), str(NUMBERS[950]), "-3"} | {
        "007",
        "+4",
        "4.0",
        "x",
        "",
        "9" * 19,
        "9" * 400,
        "٤",
    }
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


def test_a_row_and_its_batch_are_read_alone(tmp_path, monkeypatch):
    with PlanWriter(tmp_path / "plan.parquet", 7) as plan_writer:
        ids = np.arange(200_000)
        plan_writer.add({"source_id": ids, "tile": np.full(len(ids), "t")}, {"note": ids % 11})
    read, groups = pq.ParquetFile.read_row_group, []
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, g, *a, **k: groups.append(g) or read(self, g, *a, **k)
    )
    path = tmp_path / "plan.parquet"
    for row in (0, 6, 7, 65_533, 65_534, 131_072, 199_999):
        batch = plan_batch(path, row)
        assert batch.batch == row // 7 and batch.columns["source_id"][row % 7] == row
        assert read_row(path, row) | {"source_id": row, "cat:note": row % 11} == read_row(path, row)
    assert set(groups) == {0, 1, 2, 3} and len(groups) == 7 * 3
    for row in (-1, 200_000):
        with pytest.raises(IndexError, match=f"row {row} of 200000"):
            read_row(path, row)
