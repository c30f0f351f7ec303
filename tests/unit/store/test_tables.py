"""Plan and catalogue: every row once, in both forms, whatever the parts have."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable import parse
from astropy.table import QTable
from stored import INFO, make_run, result

from galbatch.errors import InputError, RunError
from galbatch.store.catalog import merge_catalog
from galbatch.store.ledger import check_accounting
from galbatch.store.parts import commit_batch
from galbatch.store.plan import PlanWriter, iter_plan, plan_rows
from galbatch.store.reader import open_run
from galbatch.store.sky import healpix_nested


@pytest.mark.parametrize("spill", [500_000, 4])
def test_plan_is_sorted_by_tile_then_row_and_streams(tmp_path, spill):
    paths, _ = make_run(tmp_path, spill=spill)
    table = pq.read_table(paths.plan)
    assert table["source_row"].to_pylist() == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]
    assert table["batch"].to_pylist() == [0] * 4 + [1] * 4 + [2] * 2
    assert table["slot"].to_pylist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    batches = list(iter_plan(paths.plan))
    assert [b.name for b in batches] == [
        "galbatch-batch-000000-tile-a",
        "galbatch-batch-000001-tile-a+1",
        "galbatch-batch-000002-tile-b",
    ]
    assert batches[0].columns["source_id"].tolist() == [2**60 + r for r in (1, 3, 5, 7)]
    assert plan_rows(paths.plan) == 10 and not list(tmp_path.glob(".plan-*"))


def test_plan_refuses_columns_that_change_type(tmp_path):
    with pytest.raises(InputError, match="column types"), PlanWriter(tmp_path / "plan.parquet", 2) as plan:
        plan.add({"source_id": np.arange(2), "tile": np.array(["", ""])})
        plan.add({"source_id": np.array(["x", "y"]), "tile": np.array(["", ""])})
    assert not (tmp_path / "plan.parquet").exists()


def test_catalogue_has_every_row_once_with_units_in_both_forms(tmp_path):
    paths, _ = make_run(tmp_path)
    counts = merge_catalog(paths, INFO)
    assert check_accounting(paths, counts) == dict(planned=10, catalogue=10, ok=9, flagged=0, failed=1)
    with pytest.raises(RunError, match="do not balance"):
        check_accounting(paths, counts | {"ok": 8})
    table = QTable.read(paths.catalog)
    assert table.colnames[:5] == ["source_id", "ra", "dec", "redshift", "name"]
    assert table.colnames[-1] == "_healpix_29"
    assert table["source_id"].tolist() == [2**60 + r for r in (1, 3, 5, 7, 9, 0, 2, 4, 6, 8)]
    assert table["flux_njy_p50_f200w"].unit == "nJy" and table["ra"].unit == "deg"
    assert table["flux_njy_p50_f200w"].value.tolist() == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]
    assert table["name"][1] == "g3" and table["status"][1] == "failed"
    assert np.isnan(table["gini_p50_f200w"][1])
    assert table["gini_p50_f200w"].info.description == INFO["gini_p50_f200w"].description
    meta = pq.read_metadata(paths.catalog)
    xml = meta.metadata[b"IVOA.VOTable-Parquet.content"]
    (tmp_path / "v.xml").write_bytes(xml)
    fields = {f.name: f for f in parse(tmp_path / "v.xml", verify="exception").get_first_table().fields}
    assert list(fields) == table.colnames and fields["gini_p50_f200w"].ucd == "src.morph.param;stat.median"
    column = meta.row_group(0).column(meta.schema.to_arrow_schema().names.index("gini_p50_f200w"))
    assert column.compression == "ZSTD" and "BYTE_STREAM_SPLIT" in column.encodings
    assert not any("DICTIONARY" in e for e in column.encodings)
    failures = pq.read_table(paths.failures).to_pylist()
    assert [(f["source_id"], f["stage"], f["code"]) for f in failures] == [
        (str(2**60 + 3), "cutout", "OFF_IMAGE")
    ]
    assert failures[0]["worker"] and failures[0]["time"] > 1e9


def test_statistics_are_beside_the_catalogue_row_by_row(tmp_path):
    paths, _ = make_run(tmp_path)
    merge_catalog(paths, INFO)
    table, catalogue = QTable.read(paths.statistics), QTable.read(paths.catalog)
    assert table.colnames == ["source_id", "gini_obs_f200w"] and "gini_obs_f200w" not in catalogue.colnames
    assert table["source_id"].tolist() == catalogue["source_id"].tolist()
    assert table["gini_obs_f200w"].tolist() == [r + 0.5 for r in (1, 3, 5, 7, 9, 0, 2, 4, 6, 8)]
    assert table["gini_obs_f200w"].info.description == INFO["gini_obs_f200w"].description
    run = open_run(tmp_path)
    assert run.statistics.colnames == table.colnames and len(run.catalog) == 10
    found = run.values("gini_obs_f200w", "redshift", "nothing")
    assert set(found) == {"gini_obs_f200w", "redshift"}
    assert found["gini_obs_f200w"].tolist() == table["gini_obs_f200w"].tolist()
    paths.statistics.unlink()
    with pytest.raises(RunError, match=r"statistics.parquet: not written yet.*galbatch resume"):
        open_run(tmp_path).statistics  # noqa: B018


def test_columns_are_in_the_order_of_their_definition(tmp_path):
    """Whatever the order of the parts; those that nobody defined follow."""
    paths, _ = make_run(tmp_path)
    merge_catalog(paths, dict(reversed(INFO.items())))
    names = pq.read_schema(paths.catalog).names
    assert names[5:] == ["flux_njy_p50_f200w", "gini_p50_f200w", "status", "flags", "_healpix_29"]


def test_parts_may_differ_in_their_columns(tmp_path):
    """A column that only later parts have, of one value or several a row, is NaN where it lacks."""
    paths, layout = make_run(tmp_path)
    for rows in iter_plan(paths.plan):
        made = result(rows)
        if rows.batch:
            made.columns["late"] = np.full(len(rows), rows.batch, np.float32)
            made.columns["odd"] = np.full(len(rows), rows.batch, np.uint8)
            made.columns["draws"] = np.arange(2 * len(rows), dtype=np.float64).reshape(-1, 2)
        commit_batch(paths, layout, made)
    assert merge_catalog(paths, INFO) == {"ok": 9, "failed": 1}
    table = pq.read_table(paths.catalog)
    assert np.array_equal(table["late"], [np.nan] * 4 + [1.0] * 4 + [2.0] * 2, equal_nan=True)
    assert table["odd"].to_pylist() == [None] * 4 + [1] * 4 + [2] * 2
    draws = np.array(table["draws"].to_pylist())
    assert np.isnan(draws[:4]).all() and draws[4:8].ravel().tolist() == list(range(8))
    assert table["flux_njy_p50_f200w"].to_pylist() == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]
    assert pq.read_table(paths.failures)["source_id"].to_pylist() == [str(2**60 + 3)]


def test_a_catalogue_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    """It is written in a thread: what goes wrong there ends the merge, and no half of a file is left."""
    paths, _ = make_run(tmp_path)
    write = pq.ParquetWriter.write_table

    def full(self, table, *more):
        if "flux_njy_p50_f200w" in table.column_names:
            raise OSError(28, "No space left on device")
        write(self, table, *more)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        merge_catalog(paths, INFO)
    assert not paths.catalog.exists() and not paths.orphans()


def test_lengths_of_large_strings_are_in_the_footer(tmp_path):
    """pandas 3 writes every text as a large string; astropy wants the length of each."""
    paths, _ = make_run(tmp_path)
    plan = pq.read_table(paths.plan)
    place = plan.column_names.index("cat:name")
    large = plan.set_column(place, "cat:name", plan["cat:name"].cast(pa.large_string()))
    pq.write_table(large, paths.plan)
    merge_catalog(paths, INFO)
    assert pq.read_metadata(paths.catalog).metadata[b"table::len::name"] == b"2"
    assert QTable.read(paths.catalog)["name"][1] == "g3"


def test_run_is_read_by_source_id(tmp_path):
    paths, _ = make_run(tmp_path)
    merge_catalog(paths, INFO)
    run = open_run(tmp_path)
    assert run.mean(2**60 + 5).shape == (1, 4, 4) and run.mean(str(2**60 + 5), "f200w").shape == (4, 4)
    assert run.status(2**60 + 3) == "failed" and run.row(2**60 + 5)["name"] == "g5"
    assert len(run.catalog) == 10
    with pytest.raises(InputError, match="not in"):
        run.samples(99)
    with pytest.raises(InputError, match="Band 'k'"):
        run.mean(2**60 + 5, "k")


def test_healpix_index_is_the_standard_one():
    ra = np.array([1, 46, 150.1, 150.1, 359.9999, 10, 10, np.nan])
    dec = np.array([1, 0, 2.2, -2.2, 89.999, -89.999, 41.81, 0])
    assert healpix_nested(ra, dec, 0).tolist() == GOLDEN[0]
    assert healpix_nested(ra, dec, 29).tolist() == GOLDEN[29]


# astropy_healpix.lonlat_to_healpix(ra, dec, nside=2**order, order="nested"), version 2.0.1
GOLDEN = {
    0: [4, 5, 6, 6, 3, 8, 0, -1],
    29: [
        1369184532832835341,
        1633286476808152490,
        1918129809776324852,
        1914767780552560391,
        1152921504462101983,
        2305843009351776197,
        190675479601388940,
        -1,
    ],
}


def test_strips_come_one_after_the_other_however_they_are_spilled(tmp_path):
    """Tile by tile, strip by strip, in a strip in the order of the catalogue; those without a place last."""
    rng, n = np.random.default_rng(0), 400
    y, tile = rng.uniform(0, 1000, n), rng.choice(["a", "b", ""], n)
    y[tile == ""] = np.nan
    orders = []
    for spill in (50, 10_000):
        with PlanWriter(tmp_path / "plan.parquet", 16, spill, strip_pix=256) as plan:
            for k in range(0, n, 100):
                part = slice(k, k + 100)
                plan.add({"source_id": np.arange(n)[part], "tile": tile[part], "y": y[part]})
        orders.append(
            np.concatenate([rows.columns["source_id"] for rows in iter_plan(tmp_path / "plan.parquet")])
        )
    assert orders[0].tolist() == orders[1].tolist() and sorted(orders[0]) == list(range(n))
    strip = np.where(np.isfinite(y), np.nan_to_num(y) // 256, -1)
    assert orders[0].tolist() == sorted(range(n), key=lambda i: (tile[i] == "", tile[i], strip[i], i))
