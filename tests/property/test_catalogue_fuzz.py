"""Damaged catalogues and odd values in sound ones: only errors of ours, and every row is accounted for."""

import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import QUICK
from hypothesis import given
from hypothesis import strategies as st

from galbatch.catalog import open_catalog, validate
from galbatch.cutouts import open_survey
from galbatch.errors import GalbatchError, InputError


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=12),
    st.sampled_from([0, 0, 1, 8, 200]),
)
def test_any_damage_to_a_parquet_file(folder, flips, cut):
    content = bytearray((folder / "c.parquet").read_bytes())
    for position, value in flips:
        content[position % len(content)] = value
    (folder / "fuzz.parquet").write_bytes(content[: len(content) - cut])
    try:
        catalog = open_catalog(folder / "fuzz.parquet")
        if catalog.n_rows < 1000:
            validate(catalog)
            catalog.read()
    except GalbatchError as error:
        assert str(error)


IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.lists(st.text(max_size=5), max_size=20)
)
ANY_FLOAT = st.floats(width=64)


@QUICK
@given(IDS, st.data())
def test_any_values_in_a_catalogue(folder, ids, data):
    n = len(ids)
    column = st.lists(ANY_FLOAT, min_size=n, max_size=n)
    kind = pa.string() if any(isinstance(i, str) for i in ids) else pa.int64()
    pq.write_table(
        pa.table(
            {
                "source_id": pa.array(ids, kind),
                "ra": pa.array(data.draw(column), pa.float64()),
                "dec": pa.array(data.draw(column), pa.float64()),
            }
        ),
        folder / "values.parquet",
    )
    catalog = open_catalog(folder / "values.parquet")
    found = validate(catalog)
    if any(unicodedata.category(c) == "Cc" for i in ids if isinstance(i, str) for c in i):
        assert any(f.level == "error" for f in found.findings)
        with pytest.raises(InputError, match="control character"):
            catalog.read()
        return
    assert catalog.read()["source_id"].tolist() == ids
    assert (len(set(ids)) < n) == any(f.code == "duplicate_id" for f in found.findings)
    if n:
        assert len(found.flags) == n
        rows = catalog.read()
        batch = open_survey(folder / "s.toml").cut(rows, 8)
        assert set(batch.failures) == set(np.nonzero(batch.bands[0].mask.all(axis=(1, 2)))[0])


@QUICK
@given(st.lists(st.integers(-30, 70), min_size=1, max_size=12), st.integers(1, 20), st.randoms())
def test_each_source_is_cut_the_same_whatever_is_beside_it(folder, pixels, size, random):
    survey = open_survey(folder / "s.toml")
    x = np.array(pixels, float)
    ra, dec = survey.tile("f", "0").grid.to_sky(x, np.roll(x, 1))
    rows = {"source_id": np.arange(len(x)), "ra": ra, "dec": dec}
    together = survey.cut(rows, size).bands[0]
    i = random.randrange(len(x))
    alone = survey.cut({k: v[i : i + 1] for k, v in rows.items()}, size).bands[0]
    for name in ("data", "sigma", "mask", "seg"):
        np.testing.assert_array_equal(getattr(together, name)[i], getattr(alone, name)[0])
