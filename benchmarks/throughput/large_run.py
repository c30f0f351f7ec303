"""A run of ten million sources, step by step, a process each: rows a second and peak memory.

    python benchmarks/throughput/large_run.py [--rows 10000000] [--columns 300] [--folder .] [--out X.jsonl]

Nothing is sampled: batches are committed with made-up values (no zeros, no repeats that compress), by the
function that commits them in a run. All else is what a run does: catalogue -> checks and plan -> merge ->
verify -> exports. Of every step the result is checked before its rate counts. Stamps are 4 pixels and batches
1,024 sources wide (``--batch``), so that the store of ten million fits on a disk; ``--columns``: of a part.

``write_ratio``: time of the merge over that of a plain pyarrow write of the same columns, with the same
settings, in the same minutes: what the merge costs on a machine whose speed is not known.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from scale import alone

from galbatch.bench.kernels import part_columns
from galbatch.bench.timing import arguments, environment, keep
from galbatch.config import RunSettings
from galbatch.run import prepare, verify
from galbatch.run.lay_out import write_plan
from galbatch.store import (
    BatchResult,
    RunPaths,
    StoreLayout,
    commit_batch,
    create_store,
    iter_plan,
    merge_catalog,
)

SIDE, SPACING, BLOCK, VARIANTS = 3_200, 1.9, 65_536, 24
SURVEY = """name = "large"
neighbours = "keep"
stamp_pix = 16
[bands.f200w]
sci = "sci.fits"
err = "err.fits"
psf = "psf.fits"
pixel_scale_arcsec = 2.0
psf_scale_arcsec = 2.0
unit = "nJy"
"""


def known(ids: np.ndarray) -> np.ndarray:
    """A value of a source that tells whose it is."""
    return (ids % 8_388_593 + 0.5).astype(np.float32)


def make_catalogue(folder: Path, rows: int) -> int:
    """A mosaic of noise, and sources on a jittered grid in a random order."""
    rng = np.random.default_rng(0)
    keys = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
    values = (150.0, 2.0, SIDE / 2, SIDE / 2, -2 / 3600, 0.0, 0.0, 2 / 3600)
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", **dict(zip(keys, values, strict=True))})
    header["BUNIT"] = "nJy"
    fits.writeto(folder / "sci.fits", rng.standard_normal((SIDE, SIDE), np.float32), header)
    fits.writeto(folder / "err.fits", np.ones((SIDE, SIDE), np.float32), header)
    y, x = np.mgrid[-7:8, -7:8]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
    fits.writeto(folder / "psf.fits", (psf / psf.sum()).astype(np.float32))
    (folder / "cat.toml").write_text(SURVEY)
    side = int(np.ceil(np.sqrt(rows)))
    order = rng.permutation(side * side)[:rows].astype(np.int32)
    writer = None
    for start in range(0, rows, BLOCK):
        place = order[start : start + BLOCK]
        n = len(place)
        east, north = place % side - side / 2, place // side - side / 2
        table = pa.table(
            {
                "source_id": np.arange(start, start + n) + 2**40,
                "ra": 150 + (east + rng.uniform(-0.05, 0.05, n)) * SPACING / 3600,
                "dec": 2 + (north + rng.uniform(-0.05, 0.05, n)) * SPACING / 3600,
                "redshift": rng.uniform(0, 3, n),
                "field": pa.array([f"field-{k}" for k in rng.integers(0, 1000, n)]),
            }
        )
        writer = writer or pq.ParquetWriter(folder / "cat.parquet", table.schema)
        writer.write_table(table)
    writer.close()
    return rows


def plan(folder: Path, rows: int, size: int) -> int:
    """Open and check the inputs, and plan, as ``galbatch process`` does before its first batch."""
    inputs = prepare.open_inputs(RunSettings(str(folder / "cat.parquet"), str(folder / "cat.toml")))
    prepare.refuse_errors(inputs)
    paths = RunPaths(folder / "large.run")
    paths.parts.mkdir(parents=True)
    return write_plan(paths, inputs.catalog, inputs.survey, size, 0, inputs.row_flags)


def check_plan(folder: Path, rows: int, size: int) -> int:
    """Every source is in the plan once, in batches of ``size``."""
    paths = RunPaths(folder / "large.run")
    ids = pq.read_table(paths.plan, columns=["source_id", "batch", "tile"])
    assert rows == ids.num_rows and ids["batch"][-1].as_py() == (rows - 1) // size
    assert len(np.unique(ids["source_id"].to_numpy())) == rows
    return rows


def commit(folder: Path, rows: int, size: int, columns: int) -> int:
    """Every batch of the plan, with a part of ``columns`` columns and its shards."""
    paths, rng = RunPaths(folder / "large.run"), np.random.default_rng(1)
    layout = StoreLayout(rows, size, 1, ("f200w",), 4, samples=False, pixel_scale_arcsec=(2.0,))
    create_store(paths.posterior, layout)
    lay_manifest(paths, layout)
    noise = [part_columns(np.arange(size), rng) for _ in range(VARIANTS)]
    names = [n for n in noise[0] if noise[0][n].dtype == np.float32][: columns - 7]
    wcs = np.broadcast_to([2.5, 2.5, 150.0, 2.0, -2 / 3600, 0.0, 0.0, 2 / 3600], (size, 1, 8))
    images = rng.standard_normal((size, 1, 4, 4)).astype(np.float32)
    bad = np.arange(size) % 100 == 17
    for batch in iter_plan(paths.plan):
        n, ids, one = len(batch), batch.columns["source_id"], noise[batch.batch % VARIANTS]
        failed = bad[:n]
        made = {name: one[name][:n] for name in names}
        made |= {"source_id": ids, "status": np.where(failed, "failed", "ok").astype(object)}
        made |= {"flags": np.where(failed, 2, 0), "known": known(ids)}
        made |= {f"failure_{k}": np.where(failed, k, "").astype(object) for k in ("stage", "code", "message")}
        arrays = {"source_id": ids, "status": np.where(failed, 3, 1).astype(np.uint8), "mean": images[:n]}
        arrays["wcs"] = wcs[:n]
        commit_batch(paths, layout, BatchResult(batch.batch, arrays, made))
    return len(paths.committed())


def lay_manifest(paths: RunPaths, layout: StoreLayout) -> None:
    """The files beside the plan that make the folder a run."""
    from galbatch.store import write_manifest

    write_manifest(paths, {"config": {"catalog": "cat.parquet"}, "layout": layout.attributes(), "inputs": []})
    paths.config.write_text("[run]\n")


def merge(folder: Path) -> dict:
    """As a run ends; returns the sources by status."""
    return dict(merge_catalog(RunPaths(folder / "large.run"), {}))


def check_merge(folder: Path, rows: int) -> int:
    """Every row of the catalogue is the plan's and has its own value."""
    paths, seen, failed = RunPaths(folder / "large.run"), 0, 0
    with pq.ParquetFile(paths.catalog) as catalogue, pq.ParquetFile(paths.plan) as planned:
        ids = planned.read(columns=["source_id"])["source_id"].to_numpy()
        for group in range(catalogue.num_row_groups):
            table = catalogue.read_row_group(group, columns=["source_id", "known", "status"])
            found = table["source_id"].to_numpy()
            assert np.array_equal(found, ids[seen : seen + len(found)])
            assert np.array_equal(table["known"].to_numpy(), known(found))
            failed += np.count_nonzero(table["status"].to_numpy() == "failed")
            seen += len(found)
    assert seen == rows and pq.read_metadata(paths.failures).num_rows == failed > 0
    return seen


