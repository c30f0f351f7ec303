"""Catalogues in every format: the same rows, ids to the last digit, and clear words for what cannot be
used."""

import pickle
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table

from galbatch.catalog import open_catalog
from galbatch.errors import InputError

BIG = 2**60 + np.array([1, 3, 5], np.int64)


def table():
    out = Table({"source_id": BIG, "ra": [150.0, 150.1, 150.2], "dec": [2.0, 2.1, 2.2]})
    out["mag"], out["name"] = np.array([20, 21, 22], "f4"), ["a", "bb", "ccc"]
    out["psf_index"] = np.array([2, 0, 1], "i2")
    out["ra"].unit = out["dec"].unit = "deg"
    out["mag"].description = "total magnitude"
    return out


def written(tmp_path, ending):
    path = tmp_path / f"c.{ending}"
    formats = {"ecsv": "ascii.ecsv", "vot": "votable", "xml": "votable", "fits.gz": "fits"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table().write(path, format=formats.get(ending, ending))
    return path


@pytest.mark.parametrize("ending", ["parquet", "fits", "ecsv", "vot", "xml", "fits.gz"])
def test_every_format_gives_the_same(tmp_path, ending):
    catalog = open_catalog(written(tmp_path, ending))
    rows = catalog.read()
    assert catalog.n_rows == 3 and rows["source_id"].dtype == np.int64
    assert "3 sources, 6 columns" in repr(catalog) and "source_id, ra, dec" in catalog._repr_html_()
    np.testing.assert_array_equal(rows["source_id"], BIG)
    np.testing.assert_array_equal(rows["dec"], [2.0, 2.1, 2.2])
    np.testing.assert_array_equal(rows["psf_index"], [2, 0, 1])
    whole = pa.concat_tables(catalog.tables())
    assert whole.column("name").to_pylist() == ["a", "bb", "ccc"]
    assert whole.schema.field("mag").type == pa.float32()
    assert catalog.meta["ra"]["unit"] == "deg" and catalog.meta["mag"]["description"] == "total magnitude"


def parquet(tmp_path, **columns):
    base = {"source_id": pa.array([1, 2, 3]), "ra": [1.0, 2.0, 3.0], "dec": [1.0, 2.0, 3.0], **columns}
    pq.write_table(pa.table({k: v for k, v in base.items() if v is not None}), tmp_path / "c.parquet")
    return tmp_path / "c.parquet"


@pytest.mark.parametrize(("ids", "values"), [
    (pa.array(["x", "y", "z"]), ["x", "y", "z"]),
    (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
    (pa.array([2**53 + 1, 2**63 - 1, 0], pa.uint64()), [2**53 + 1, 2**63 - 1, 0]),
    (pa.array([2**53 + 1, 2**63 - 1, -5]), [2**53 + 1, 2**63 - 1, -5]),
    (pa.array([1, 2, 3], pa.int8()), [1, 2, 3]),
    (pa.array(["é", "", "日本"], pa.large_string()), ["é", "", "日本"]),
])  # fmt: skip
def test_ids_keep_their_values(tmp_path, ids, values):
    assert open_catalog(parquet(tmp_path, source_id=ids)).read()["source_id"].tolist() == values


@pytest.mark.parametrize(("columns", "message"), [
    ({"source_id": [1.0, 2.0, 3.0]}, "type double: integers above 2\\^53 lose"),
    ({"source_id": [True, False, True]}, "no identifier"),
    ({"source_id": None}, "no column source_id"),
    ({"dec": None, "Dec": [1.0, 2.0, 3.0], "DEC": [1.0, 2.0, 3.0]},
        "no column dec.*rename one of Dec, DEC to dec"),
    ({"ra": ["10:00:01", "10:00:02", "10:00:03"]}, "ra is of type string.*minutes and seconds, convert it"),
    ({"psf_index": ["a", "b", "c"]}, "psf_index is of type string"),
])  # fmt: skip
def test_unusable_columns_are_named(tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        open_catalog(parquet(tmp_path, **columns))


def test_missing_values_become_nan_or_minus_one(tmp_path):
    gaps = {"ra": [1.0, None, 3.0], "psf_index": [0.0, None, 2.5], "tile": ["a", None, "b"]}
    rows = open_catalog(parquet(tmp_path, **gaps, segmap_id=[7, None, 9])).read()
    np.testing.assert_array_equal(rows["ra"], [1, np.nan, 3])
    assert rows["psf_index"].tolist() == [0, -1, -1] and rows["segmap_id"].tolist() == [7, -1, 9]
    assert rows["tile"].tolist() == ["a", "", "b"]
    masked = Table({"source_id": [1, 2], "ra": MaskedColumn([1.0, 2.0], mask=[0, 1]), "dec": [1.0, 2.0]})
    masked.write(tmp_path / "m.ecsv")
    assert np.isnan(open_catalog(tmp_path / "m.ecsv").read()["ra"][1])


def test_rows_by_number_and_in_batches(tmp_path):
    n = 1000
    pq.write_table(
        pa.table({"source_id": np.arange(n), "ra": np.zeros(n), "dec": np.zeros(n)}),
        tmp_path / "c.parquet",
        row_group_size=64,
    )
    catalog = pickle.loads(pickle.dumps(open_catalog(tmp_path / "c.parquet")))
    starts = [(start, len(rows["ra"])) for start, rows in catalog.batches(size=300)]
    assert sum(k for _, k in starts) == n
    assert [s for s, _ in starts] == np.cumsum([0, *[k for _, k in starts[:-1]]]).tolist()


def test_damaged_and_unknown_files(tmp_path):
    good = parquet(tmp_path).read_bytes()
    for name, content in (
        ("a.parquet", good[:100]),
        ("b.parquet", b""),
        ("c.fits", b"x" * 5000),
        ("d.ecsv", b"\xff\xfe"),
        ("e.vot", b"<VOTABLE>"),
        ("f.parquet", good[:-20] + b"\0" * 20),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} cannot be read as a table"):
            open_catalog(tmp_path / name)
    (tmp_path / "g.txt").write_text("source_id,ra,dec\n")
    with pytest.raises(InputError, match=r"'.txt' is not known. Use .parquet.*csv"):
        open_catalog(tmp_path / "g.txt")
    with pytest.raises(InputError, match="does not exist"):
        open_catalog(tmp_path / "none.parquet")


def test_a_file_damaged_inside_is_an_input_error(tmp_path):
    n = 5000
    pq.write_table(
        pa.table({"source_id": np.arange(n), "ra": np.random.default_rng(0).random(n), "dec": np.zeros(n)}),
        tmp_path / "c.parquet",
        write_page_checksum=True,
    )
    content = bytearray((tmp_path / "c.parquet").read_bytes())
    content[5000] ^= 1
    (tmp_path / "c.parquet").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read to its end"):
        open_catalog(tmp_path / "c.parquet").read()


def test_rows_that_are_announced_and_not_there_are_an_input_error(tmp_path):
    """Damage to the footer of a Parquet file can empty a column: the rows were then fewer, without a word."""
    pq.write_table(
        pa.table({"source_id": [1, 2], "ra": [1.0, 2.0], "dec": [0.0, 1.0]}), tmp_path / "c.parquet"
    )
    catalog = open_catalog(tmp_path / "c.parquet")
    catalog.n_rows = 3
    with pytest.raises(InputError, match=r"c\.parquet .*announces 3 rows and holds 2"):
        catalog.read()


def test_what_was_read_of_a_catalogue_is_let_go(tmp_path):
    """Memory does not grow with the file: of a stream, one block is held at a time."""
    rows = 400_000
    table = pa.table({"source_id": np.arange(rows), "ra": np.random.default_rng(0).uniform(0, 360, rows)})
    table = table.append_column("dec", table["ra"])
    pq.write_table(table, tmp_path / "c.parquet", row_group_size=10_000)
    catalog, before = open_catalog(tmp_path / "c.parquet"), pa.total_allocated_bytes()
    for _ in catalog.batches(["ra", "dec"]):
        pass
    assert pa.total_allocated_bytes() - before < 2_000_000


@pytest.mark.parametrize("ending", ["csv", "parquet", "fits"])
@pytest.mark.parametrize("names", [("NUMBER", "ALPHA_J2000", "DELTA_J2000"), ("id", "RA", "Dec")])
def test_usual_names_are_read_as_ours(tmp_path, ending, names):
    """With other columns kept under their own names, and the id to the last digit."""
    made = Table(dict(zip(names, (BIG, [150.0, 150.1, 150.2], [2.0, 2.1, 2.2]), strict=True)))
    made["Mag"] = [20.0, 21.0, 22.0]
    path = tmp_path / f"c.{ending}"
    made.write(path, format=f"ascii.{ending}" if ending == "csv" else ending)
    catalog = open_catalog(path)
    assert catalog.read_as == dict(zip(names, ("source_id", "ra", "dec"), strict=True))
    assert catalog.columns == ["source_id", "ra", "dec", "Mag"]
    rows = catalog.read()
    np.testing.assert_array_equal(rows["source_id"], BIG)
    np.testing.assert_array_equal(rows["ra"], [150.0, 150.1, 150.2])
    assert pa.concat_tables(catalog.tables()).column("Mag").to_pylist() == [20.0, 21.0, 22.0]


def test_own_names_win_and_two_of_a_kind_are_not_guessed(tmp_path):
    catalog = open_catalog(parquet(tmp_path, RA=[9.0, 9.0, 9.0], NUMBER=[7, 8, 9]))
    assert catalog.read_as == {} and catalog.read()["ra"].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(InputError, match="rename one of RA, Ra to ra"):
        open_catalog(parquet(tmp_path, ra=None, RA=[1.0, 2.0, 3.0], Ra=[1.0, 2.0, 3.0]))


def test_a_csv_with_a_comment_sign_before_its_names(tmp_path):
    (tmp_path / "c.csv").write_text("# id, ra, dec\na,1,2\nb,3,4\n")
    assert open_catalog(tmp_path / "c.csv").read()["source_id"].tolist() == ["a", "b"]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_csv_parted_by_another_mark(tmp_path, mark):
    (tmp_path / "c.csv").write_text(
        "\n".join(mark.join(row) for row in (("id", "ra", "dec"), ("7", "1.5", "2")))
    )
    read = open_catalog(tmp_path / "c.csv").read()
    assert (read["source_id"][0], read["ra"][0], read["dec"][0]) == (7, 1.5, 2.0)


def test_decimal_commas_where_semicolons_part(tmp_path):
    (tmp_path / "c.csv").write_text("name;RA_ICRS;DE_ICRS\nx;150,25;-2,5\ny;151;2\n")
    read = open_catalog(tmp_path / "c.csv").read()
    assert read["ra"].tolist() == [150.25, 151.0] and read["dec"].tolist() == [-2.5, 2.0]


@pytest.mark.parametrize(("text", "remedy"), [
    (b"1,150.0,2.0\n2,150.1,2.0\n", "put a first line with the names"),
    (b"id ra dec\n1 150.0 2.0\n", "part the columns by commas, not by blanks"),
    (b"id,ra,dec\n1,10:00:00,2.0\n", "hours, minutes and seconds, convert it: .*SkyCoord"),
    (b"id,ra,dec\n1,150.0\n", "as many values as the first line has names"),
    ("id,ra,dec,Gr\u00f6\u00dfe\n1,150,2,3\n".encode("latin-1"), "Save it as UTF-8"),
])  # fmt: skip
def test_text_that_is_no_table_is_refused_with_its_remedy(text, remedy, tmp_path):
    (tmp_path / "c.csv").write_bytes(text)
    with pytest.raises(InputError, match=remedy):
        open_catalog(tmp_path / "c.csv")


def test_a_csv_without_rows_is_said_to_have_none(tmp_path):
    (tmp_path / "c.csv").write_text("id,ra,dec\n")
    with pytest.raises(InputError, match="no value in any row"):
        open_catalog(tmp_path / "c.csv")
