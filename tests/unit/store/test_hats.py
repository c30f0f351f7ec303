"""The HATS collection of a run: of one that goes on, its finished partitions; and the margin."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_run import BANDS, write_fake_run

from galbatch.columns import columns_of
from galbatch.errors import RunError
from galbatch.store import hats, healpix_nested
from galbatch.store.hats import MARGIN_ARCSEC, write_hats
from galbatch.store.sky import compact, partition_sky

INFO = columns_of(BANDS)


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("Npix=*.parquet")}


def stopped(paths, batches):
    """The run as if these batches were not committed yet; what was put away, to put it back."""
    away = [paths.catalog, paths.statistics, paths.failures, paths.summary, *map(paths.part, batches)]
    kept = {path: path.read_bytes() for path in away}
    for path in away:
        path.unlink()
    return kept


def test_finished_partitions_of_a_run_that_goes_on_are_those_of_its_end(tmp_path):
    """Two sources a partition, four a batch: what an early export holds is never replaced."""
    paths = write_fake_run(tmp_path / "a.run", n=24, batch=4)
    kept = stopped(paths, [2, 5])
    early = write_hats(paths, tmp_path / "early", rows_per_partition=3, info=INFO)
    first = files(tmp_path / "early")
    ids = pa.concat_tables(pq.read_table(p) for p in (tmp_path / "early/catalog").rglob("Npix=*"))
    assert early.waiting > 0 and 4 <= len(ids) <= 16
    assert not {*range(1008, 1012), *range(1020, 1024)} & set(ids["source_id"].to_pylist())
    assert not (tmp_path / "early/catalog_10arcs").exists()
    for path, data in kept.items():
        path.write_bytes(data)
    late = write_hats(paths, tmp_path / "early")  # the limit is that of the earlier export
    write_hats(paths, tmp_path / "late", rows_per_partition=3)
    assert late.waiting == 0 and late.partitions.rows.sum() == 24
    assert first.items() < files(tmp_path / "early").items() and len(files(tmp_path / "late")) > len(first)
    assert files(tmp_path / "early") == files(tmp_path / "late")


def test_statistics_lie_beside_their_sources(tmp_path):
    paths = write_fake_run(tmp_path / "a.run", n=24)
    write_hats(paths, tmp_path / "h", rows_per_partition=5)
    found = files(tmp_path / "h/catalog").keys()
    assert found == files(tmp_path / "h/statistics").keys() and len(found) > 3
    lines = (tmp_path / "h/catalog/hats.properties").read_text().splitlines()
    assert {"hats_nrows=24", "hats_col_healpix=_healpix_29"} <= set(lines)
    whole = pq.read_table(paths.statistics)
    for name in found:
        one, more = (pq.ParquetFile(tmp_path / "h" / k / name).read() for k in ("catalog", "statistics"))
        for column in ("source_id", "ra", "dec", "_healpix_29"):
            assert one[column].equals(more[column])
        rows = pa.array(np.array(one["source_id"]) - 1000)
        same = more.select(whole.column_names)
        assert repr(same.to_pylist()) == repr(whole.take(rows).to_pylist())  # NaN is NaN


def test_a_run_without_a_finished_partition_has_nothing_to_export(tmp_path):
    paths = write_fake_run(tmp_path / "a.run", n=8, batch=4)
    stopped(paths, [0])
    with pytest.raises(RunError, match="none of its 1 partitions is finished"):
        write_hats(paths, tmp_path / "h", info=INFO)
    paths.part(1).unlink()
    with pytest.raises(RunError, match="no batch is committed"):
        write_hats(paths, tmp_path / "h", info=INFO)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.run"]


@pytest.mark.parametrize("centre", [(45.0, 0.0), (0.0, 89.9), (12.0, -41.8), (359.9, 66.0)])
def test_the_margin_holds_all_that_is_near_another_partition(centre):
    """By brute force: every source within the radius of a source of another partition is in its margin."""
    rng, n = np.random.default_rng(1), 6_000
    ra = (centre[0] + rng.uniform(-0.4, 0.4, n) / np.cos(np.radians(centre[1]))) % 360
    dec = centre[1] + rng.uniform(-0.1, 0.1, n)
    index = healpix_nested(ra, dec)
    parts = partition_sky([index], 80)
    rows, homes = parts.margins(MARGIN_ARCSEC)(pa.table({"ra": ra, "dec": dec, "_healpix_29": index}))
    pairs = set(zip(rows.tolist(), homes.tolist(), strict=True))
    a, b = np.radians(ra), np.radians(dec)
    xyz = np.stack([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)], 1)
    own, near = parts.home(index), set()
    for k in range(n):
        close = np.linalg.norm(xyz - xyz[k], axis=1) < np.radians(MARGIN_ARCSEC / 3600)
        near |= {(k, h) for h in own[close] if h != own[k]}
    assert len(parts) > 50 and near <= pairs and len(near) > 20
    assert len({r for r, _ in pairs}) < n / 2  # and not everything
    assert all(own[row] != home for row, home in pairs)


@pytest.mark.ci("lsdb")
@pytest.mark.filterwarnings("ignore")  # LSDB's own, about pandas and Dask
def test_lsdb_opens_an_early_export_and_matches_across_the_margin(tmp_path):
    import lsdb

    paths = write_fake_run(tmp_path / "a.run", n=24, batch=4)
    kept = stopped(paths, [5])
    write_hats(paths, tmp_path / "h", rows_per_partition=3, info=INFO)
    early = lsdb.open_catalog(tmp_path / "h")
    assert 0 < len(early) < 24 and len(early.compute()) == len(early) and early.margin is None
    for path, data in kept.items():
        path.write_bytes(data)
    write_hats(paths, tmp_path / "h")
    late = lsdb.open_catalog(tmp_path / "h")
    assert len(late) == 24 and late.margin.hc_structure.catalog_info.margin_threshold == MARGIN_ARCSEC
    matched = late.crossmatch(late, radius_arcsec=1, suffixes=("_a", "_b")).compute()
    assert sorted(matched["source_id_a"]) == list(range(1000, 1024))


def test_the_place_in_a_pixel_is_every_second_bit_of_its_number():
    k, xy = np.arange(29), np.random.default_rng(3).integers(0, 2**29, (2, 200))
    x, y = (((v[:, None] >> k & 1) << 2 * k).sum(axis=1) for v in xy)
    np.testing.assert_array_equal([compact(x | y << 1), compact((x | y << 1) >> 1)], xy)


def test_hats_streams_the_same_rows_whatever_the_size_of_a_block(tmp_path, monkeypatch):
    """Blocks of one row group, pieces of many partitions in each: files as if all had been sorted at once."""
    run, rng, n = write_fake_run(tmp_path / "a.run"), np.random.default_rng(0), 5000
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    dec[7] = 91.0  # no position
    table = pa.table({"source_id": np.arange(n), "ra": ra, "dec": dec, "note": [str(i) for i in range(n)]})
    table = table.append_column("_healpix_29", pa.array(healpix_nested(ra, dec)))
    pq.write_table(table, run.catalog, row_group_size=300)
    monkeypatch.setattr(hats, "BLOCK_BYTES", 1)
    run.statistics.unlink()  # of other sources
    found = hats.write_hats(run, tmp_path / "h", rows_per_partition=100).partitions
    assert found.left_out == 1 and found.rows.sum() == n - 1 and found.rows.max() <= 100 and len(found) > 50
    parts = [
        pq.ParquetFile(tmp_path / "h/catalog/dataset" / f"Norder={o}" / "Dir=0" / f"Npix={p}.parquet").read()
        for o, p in zip(found.order, found.pixel, strict=True)
    ]
    rows = np.argsort(table["_healpix_29"].to_numpy(), kind="stable")[1:]
    assert pa.concat_tables(parts).equals(table.take(pa.array(rows)))
    assert all(len(p) == k for p, k in zip(parts, found.rows, strict=True))


def test_hats_holds_two_blocks_and_no_more(tmp_path, monkeypatch):
    """One as it is read and one in the order of the sky; with 10^7 rows it held four and took 1.1 GB."""
    run, rng, n = write_fake_run(tmp_path / "a.run"), np.random.default_rng(0), 20_000
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    columns = {"source_id": np.arange(n), "ra": ra, "dec": dec, "_healpix_29": healpix_nested(ra, dec)}
    columns |= {f"v{k}": rng.normal(size=n) for k in range(60)}
    pq.write_table(pa.table(columns), run.catalog, row_group_size=n // 20)
    run.statistics.unlink()  # of other sources
    size = 64 * 8 * n // 5  # a block of four row groups
    monkeypatch.setattr(hats, "BLOCK_BYTES", size)
    monkeypatch.setattr(hats, "BYTES_PER_PARTITION", size)
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        found = hats.write_hats(run, tmp_path / "h").partitions
    finally:
        pa.set_memory_pool(before)
    assert found.rows.sum() == n and size < pool.max_memory() < 2.7 * size
