"""A finished run folder of known content, written through the store as a real run does, without sampling."""

import numpy as np
from report_fakes import fake_view

from galbatch.cli.main import main
from galbatch.columns import columns_of
from galbatch.flags import Level, quality_of
from galbatch.store import (
    BatchResult,
    PlanWriter,
    RunPaths,
    StoreLayout,
    begin_checksums,
    commit_batch,
    create_store,
    dump_toml,
    end_checksums,
    iter_plan,
    merge_catalog,
    write_atomic,
    write_manifest,
    write_summary,
)
from galbatch.types import Flag

BANDS = ("f200w", "f444w")
FAILED_ID = 1003
FIRST_ID = 1000
STATISTICS = {
    "gini": 0.5,
    "m20": -1.7,
    "mag_ab": 24.3,
    "r_half": 0.2,
    "ellipticity": 0.3,
    "concentration": 3.1,
    "asymmetry": 0.1,
    "orientation": 0.4,
}


def write_fake_run(folder, n=6, draws=4, size=16, batch=4, ids=None, bands=BANDS):
    """``n`` sources in ``bands``; number 3 failed, number 2 is flagged. Returns the run's paths."""
    paths = RunPaths(folder)
    paths.parts.mkdir(parents=True)
    ids = np.arange(n) + FIRST_ID if ids is None else np.array(ids, object)
    n = len(ids)
    with PlanWriter(paths.plan, batch) as plan:
        plan.add(
            {
                "source_id": ids,
                "ra": np.linspace(150, 152, n),
                "dec": np.linspace(2, 3, n),
                "tile": np.full(n, "t"),
                "x": np.arange(n) * 20.0,
                "y": np.arange(n) * 20.0,
                "prescreen_flags": np.zeros(n, np.int64),
            },
            {"redshift": np.linspace(0, 1, n)},
        )
    layout = StoreLayout(
        n,
        batch,
        draws,
        bands,
        size,
        string_ids=ids.dtype == object,
        pixel_ratio=(1,) * len(bands),
        pixel_scale_arcsec=(0.03,) * len(bands),
    )
    create_store(paths.posterior, layout)
    write_manifest(
        paths,
        {
            "config": {"catalog": "/nowhere/fake.parquet", "mode": "fast", "draws": draws, "seed": 0},
            "model": {"name": "toy", "sha256": "ab" * 32},
            "versions": {"galbatch": "0.1.0"},
            "layout": layout.attributes(),
            "created": 1.7e9,
        },
    )
    write_atomic(paths.config, dump_toml({"run": {"draws": draws}}).encode())
    begin_checksums(paths)
    for rows in iter_plan(paths.plan):
        commit_batch(paths, layout, _result(rows, draws, size, bands))
    counts = merge_catalog(paths, columns_of(bands))
    write_summary(
        paths,
        {
            "planned": n,
            **counts,
            "elapsed_s": 12.5,
            "draws": n * draws,
            "draws_per_s": 2.0,
            "evaluations": n * draws * 18.0,
            "resumed_from": 0,
            "stage_seconds": {"cut": 0.5, "sample": 11.0},
        },
    )
    end_checksums(paths)
    return paths


def _result(rows, draws, size, bands):
    ids, n, numbers = rows.columns["source_id"], len(rows), rows.columns["source_row"] + FIRST_ID
    views = [
        [fake_view(size=size, draws=draws, truth=False, seed=int(i) + b) for b in range(len(bands))]
        for i in numbers
    ]
    failed, flagged = numbers == FAILED_ID, numbers == FAILED_ID - 1
    stack = lambda name: np.array([[getattr(v, name) for v in row] for row in views])  # noqa: E731
    arrays = {name: stack(name).astype("f4") for name in ("observed", "model", "mean", "std", "prior_driven")}
    arrays["samples"] = stack("samples").swapaxes(1, 2).astype("f4")
    mask = stack("mask")
    arrays["mask"] = mask.astype(np.uint8)
    arrays["sigma"] = np.where(mask, np.inf, stack("sigma")).astype("f4")
    for name in ("samples", "mean", "std", "model", "prior_driven"):
        arrays[name][failed] = np.nan
    wcs = np.tile([size / 2, size / 2, 150.0, 2.0, -0.03 / 3600, 0, 0, 0.03 / 3600], (n, len(bands), 1))
    wcs[..., 2], wcs[..., 3] = rows.columns["ra"][:, None], rows.columns["dec"][:, None]
    code = np.where(failed, 3, np.where(flagged, 2, 1)).astype(np.uint8)
    flags = np.where(failed, int(Flag.OFF_IMAGE), np.where(flagged, int(Flag.NEIGHBOUR), 0))
    arrays |= {
        "source_id": ids.astype(object) if ids.dtype.kind == "U" else ids,
        "status": code,
        "flags": flags,
        "wcs": wcs,
        "chi2": np.ones((n, len(bands)), "f4"),
        "psf_id": np.full((n, len(bands)), "p0", object),
    }
    return BatchResult(
        rows.batch,
        arrays,
        _columns(ids, numbers, failed, code, flags, bands),
        {"sample": 1.0},
        {"draws": n * draws},
    )


def _columns(ids, numbers, failed, code, flags, bands):
    quality = np.where(failed, np.int8(Level.BAD), quality_of(flags))
    columns = {
        "source_id": ids,
        "flags": flags,
        "quality": quality,
        "n_draws_ok": np.where(failed, 0, 4).astype(np.int32),
        "status": np.array(["", "ok", "flagged", "failed"], object)[code],
        "failure_stage": np.where(failed, "cut", "").astype(object),
        "failure_code": np.where(failed, "OFF_IMAGE", "").astype(object),
        "failure_message": np.where(failed, "outside every image", "").astype(object),
    }
    for band in bands:
        columns[f"quality_{band}"] = quality
        for name, value in STATISTICS.items():
            for stat, offset in (("p16", -0.02), ("p50", 0.0), ("p84", 0.03), ("obs", 0.01)):
                value_of = value + offset + 0.001 * (numbers - FIRST_ID)
                columns[f"{name}_{stat}_{band}"] = np.where(failed, np.nan, value_of).astype("f4")
            columns[f"{name}_raw50_{band}"] = columns[f"{name}_p50_{band}"]
        for name in ("chi2", "chi2_p", "prior_driven_frac"):
            columns[f"{name}_{band}"] = np.where(failed, np.nan, 0.9 if name == "chi2" else 0.25).astype("f4")
    return columns


def export(paths, form, folder, *more):
    """The exit code of the command."""
    return main(["export", str(paths.root), "--to", form, "--out", str(folder), *more])
