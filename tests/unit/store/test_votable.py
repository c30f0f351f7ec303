"""The catalogue as a VOTable: what astropy reads from it is what is in the Parquet file."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import QTable
from fake_run import write_fake_run

from galbatch.columns import Column
from galbatch.errors import RunError
from galbatch.store import RunPaths, tables, write_votable
from galbatch.store.tables import table_metadata

INFO = {"x": Column("nJy", "phot.flux.density", "a flux & more <b>")}
COLUMNS = {
    "source_id": pa.array(np.arange(11) + 2**60),
    "x": pa.array([1.5, None, np.nan, *range(8)], pa.float64()),
    "small": pa.array([0, 255, *range(9)], pa.uint8()),
    "count": pa.array([None, -7, *range(9)], pa.int32()),
    "yes": pa.array([True, False, *[True] * 9]),
    "name": pa.array(["", "Ärmel", "\U0001f30c galaxy", "plain", *"abcdefg"]),
    "draws": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(33, dtype=np.float32)), 3),
}
KINDS = dict(zip(COLUMNS, ["int64", "float64", "uint8", "int32", "bool", "str", "(3,)float32"], strict=True))


def plain(column):
    """The values of a column of astropy's; it masks NaN."""
    return np.asarray(getattr(column, "unmasked", np.ma.getdata(column)))


@pytest.mark.parametrize("rows", [8_192, 3])
def test_astropy_reads_every_kind_of_column_as_it_was(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(tables, "_ROWS", rows)
    paths, table = RunPaths(tmp_path), pa.table(COLUMNS)
    meta = table_metadata(table.column_names, KINDS, INFO, {"name": 9})
    pq.write_table(table.replace_schema_metadata(meta), paths.catalog, row_group_size=5)
    assert write_votable(paths, tmp_path / "c.vot") == 11
    found = QTable.read(tmp_path / "c.vot", format="votable")
    assert found.colnames == table.column_names
    assert found["x"].unit == "nJy" and found["x"].info.description == "a flux & more <b>"
    for name in ("source_id", "small", "yes", "name"):
        assert found[name].tolist() == table[name].to_pylist(), name
    assert found["count"].tolist() == [None, -7, *range(9)] and found["count"].dtype == np.int32
    assert np.array_equal(plain(found["x"]), [1.5, np.nan, np.nan, *range(8)], equal_nan=True)
    assert np.array_equal(found["draws"], np.arange(33).reshape(11, 3))


def test_the_catalogue_of_a_run_keeps_its_values_and_units(tmp_path):
    paths = write_fake_run(tmp_path / "f.run")
    write_votable(paths, tmp_path / "c.vot")
    found, expected = QTable.read(tmp_path / "c.vot"), QTable.read(paths.catalog)
    assert found.colnames == expected.colnames
    for name in found.colnames:
        assert found[name].unit == expected[name].unit, name
        one, two = plain(found[name]), plain(expected[name])
        assert np.array_equal(one, two, equal_nan=one.dtype.kind == "f"), name


def test_without_a_catalogue_it_says_how_to_get_one(tmp_path):
    with pytest.raises(RunError, match="galbatch resume"):
        write_votable(RunPaths(tmp_path), tmp_path / "c.vot")
