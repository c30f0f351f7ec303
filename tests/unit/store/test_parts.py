"""Parts: joined, damaged, missing, or of another plan."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored import INFO, make_run, result

from galbatch.errors import RunError
from galbatch.store import catalog, parts
from galbatch.store.catalog import merge_catalog
from galbatch.store.checksums import DamagedBatch
from galbatch.store.ledger import progress
from galbatch.store.parts import commit_batch, damaged_parts, read_attempt
from galbatch.store.paths import RunPaths
from galbatch.store.plan import iter_plan
from galbatch.store.verify import verify_store


def test_many_parts_are_joined_in_the_order_of_the_plan(tmp_path, monkeypatch):
    """Whatever is joined at once and however row groups fall: the same rows, each with its own values."""
    paths, _ = make_run(tmp_path, n=103, batch=4)
    merge_catalog(paths, INFO)
    whole = pq.read_table(paths.catalog)
    assert whole["flux_njy_p50_f200w"].to_pylist() == [*range(1, 103, 2), *range(0, 103, 2)]
    assert whole["source_id"].to_pylist() == pq.read_table(paths.plan)["source_id"].to_pylist()
    monkeypatch.setattr(catalog, "_GROUP_BYTES", 1_500)
    merge_catalog(paths, INFO)
    pieces = pq.read_table(paths.catalog)
    gini = pieces.column_names.index("gini_p50_f200w")
    assert np.array_equal(pieces[gini], whole[gini], equal_nan=True)
    assert pieces.remove_column(gini).equals(whole.remove_column(gini))
    assert pq.read_metadata(paths.catalog).num_row_groups > 3


FLOATS = {f"f{k}": np.linspace(k, k + 1, 7, dtype=np.float32) for k in range(5)}


WORDS = {"source_id": np.arange(7), "status": np.array(["ok", "flagged", "failed"] * 3, object)[:7]}


LISTS = {"draws": np.arange(14.0, dtype=np.float32).reshape(7, 2)}


@pytest.mark.parametrize("columns, as_one_block", [
    (FLOATS | WORDS | LISTS, 5),
    (FLOATS, 5),
    (WORDS | FLOATS, 5),  # written first, as of a batch, which begins with its ids
    (LISTS | WORDS, 0),
    ({"f0": FLOATS["f0"]} | WORDS, 0),
])  # fmt: skip
def test_joined_parts_are_what_arrow_reads(tmp_path, monkeypatch, columns, as_one_block):
    """In one piece a column; hundreds of float32 columns take one copy a part, wherever they may lie."""
    paths = RunPaths(tmp_path)
    paths.parts.mkdir()
    sizes, seen, join = (7, 1, 4), [], np.concatenate
    for batch, n in enumerate(sizes):
        parts.write_part(paths, batch, {name: values[:n] for name, values in columns.items()})
    data = [paths.part(batch).read_bytes() for batch in range(len(sizes))]
    monkeypatch.setattr(np, "concatenate", lambda blocks, axis: seen.extend(blocks) or join(blocks, axis))
    found = parts.join_parts(data)
    assert found.equals(pa.concat_tables([pa.ipc.open_stream(part).read_all() for part in data]))
    assert {column.num_chunks for column in found.columns} == {1}
    assert [block.shape for block in seen] == [(as_one_block, n) for n in sizes if as_one_block]


def test_missing_values_in_parts_stay_missing():
    """galbatch writes none into a part; a reader that took their place for a number would invent some."""
    rows = pa.record_batch({f"f{k}": pa.array([1.0, None, 3.0], pa.float32()) for k in range(3)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as out:
        out.write_batch(rows)
    part = sink.getvalue().to_pybytes()
    assert parts.join_parts([part, part]).equals(pa.Table.from_batches([rows, rows]))


def harm(path, kind):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"a bit": bytes(data), "cut short": data[:-40], "empty": b""}[kind])


@pytest.mark.parametrize("kind", ["a bit", "cut short", "empty"])
@pytest.mark.parametrize("file", ["part", "attempt"])
def test_a_damaged_part_is_refused_and_computed_again(tmp_path, file, kind):
    """Part and note vouch for each other: either one damaged, and the batch counts as not committed."""
    paths, layout = make_run(tmp_path)
    harm(getattr(paths, file)(1), kind)
    with pytest.raises(DamagedBatch, match="batch-000001") as caught:
        merge_catalog(paths, INFO)
    assert pickle.loads(pickle.dumps(caught.value)).batch == caught.value.batch == 1
    assert not paths.catalog.exists() and not paths.orphans()
    assert any("batch-000001" in problem for problem in verify_store(paths).problems)
    assert set(damaged_parts(paths)) == {1}
    commit_batch(paths, layout, result(list(iter_plan(paths.plan))[1]))
    assert merge_catalog(paths, INFO) == {"ok": 9, "failed": 1} and damaged_parts(paths) == {}


def test_equal_batches_make_equal_parts(tmp_path):
    paths, layout = make_run(tmp_path)
    before = paths.part(0).read_bytes()
    commit_batch(paths, layout, result(next(iter_plan(paths.plan))), attempt=2)
    assert paths.part(0).read_bytes() == before
    assert read_attempt(paths, 0)["attempt"] == 2
    with pa.ipc.open_stream(before) as stream:  # what anybody's Arrow reads
        assert stream.read_all()["flux_njy_p50_f200w"].to_pylist() == [1, 3, 5, 7]


def test_a_part_of_another_plan_is_refused(tmp_path):
    paths, layout = make_run(tmp_path)
    other = result(next(iter_plan(paths.plan)))
    other.columns["source_id"] = other.columns["source_id"] + 1
    commit_batch(paths, layout, other)
    with pytest.raises(RunError, match=r"batch-000000.arrow: its source ids .* belongs to another plan"):
        merge_catalog(paths, INFO)


def test_a_missing_part_is_no_catalogue(tmp_path):
    paths, _ = make_run(tmp_path)
    paths.part(1).unlink()
    with pytest.raises(RunError, match="not finished"):
        merge_catalog(paths, INFO)
    assert not paths.catalog.exists() and not paths.orphans()
    assert progress(paths)["sources"] == 6 and not progress(paths)["finished"]
