"""What a run writes, read back with the other tool: LSDB, hats, STILTS (the engine of TOPCAT) and DS9 itself.

STILTS and DS9 are programs (``apt-get install stilts saods9 xpa-tools xvfb``); their tests are skipped
where they are missing.
"""

import os
import shutil
import subprocess
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_run import FIRST_ID, export

import galbatch


@pytest.mark.ci("hats")
def test_hats_catalogue_is_valid_in_hats(paths, tmp_path):
    import hats
    from hats.io.validation import is_valid_catalog

    folder = tmp_path / "cat"
    assert export(paths, "hats", folder) == 0
    for name in ("catalog", "statistics", "catalog_10arcs"):
        assert is_valid_catalog(folder / name, strict=True), name
    catalogue = hats.read_hats(folder).main_catalog
    assert catalogue.catalog_info.total_rows == 6 and catalogue.schema.names[0] == "source_id"


@pytest.mark.ci("lsdb")
@pytest.mark.filterwarnings("ignore")  # LSDB's own, about pandas and Dask
def test_lsdb_searches_the_hats_catalogue(paths, tmp_path):
    import lsdb

    assert export(paths, "hats", tmp_path / "cat") == 0
    catalogue = lsdb.open_catalog(tmp_path / "cat")
    assert len(catalogue) == 6
    found = catalogue.cone_search(ra=150.4, dec=2.2, radius_arcsec=5).compute()
    assert found["source_id"].tolist() == [FIRST_ID + 1]
    run = galbatch.open_run(paths.root)
    assert float(found["gini_p50_f200w"].iloc[0]) == run.catalog[1]["gini_p50_f200w"]
    more = lsdb.open_catalog(tmp_path / "cat/statistics").compute().set_index("source_id")
    assert more["gini_obs_f200w"].loc[FIRST_ID + 1] == run.statistics[1]["gini_obs_f200w"]


def stilts(*words):
    if shutil.which("stilts") is None:
        pytest.skip("stilts is not installed: apt-get install stilts")
    done = subprocess.run(["stilts", *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_stilts_finds_no_fault_with_the_voparquet_footer(paths, tmp_path):
    """STILTS and TOPCAT take units and UCDs of ``catalog.parquet`` from the VOTable in its footer."""
    footer = tmp_path / "footer.vot"
    footer.write_bytes(pq.read_schema(paths.catalog).metadata[b"IVOA.VOTable-Parquet.content"])
    assert stilts("votlint", footer) == ""


def test_stilts_reads_the_votable(paths, tmp_path):
    path = tmp_path / "catalog.vot"
    assert export(paths, "votable", tmp_path) == 0
    assert stilts("votlint", path) == ""
    columns = "source_id r_half_p50_f200w status"
    lines = stilts("tpipe", f"in={path}", f'cmd=keepcols "{columns}"', "ofmt=csv").splitlines()
    table = galbatch.open_run(paths.root).catalog
    assert lines[0] == columns.replace(" ", ",") and len(lines) == 7
    for line, row in zip(lines[1:], table, strict=True):
        source_id, radius, status = line.split(",")
        assert int(source_id) == row["source_id"] and status == row["status"]
        assert np.float32(radius or "nan") == pytest.approx(row["r_half_p50_f200w"].value, nan_ok=True)
    meta = stilts("tpipe", f"in={path}", "cmd=meta name units", "ofmt=csv")
    units = dict(line.split(",") for line in meta.split())
    assert units["ra"] == "deg" and units["r_half_p50_f200w"] == "arcsec"


@pytest.fixture
def ds9():
    """A DS9 of our own on a screen of our own: ``ds9(*options)`` starts it and returns ``ask(*words)``."""
    for program in ("ds9", "Xvfb", "xpaget", "xpaaccess"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install saods9 xpa-tools xvfb")
    title, display = f"galbatch{os.getpid()}", f":{100 + os.getpid() % 800}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen(["Xvfb", display, "-screen", "0", "1200x900x24"], **quiet)]

    def ask(*words):
        done = subprocess.run(["xpaget", title, *words], capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    def start(*options):
        time.sleep(2)
        command = ["ds9", "-title", title, *map(str, options)]
        running.append(subprocess.Popen(command, env=os.environ | {"DISPLAY": display}, **quiet))
        for _ in range(60):
            if subprocess.run(["xpaaccess", "-n", title], capture_output=True).stdout.strip() == b"1":
                return ask
            time.sleep(1)
        pytest.fail("ds9 did not answer within a minute")

    yield start
    for process in reversed(running):
        process.terminate()
        process.wait(20)


def test_ds9_opens_every_plane_with_its_wcs(paths, tmp_path, ds9):
    assert export(paths, "fits", tmp_path, "--ids", str(FIRST_ID + 1)) == 0
    ask = ds9("-multiframe", tmp_path / f"{FIRST_ID + 1}.fits")
    for _ in range(30):
        if len(ask("frame", "all").split()) == 16:
            break
        time.sleep(1)
    assert len(ask("frame", "all").split()) == 16  # eight planes in each of two bands; the last is shown
    assert ask("fits", "size").split()[:2] == ["16", "16"]
    header = ask("fits", "header")
    assert "F444W_SAMPLES" in header and "nJy" in header
    run = galbatch.open_run(paths.root)
    draw = run.samples(FIRST_ID + 1, "f444w")[0]
    assert float(ask("data", "image", "8", "9", "1", "1", "yes")) == pytest.approx(draw[8, 7], rel=1e-4)
    subprocess.run(["xpaset", "-p", f"galbatch{os.getpid()}", "pan", "to", "8", "9", "image"], timeout=30)
    seen = [float(v) for v in ask("pan", "wcs", "icrs", "degrees").split()]
    assert np.allclose(seen, run.wcs(FIRST_ID + 1, "f444w").all_pix2world([[7, 8]], 0)[0], atol=5e-7, rtol=0)
