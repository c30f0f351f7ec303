"""A statistic in a package of its own: built and installed by pip, found by a run in another process."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import QTable
from cutouts_field import add_galaxy, noise_field, simple_survey, wcs_of

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "peaks-for-galbatch"
version = "1.0"
[project.entry-points."galbatch.statistics"]
peak = "peaks:peak"
[tool.setuptools]
py-modules = ["peaks"]
"""
MODULE = """
from galbatch.morphology import Statistic

def brightest(s):
    return s.images.max(axis=(1, 2))

peak = Statistic("peak", "nJy", "phot.flux.density;stat.max", "brightest pixel of the stamp", brightest)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder into which pip has installed the package."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "peaks.py").write_text(MODULE)
    pytest.importorskip("setuptools")
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=120)
    return target


def test_a_run_measures_the_statistic_of_an_installed_package(installed, tmp_path):
    image, x, y = noise_field(), [100.0, 150.0], [120.0, 180.0]
    for i in range(2):
        add_galaxy(image, y[i], x[i])
    survey = simple_survey(tmp_path, image)
    ra, dec = wcs_of().all_pix2world(x, y, 0)
    pq.write_table(pa.table({"source_id": [1, 2], "ra": ra, "dec": dec}), tmp_path / "c.parquet")
    out = tmp_path / "c.run"
    settings = "--cluster none --draws 2 --mode fast --batch 2 --stamp-pix 32".split()
    command = [sys.executable, "-m", "galbatch", "process", str(tmp_path / "c.parquet"), "--survey"]
    done = subprocess.run(
        [*command, str(survey), "--out", str(out), *settings],
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode in (0, 3), done.stdout + done.stderr
    table = QTable.read(out / "statistics.parquet")
    peak = table["peak_raw50_f200w"]
    assert peak.unit == "nJy" and "brightest pixel of the stamp" in peak.info.description
    assert table["peak_std_f200w"].info.meta["ucd"] == "phot.flux.density;stat.max;stat.stdev"
    stamps = image[int(y[0]) - 16 : int(y[0]) + 16, int(x[0]) - 16 : int(x[0]) + 16]
    assert np.isfinite(peak.value).all()
    assert table["peak_obs_f200w"][0].value == pytest.approx(stamps.max(), rel=0.02)
