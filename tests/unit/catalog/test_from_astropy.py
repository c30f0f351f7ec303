"""Units and descriptions of columns, from footers that astropy wrote and from hostile ones."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from galbatch.catalog.from_astropy import column_metadata

LEVELS = 24


def schema_with(text):
    return pa.schema([("ra", pa.float64())], metadata={"table_meta_yaml": text})


def test_what_astropy_writes_is_read_aliases_included(tmp_path):
    table = Table({"ra": [1.0] * u.deg, "flux": [2.0] * u.nJy, "where": SkyCoord([1.0], [2.0], unit="deg")})
    table["ra"].info.description = "right ascension"
    table.write(tmp_path / "t.parquet")
    schema = pq.read_schema(tmp_path / "t.parquet")
    found = column_metadata(schema)
    assert b"*id" in schema.metadata[b"table_meta_yaml"]
    assert found["ra"] == {"unit": "deg", "description": "right ascension"} and found["flux"]["unit"] == "nJy"


def bomb(first, link, last):
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{k}: &a{k} {link.format(k - 1)}" for k in range(1, LEVELS)]
    return "\n".join([*lines, last.format(LEVELS - 1)])


BOMBS = {
    "list": bomb("[x]", "[*a{0}, *a{0}]", "datatype: [{{name: ra, unit: *a{0}}}]"),
    "merge": bomb(
        "{{k: v}}".replace("{{", "{").replace("}}", "}"),
        "{{<<: [*a{0}, *a{0}]}}",
        "datatype: [{{name: ra, unit: deg, <<: *a{0}}}]",
    ),
    "tagged": bomb("[x]", "[*a{0}, *a{0}]", "datatype: [{{name: ra, unit: !Unit {{unit: *a{0}}}}}]"),
    "itself": "datatype: &a [{name: ra, unit: deg}, *a]",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_nested_aliases_do_not_expand(kind):
    assert len(BOMBS[kind]) < 2400
    tracemalloc.start()
    try:
        kept = {"ra": {"unit": "deg"}} if kind == "merge" else {}  # it stands beside the bomb
        assert column_metadata(schema_with(BOMBS[kind])) == kept
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_a_huge_footer_is_not_parsed():
    text = "datatype: [{name: ra, unit: deg}]"
    assert column_metadata(schema_with(text)) == {"ra": {"unit": "deg"}}
    assert column_metadata(schema_with(text + "\n#" + "x" * (1 << 20))) == {}


def test_a_wide_catalogue_keeps_its_units():
    names = [f"column_{k}" for k in range(300)]
    text = "datatype:\n" + "".join(f"- {{name: {n}, unit: nJy, datatype: float64}}\n" for n in names)
    schema = pa.schema([(n, pa.float64()) for n in names], metadata={"table_meta_yaml": text})
    assert len(column_metadata(schema)) == 300
    assert np.all([m == {"unit": "nJy"} for m in column_metadata(schema).values()])
