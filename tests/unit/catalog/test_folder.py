"""Catalogues in folders: HATS and its collections, partition by partition in the order of the sky."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch.catalog import open_catalog
from galbatch.errors import InputError

SHIFT = 2 * 29


def hats(root, pixels=((2, 37), (1, 2), (2, 36)), shuffled=(), n=50):
    """A HATS catalogue of ``n`` rows per (order, pixel), with files beside that repeat rows."""
    rng, listed, ids = np.random.default_rng(0), ["Norder,Npix"], {}
    for order, pixel in pixels:
        size = 1 << SHIFT - 2 * order
        index = pixel * size + np.sort(rng.integers(0, size, n))
        ids[order, pixel] = index.tolist()
        if (order, pixel) in shuffled:
            rng.shuffle(index)
        table = pa.table({"source_id": index, "ra": np.ones(n), "dec": np.ones(n), "_healpix_29": index})
        file = root / f"dataset/Norder={order}/Dir=0/Npix={pixel}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file)
        listed.append(f"{order},{pixel}")
    pq.write_table(table, root / "dataset/data_thumbnail.parquet")
    pq.write_table(pa.table({"Npix": [1]}), root / "per_partition_statistics.parquet")
    (root / "partition_info.csv").write_text("\n".join(listed) + "\n")
    return ids


@pytest.mark.parametrize("shuffled", [(), ((1, 2),)])
def test_partitions_come_in_the_order_of_the_sky(tmp_path, shuffled):
    """By names, 'Norder=2' came after 'Norder=1' wherever it was; the thumbnail's rows came twice."""
    ids = hats(tmp_path / "h", shuffled=shuffled)
    catalog = open_catalog(tmp_path / "h")
    expected = ids[1, 2] + ids[2, 36] + ids[2, 37]
    assert catalog.n_rows == 150 and catalog.read(["source_id"])["source_id"].tolist() == expected
    assert expected == sorted(expected)
    small = [len(t) for t in catalog.tables(["source_id"], size=20)]
    assert small == [20, 20, 10] * 3
    again = pickle.loads(pickle.dumps(catalog))
    assert again.read(["source_id"])["source_id"].tolist() == expected


def test_a_collection_is_its_catalogue_without_the_margin(tmp_path):
    ids = hats(tmp_path / "c/cat")
    hats(tmp_path / "c/cat_margin")
    said = "obs_collection=c\nhats_primary_table_url=cat\nall_margins=cat_margin\n"
    (tmp_path / "c/collection.properties").write_text(said)
    assert open_catalog(tmp_path / "c").n_rows == sum(map(len, ids.values()))
    (tmp_path / "c/collection.properties").write_text(said.replace("url=cat", "url=elsewhere"))
    with pytest.raises(InputError, match="'elsewhere', and there is no such folder"):
        open_catalog(tmp_path / "c")


def test_folders_of_files_per_partition(tmp_path):
    for pixel, rows in ((11, [5, 6]), (2, [1, 2])):
        for k, row in enumerate(rows):
            file = tmp_path / f"dataset/Norder=1/Dir=0/Npix={pixel}/part{k}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"source_id": [row], "ra": [1.0], "dec": [1.0]}), file)
    assert open_catalog(tmp_path).read()["source_id"].tolist() == [1, 2, 5, 6]


def test_a_lost_partition_and_a_lost_column_are_said(tmp_path):
    hats(tmp_path / "h")
    lost = tmp_path / "h/dataset/Norder=2/Dir=0/Npix=36.parquet"
    kept = pq.read_table(lost)
    lost.unlink()
    with pytest.raises(InputError, match="1 of its 3 partitions have no file, first Norder=2, Npix=36"):
        open_catalog(tmp_path / "h")
    pq.write_table(kept.drop_columns(["dec"]), lost)
    with pytest.raises(InputError, match=r"Npix=36.parquet has no column dec"):
        open_catalog(tmp_path / "h").read()


@pytest.mark.ci("lsdb")
@pytest.mark.filterwarnings("ignore")  # LSDB's own, about pandas and Dask
def test_what_lsdb_writes_is_read_row_for_row(tmp_path):
    import lsdb
    import pandas

    rng, n = np.random.default_rng(0), 500
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    frame = pandas.DataFrame({"source_id": np.arange(n) + 2**60, "ra": ra, "dec": dec})
    made = lsdb.from_dataframe(frame, partition_rows=100, margin_threshold=3600.0)
    made.write_catalog(tmp_path / "cat.hats", as_collection=True)
    rows = open_catalog(tmp_path / "cat.hats").read(["source_id", "ra", "_healpix_29"])
    assert sorted(rows["source_id"].tolist()) == (np.arange(n) + 2**60).tolist()
    assert (np.diff(rows["_healpix_29"]) >= 0).all()
    assert rows["ra"].tolist() == ra[rows["source_id"] - 2**60].tolist()
