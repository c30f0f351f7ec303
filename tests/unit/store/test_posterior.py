import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from galbatch.errors import RunError
from galbatch.store import posterior
from galbatch.store.layout import StoreLayout
from galbatch.store.posterior import create_store, open_store, round_mantissa, write_shards


def layout(**changes):
    options = dict(n_sources=5, batch=4, draws=3, bands=("f200w", "f444w"), stamp_pix=8, oversample=2)
    return StoreLayout(**(options | changes))


def arrays(n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "samples": rng.normal(size=(n, 3, 2, 16, 16)).astype("f4"),
        "mean": rng.normal(size=(n, 2, 16, 16)).astype("f4"),
        "observed": rng.normal(size=(n, 2, 8, 8)).astype("f4"),
        "source_id": np.arange(n) + 10,
        "status": np.ones(n, np.uint8),
        "psf_id": np.full((n, 2), "psf-ä"),
    }


def test_template_is_whole_and_opens_in_xarray_without_a_warning(tmp_path):
    create_store(tmp_path / "p.zarr", layout())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xr.open_zarr(tmp_path / "p.zarr")
    assert data.samples.dims == ("source", "draw", "band", "y", "x")
    sides = dict(y=16, x=16, y_detector=8, x_detector=8)
    assert data.sizes == dict(source=8, draw=3, band=2, wcs_parameter=8) | sides
    assert data.attrs["n_sources"] == 5 and list(data.band.values) == ["f200w", "f444w"]
    assert np.isnan(data["mean"].values).all()
    kept = StoreLayout.from_attributes(dict(open_store(tmp_path / "p.zarr").attrs))
    assert kept.bands == ("f200w", "f444w")


def test_one_batch_is_one_file_per_array_and_reads_back(tmp_path):
    path = tmp_path / "p.zarr"
    create_store(path, layout())
    given = arrays(4)
    write_shards(path, layout(), 0, given)
    write_shards(path, layout(), 1, arrays(1, seed=1))
    group = open_store(path)
    assert np.array_equal(group["samples"][:4], round_mantissa(given["samples"]))
    assert np.array_equal(group["observed"][:4], given["observed"])  # data are not rounded
    assert group["psf_id"][0, 1] == "psf-ä" and group["source_id"][:6].tolist() == [10, 11, 12, 13, 10, 0]
    assert len([f for f in (path / "samples").rglob("*") if f.is_file() and f.name != "zarr.json"]) == 2


def contents(path):
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


@pytest.mark.parametrize("string_ids", [False, True])
def test_the_bytes_are_those_that_zarr_writes(tmp_path, string_ids):
    plan = layout(string_ids=string_ids, stamp_pix=33)
    rng, blocks = np.random.default_rng(0), {}
    for spec in plan.arrays().values():
        shape = (plan.batch, *spec.shape(plan.sizes())[1:])
        blocks[spec.name] = (9 * rng.normal(size=shape)).astype(spec.dtype)
        if spec.rounded:
            blocks[spec.name] = round_mantissa(blocks[spec.name])
    for name in ("ours.zarr", "theirs.zarr"):
        create_store(tmp_path / name, plan)
    write_shards(tmp_path / "ours.zarr", plan, 1, blocks)
    group = zarr.open_group(tmp_path / "theirs.zarr", mode="r+")
    for name, block in blocks.items():
        group[name].with_config({"write_empty_chunks": True})[plan.rows(1)] = block.astype(group[name].dtype)
    assert contents(tmp_path / "ours.zarr") == contents(tmp_path / "theirs.zarr")


HONEST = Path.read_bytes


@pytest.mark.parametrize(("what", "name", "lie"), [
    (Path, "read_bytes", lambda path: HONEST(path)[:-1] + b"?"),
    (posterior.blosc, "decompress", lambda piece: b"something else"),
])  # fmt: skip
def test_what_reads_back_differently_stops_the_run(tmp_path, monkeypatch, what, name, lie):
    create_store(tmp_path / "p.zarr", layout())
    monkeypatch.setattr(what, name, lie)
    with pytest.raises(RunError, match=r"samples.*wrote CRC.*read back"):
        write_shards(tmp_path / "p.zarr", layout(), 0, arrays(4))


def test_rounding_keeps_ten_bits_and_what_is_not_finite():
    values = np.array(
        [1.0, 1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, np.pi, -np.pi, 3.4e38, np.nan, np.inf, -np.inf, 0],
        np.float32,
    )
    rounded = round_mantissa(values)
    assert rounded[:4].tolist() == [1.0, 1 + 2**-10, 1.0, 1 + 2**-9]  # ties go to even
    assert np.all(np.abs(rounded[4:6] / values[4:6] - 1) <= 2**-11) and np.isnan(rounded[7])
    assert rounded[8] == np.inf and rounded[9] == -np.inf and rounded[10] == 0
    random = np.random.default_rng(0).normal(size=10000).astype("f4")
    assert np.abs(round_mantissa(random) / random - 1).max() <= 2**-11
    assert (round_mantissa(random).view(np.uint32) & 0x1FFF).max() == 0


def test_a_missing_store_says_so(tmp_path):
    with pytest.raises(RunError, match="no posterior store"):
        open_store(tmp_path / "nothing.zarr")
    with pytest.raises(RunError, match="no posterior store"):
        write_shards(tmp_path / "nothing.zarr", layout(), 0, arrays(4))
