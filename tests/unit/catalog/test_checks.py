"""What validation finds in a catalogue, and what it costs at a million rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial import cKDTree

from galbatch.catalog import open_catalog, validate
from galbatch.catalog.checks import close_pairs
from galbatch.types import Flag


def checked(tmp_path, ids=None, ra=None, dec=None, pixel_columns=False, **columns):
    n = max(len(v) for v in (ids, ra, dec) if v is not None)
    base = {
        "source_id": np.arange(n) if ids is None else ids,
        "ra": 150 + np.arange(n) * 0.01 if ra is None else ra,
        "dec": np.full(n, 2.0) if dec is None else dec,
        **columns,
    }
    pq.write_table(pa.table(base), tmp_path / "c.parquet")
    return validate(open_catalog(tmp_path / "c.parquet", pixel_columns), pixel_columns)


def codes(found):
    return {f.code: f.level for f in found.findings}


def test_a_sound_catalogue(tmp_path):
    found = checked(tmp_path, ids=[5, 3, 9])
    assert found.findings == [] and not found.flags.any()


@pytest.mark.parametrize("ids", [[2**60 + 1, 2**60, 2**60 + 1, 4], ["a", "b", "a", "c"]])
def test_duplicate_ids_stop_a_run_and_are_listed(tmp_path, ids):
    found = checked(tmp_path, ids=ids)
    assert codes(found) == {"duplicate_id": "error"}
    assert str(ids[0]) in found.findings[0].what and found.findings[0].what.startswith("2 rows")
    assert [bool(f & Flag.DUPLICATE_ID) for f in found.flags] == [True, False, True, False]


def test_large_ids_are_not_confused(tmp_path):
    """Neighbouring integers above 2^53 are equal as floats."""
    assert checked(tmp_path, ids=[2**62, 2**62 + 1, 2**62 + 2]).findings == []


def test_duplicate_positions_are_flagged(tmp_path):
    found = checked(tmp_path, ra=[150.0, 150.0 + 0.05 / 3600, 151.0, 152.0], dec=[2.0, 2.0, 2.0, 2.0])
    assert codes(found) == {"duplicate_position": "warn"}
    assert (found.flags != 0).tolist() == [True, True, False, False]


def test_bad_positions_are_rows_not_the_run(tmp_path):
    found = checked(tmp_path, ra=[150.0, np.nan, 400.0, 10.0, -170.0], dec=[2.0, 2.0, 2.0, 95.0, 2.0])
    assert codes(found) == {"bad_position": "warn"} and "rows 1, 2, 3" in found.findings[0].what
    assert codes(checked(tmp_path, ra=[1.0, 2.0], dec=[150.0, 151.0])) == {"bad_position": "error"}
    assert "swapped" in checked(tmp_path, ra=[1.0, 2.0], dec=[150.0, 151.0]).findings[0].remedy
    assert codes(checked(tmp_path, ra=[np.nan], dec=[np.nan])) == {"bad_position": "error"}


def test_radians_and_units(tmp_path):
    rng = np.random.default_rng(0)
    found = checked(tmp_path, ra=rng.uniform(0, 6.2, 50), dec=rng.uniform(-1.5, 1.5, 50))
    assert codes(found) == {"radians": "warn"}
    table = pa.table({"source_id": [1], "ra": [2.6], "dec": [0.03]})
    field = table.schema.field("ra").with_metadata({"unit": "rad"})
    pq.write_table(
        table.cast(pa.schema([table.schema.field(0), field, table.schema.field(2)])), tmp_path / "u.parquet"
    )
    assert codes(validate(open_catalog(tmp_path / "u.parquet")))["unit"] == "error"


def test_empty_and_pixels(tmp_path):
    assert codes(checked(tmp_path, ids=np.array([], int), ra=np.array([]), dec=np.array([]))) == {
        "empty": "warn"
    }
    found = checked(tmp_path, ids=[1, 2], x=[1.0, np.nan], y=[1.0, 2.0], pixel_columns=True)
    assert codes(found) == {"bad_position": "warn"} and found.findings[0].what.endswith("rows 1")


@pytest.mark.parametrize("dec0", [0.0, 60.0, 89.0, -30.0])
def test_close_pairs_are_those_of_a_tree(dec0, monkeypatch):
    monkeypatch.setattr("galbatch.catalog.checks._STRIP_ROWS", 500)
    rng = np.random.default_rng(3)
    n = 4000
    dec = dec0 + rng.random(n) * 20 / 3600
    ra = (359.999 + rng.random(n) * 20 / 3600 / np.cos(np.radians(dec0))) % 360
    ra[7] = np.nan
    good = np.isfinite(ra)
    c = np.cos(np.radians(dec))
    xyz = np.stack([c * np.cos(np.radians(ra)), c * np.sin(np.radians(ra)), np.sin(np.radians(dec))], 1)[good]
    pairs = cKDTree(xyz).query_pairs(np.radians(0.1 / 3600))
    want = np.zeros(n, bool)
    want[np.nonzero(good)[0][np.unique(list(pairs))]] = True
    near = close_pairs(ra, dec, 0.1)
    assert near.sum() > 20 and not np.any(near & ~want)
    assert (near != want).sum() <= 0.02 * want.sum()


@pytest.mark.parametrize("dec", [0.0, 70.0, -89.9])
def test_a_pair_across_ra_0_is_close(dec):
    step = 0.02 / 3600 / np.cos(np.radians(dec))
    ra = np.array([step, 360 - step, 360.0 - 40 * step, -40 * step, 100.0])
    assert close_pairs(ra, np.full(5, dec), 0.1).tolist() == [True, True, True, True, False]
    assert not close_pairs(np.array([4 * step, 360 - 4 * step]), np.full(2, dec), 0.1).any()


@pytest.mark.parametrize("pole", [-1, 1])
def test_a_pair_across_a_pole_is_close(pole):
    dec = pole * (90 - np.array([0.04, 0.04, 3.0, 3.0, 20.0, 20.0]) / 3600)
    ra = np.array([10.0, 190.0, 50.0, 230.0, 0.0, np.degrees(0.05 / 20)])
    assert close_pairs(ra, dec, 0.1).tolist() == [True, True, False, False, True, True]


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory of a process: read from /proc"
)
def test_a_million_rows_in_seconds_and_little_memory(tmp_path):
    """In a process of its own, so that its peak memory is that of the check."""
    import subprocess
    import sys

    rng, n = np.random.default_rng(0), 10**6
    pq.write_table(
        pa.table({"source_id": np.arange(n) + 2**60, "ra": 150 + rng.random(n), "dec": 2 + rng.random(n)}),
        tmp_path / "c.parquet",
    )
    code = (
        "import pathlib, re, time; from galbatch.catalog import open_catalog, validate; "
        "t = time.process_time();"
        f"v = validate(open_catalog({str(tmp_path / 'c.parquet')!r})); assert len(v.flags) == 10**6;"
        # Not getrusage: its peak is inherited from the process that started this one.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1];"
        "print(time.process_time() - t, float(peak) / 1e6)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, done.stdout.split())
    assert seconds < 15 and gigabytes < 1.0
