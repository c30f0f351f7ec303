"""Columns of any Arrow type: what each becomes, and that it goes through a whole run and every export."""

import datetime as dt
import re
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from toys import GaussianPrior, write_survey

from galbatch.catalog import open_catalog, validate
from galbatch.catalog.passing import passage, plain_column
from galbatch.cli.main import main
from galbatch.errors import InputError
from galbatch.run import process

DAY, EXACT = dt.date(2020, 1, 2), Decimal("-99999999999999999999.123456789012345")
# name: (three values in Arrow, the three values in the product)
TYPES = {
    "null": (pa.nulls(3), [None] * 3),
    "bool": (pa.array([True, None, False]), [True, None, False]),
    "int8": (pa.array([1, None, 3], pa.int8()), [1, None, 3]),
    "int64": (pa.array([2**62 + 1, None, 3]), [2**62 + 1, None, 3]),
    "uint64": (pa.array([2**64 - 1, None, 0], pa.uint64()), [2**64 - 1, None, 0]),
    "float16": (pa.array(np.array([1.5, 2, 3], np.float16)), [1.5, 2.0, 3.0]),
    "float32": (pa.array([1.5, None, 3], pa.float32()), [1.5, None, 3.0]),
    "float64": (pa.array([0.1, None, 3]), [0.1, None, 3.0]),
    "string": (pa.array(["a", None, "日本"]), ["a", None, "日本"]),
    "large_string": (pa.array(["a", None, ""], pa.large_string()), ["a", None, ""]),
    "dictionary": (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
    "dictionary_int": (pa.array([7, None, 8]).dictionary_encode(), [7, None, 8]),
    "date32": (pa.array([DAY, None, DAY]), ["2020-01-02", None, "2020-01-02"]),
    "date64": (pa.array([DAY, None, DAY], pa.date64()), ["2020-01-02", None, "2020-01-02"]),
    "time32": (pa.array([1, None, 2], pa.time32("ms")), ["00:00:00.001", None, "00:00:00.002"]),
    "time64": (
        pa.array([1, None, 0], pa.time64("ns")),
        ["00:00:00.000000001", None, "00:00:00.000000000"],
    ),
    "timestamp": (
        pa.array([0, None, 61_000], pa.timestamp("ms")),
        ["1970-01-01T00:00:00.000", None, "1970-01-01T00:01:01.000"],
    ),
    "timestamp_ns": (
        pa.array([-(2**63), None, 0], pa.timestamp("ns")),
        ["1677-09-21T00:12:43.145224192", None, "1970-01-01T00:00:00.000000000"],
    ),
    "timestamp_zone": (
        pa.array([0, None, 1], pa.timestamp("ms", "Europe/Berlin")),
        ["1970-01-01T00:00:00.000Z", None, "1970-01-01T00:00:00.001Z"],
    ),
    "duration": (pa.array([2**60 + 1, None, 1], pa.duration("ns")), [2**60 + 1, None, 1]),
    "decimal128": (pa.array([EXACT, None, EXACT], pa.decimal128(38, 15)), [str(EXACT), None, str(EXACT)]),
    "decimal256": (pa.array([Decimal("1.10")] * 3, pa.decimal256(70, 2)), ["1.10"] * 3),
    "binary": (pa.array([b"\x00\xff", None, b""]), ["00ff", None, ""]),
    "large_binary": (pa.array([b"a", None, b""], pa.large_binary()), ["61", None, ""]),
    "fixed_binary": (pa.array([b"ab", None, b"cd"], pa.binary(2)), ["6162", None, "6364"]),
    "floats": (pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float32(), 2)), [[1, 2], [3, 4], [5, 6]]),
    "integers": (pa.array([[1, 2], None, [5, 6]], pa.list_(pa.int64(), 2)), ["[1, 2]", None, "[5, 6]"]),
    "list": (pa.array([[1.5, None], None, []]), ["[1.5, null]", None, "[]"]),
    "nested": (pa.array([[[1], [2]], None, []]), ["[[1], [2]]", None, "[]"]),
    "large_list": (pa.array([["é"], None, []], pa.large_list(pa.string())), ['["é"]', None, "[]"]),
    "struct": (
        pa.array([{"x": 1, "day": DAY}, None, {"x": None, "day": None}]),
        ['{"x": 1, "day": "2020-01-02"}', None, '{"x": null, "day": null}'],
    ),
    "map": (pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())), ['[["a", 1]]', None, "[]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_what_a_type_becomes(name):
    """In one chunk, in two, and in none."""
    values, product = TYPES[name]
    kind = passage(values.type).kind
    for chunks in ([values], [values[:1], values[1:]]):
        found = plain_column(pa.chunked_array(chunks))
        assert found.type == kind and found.to_pylist() == product
    assert plain_column(pa.chunked_array([], values.type)).type == kind


def test_a_missing_float_of_a_list_is_nan():
    values = pa.array([[1, None], None, [5, 6]], pa.list_(pa.float64(), 2))
    found = plain_column(pa.chunked_array([values])).combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(found, [1, np.nan, np.nan, np.nan, 5, 6])


@pytest.mark.parametrize("ids", [pa.array(["a", "é,b", "日本"]).dictionary_encode(), None])
@pytest.mark.filterwarnings("ignore")  # LSDB's own
def test_every_type_goes_through_a_run_and_every_export(tmp_path, ids, capsys):
    """One column of each type: process, product, show, report, FITS, VOTable, HATS; then LSDB."""
    path = write_survey(tmp_path, 3)
    table = pq.read_table(path)
    if ids is not None:
        table = table.set_column(0, "source_id", ids)
    for name, (values, _) in TYPES.items():
        table = table.append_column(name, values)
    pq.write_table(table, path)
    run = process(path, prior=GaussianPrior(), cluster="none", draws=2, mode="fast", batch=2)
    product = pq.read_table(run.paths.catalog)
    assert product["source_id"].to_pylist() == table["source_id"].to_pylist()
    for name, (_, expected) in TYPES.items():
        assert product[name].to_pylist() == expected, name
    assert len(run.catalog) == 3 and run.catalog["floats"].shape == (3, 2)
    for name, (_, expected) in TYPES.items():
        if not (None in expected and isinstance(expected[0], float)) and name not in ("floats", "duration"):
            assert run.catalog[name].tolist() == expected, name  # exact, and None where missing
    where, one = str(run.paths.root), str(run.ids[0])
    assert main(["show", where, one]) == 0 and main(["report", where]) == 0
    for form in ("fits", "votable", "hats"):
        assert main(["export", where, "--to", form, "--out", str(tmp_path / form)]) == 0, capsys.readouterr()
    assert len(list((tmp_path / "fits").glob("*.fits"))) == 3
    votable = Table.read(tmp_path / "votable" / "catalog.vot")
    assert votable["int64"].tolist() == TYPES["int64"][1] and votable["uint64"][0] == str(2**64 - 1)
    lsdb = pytest.importorskip("lsdb", reason="lsdb is not installed: pip install -e '.[ci]'")
    found = lsdb.open_catalog(tmp_path / "hats").compute()
    assert sorted(map(str, found["source_id"])) == sorted(map(str, product["source_id"].to_pylist()))


def catalogue(tmp_path, **columns):
    base = {"source_id": pa.array([1, 2, 3]), "ra": [1.0, 2.0, 3.0], "dec": [1.0, 2.0, 3.0], **columns}
    pq.write_table(pa.table(base), tmp_path / "c.parquet")
    return tmp_path / "c.parquet"


def test_a_type_without_a_way_is_refused_by_name(tmp_path):
    path = catalogue(tmp_path, odd=pa.array([[1], None, []], pa.list_(pa.time64("ns"))))
    with pytest.raises(InputError, match=r"'odd' \(list<.*time64.*Drop them"):
        open_catalog(path)


def test_check_says_what_changes_its_type(tmp_path):
    path = catalogue(tmp_path, when=TYPES["timestamp"][0], mag=[1.0, 2.0, 3.0])
    (found,) = [f for f in validate(open_catalog(path)).findings if f.code == "column_types"]
    assert found.level == "info" and "when (timestamp[ms]: text (ISO 8601))" in found.what


@pytest.mark.parametrize(("ids", "said"), [
    (pa.array(["a", "b\0", "c"]), r"control.* in row 1 \(counted from 0\): 'b\\x00'.*Take it out"),
    (pa.array(["a", "b", "c\nd"]), r"control character.* in row 2"),
    (pa.array(["a", "b" * 100_000, "c"]), r"longer than 256 characters in row 1 .*shorter id"),
    (pa.array(["a", None, "c"]), r"is missing in row 1 .*fill it in"),
    (pa.array([1, 2, 2**63], pa.uint64()), r"above 2\^63 - 1 in row 2 .*as text"),
    (pa.array([7, 8, 7]), r"e\.g\. 7, 7 \(rows 0, 2, counted from 0\)"),
])  # fmt: skip
def test_ids_that_cannot_pass_are_refused_with_their_row(tmp_path, ids, said):
    findings = validate(open_catalog(catalogue(tmp_path, source_id=ids))).findings
    (found,) = [f for f in findings if f.level == "error"]
    assert re.search(said, found.line)
