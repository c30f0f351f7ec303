"""The product of a run, opened by LSDB while the run goes on, is killed, and goes on again."""

import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toys
from astropy.io import fits
from runs import Child

from galbatch.cli.main import main
from galbatch.run import resume, verify
from galbatch.run.findings import column_info_of
from galbatch.store import healpix_nested, open_run, write_hats

N = 24


def at_a_corner(catalog):
    """The toy survey moved to where four base pixels of HEALPix meet, in the order of the sky."""
    for name in ("sci.fits", "err.fits"):
        for card, value in (("CRVAL1", 45.0), ("CRVAL2", 0.0)):
            fits.setval(catalog.with_name(name), card, value=value)
    table = pq.read_table(catalog)
    ra = 45 + (table["ra"].to_numpy() - 150) * np.cos(np.radians(2.0))
    dec = table["dec"].to_numpy() - 2
    for name, values in (("ra", ra), ("dec", dec)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table.take(np.argsort(healpix_nested(ra, dec))), catalog)
    return catalog


def rows_of(catalog):
    """Rows of a HATS catalogue as LSDB computes them, by id."""
    table = catalog.compute()
    assert len(table) == len(catalog) == table["source_id"].nunique()
    return table.set_index("source_id").sort_index()


@pytest.mark.ci("lsdb")
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # LSDB's own, about pandas and Dask
def test_lsdb_reads_finished_partitions_of_a_run_at_work_killed_and_whole(tmp_path):
    """What LSDB opened early stays what it was, and is a part of the end; no file of a partition is written
    twice. The run is a process of its own, with sources in the order of the sky."""
    import lsdb

    catalog = at_a_corner(toys.write_survey(tmp_path / "s", n=N))
    out, hats = tmp_path / "a.run", tmp_path / "h"
    export = ["export", str(out), "--to", "hats", "--out", str(hats)]

    def partitions():
        return {p.relative_to(hats): p.read_bytes() for p in hats.rglob("Npix=*") if p.is_file()}

    child = Child(catalog, out, slow=0.1)
    child.wait(3)
    run = open_run(out)
    write_hats(run.paths, hats, rows_per_partition=3, info=column_info_of(run.manifest))
    assert child.code() is None, "the run goes on"
    early, at_work = lsdb.open_catalog(hats), partitions()
    child.wait(5)
    child.send(signal.SIGKILL)
    child.end()
    assert main(export) == 0
    killed, then = lsdb.open_catalog(hats), partitions()
    resume(out, prior=toys.GaussianPrior(), cluster="none")
    assert main(export) == 0
    whole, last = lsdb.open_catalog(hats), partitions()
    assert 0 < len(early) < len(killed) < len(whole) == N
    assert at_work.items() < then.items() < last.items()
    product = rows_of(whole)
    assert product.index.tolist() == list(range(100, 100 + N)) and early.margin is None is not whole.margin
    for some in (early, killed):
        assert rows_of(some).equals(product.loc[rows_of(some).index])
    assert verify(out) == []