def plain_write(folder: Path) -> float:
    """Seconds a row that pyarrow takes to write the same columns from memory."""
    with pq.ParquetFile(folder / "large.run" / "catalog.parquet") as file:
        table = pa.concat_tables([file.read_row_group(g) for g in range(min(4, file.num_row_groups))])
    table = table.combine_chunks()
    text = [f.name for f in table.schema if pa.types.is_string(f.type)]
    floats = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    start = time.perf_counter()
    pq.write_table(
        table,
        folder / "plain.parquet",
        compression="zstd",
        compression_level=1,
        use_dictionary=text,
        use_byte_stream_split=floats,
        write_statistics=["source_id", "flags"],
    )
    return (time.perf_counter() - start) / table.num_rows


def verified(folder: Path) -> int:
    """``galbatch verify``; returns the number of problems."""
    return len(verify(folder / "large.run"))


def export(folder: Path, form: str, rows: int) -> int:
    """``galbatch export --to``; returns the rows, or for images the files, written."""
    from galbatch.cli.main import main

    target = folder / f"out-{form}"
    arguments = ["export", str(folder / "large.run"), "--to", form, "--out", str(target)]
    assert main(arguments + (["--ids", f"{2**40},{2**40 + rows - 1}"] if form == "fits" else [])) == 0
    return sum(1 for p in target.rglob("*") if p.is_file())


def measure(options) -> dict:
    rows, found = options.rows, {"benchmark": "large_run", **environment("cpu")}
    found |= {"rows": options.rows, "columns": options.columns, "batch": options.batch}
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="large-") as name:
        folder = Path(name)
        steps = {
            "catalogue": (make_catalogue, folder, rows),
            "plan": (plan, folder, rows, options.batch),
            "check_plan": (check_plan, folder, rows, options.batch),
            "commit": (commit, folder, rows, options.batch, options.columns),
            "merge": (merge, folder),
            "check_merge": (check_merge, folder, rows),
            "plain_write": (plain_write, folder),
            "verify": (verified, folder),
            **{f"export_{form}": (export, folder, form, rows) for form in options.export},
        }
        for step, (work, *arguments) in steps.items():
            if options.steps and step not in options.steps:
                continue
            result, cost = alone(work, *arguments)
            if step == "merge":
                assert sum(result.values()) == rows, result
            assert step != "verify" or result == 0, f"{result} problems"
            found |= {f"{step}_{k}": v for k, v in cost.items()} | {f"{step}_rows_a_s": rows / cost["s"]}
            if step == "plain_write":
                found["write_ratio"] = found["merge_s"] / rows / result
            free = shutil.disk_usage(folder).free / 1e9
            print(
                f"{step:>16}  {cost['s']:8.1f} s  {rows / cost['s']:10,.0f} rows/s  "
                f"peak {cost['peak_mb']:6.0f} MB (began at {cost['start_mb']:.0f})  {free:.0f} GB free",
                flush=True,
            )
    return found


def main() -> None:
    options = arguments(
        __doc__,
        rows=10_000_000,
        columns=300,
        batch=1024,
        folder=Path,
        steps=[str],
        export=["hats", "votable", "fits"],
    )
    found = measure(options)
    if "write_ratio" in found:
        print(f"merge / plain pyarrow write: {found['write_ratio']:.2f}")
    keep(found, options.out)


if __name__ == "__main__":
    main()
