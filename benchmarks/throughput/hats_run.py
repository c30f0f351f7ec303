"""A run from a HATS catalogue to a HATS catalogue, on disk or in a bucket: rows/s, memory, requests.

    python benchmarks/throughput/hats_run.py [--rows 100000] [--s3 | --plan-only] [--draws 2] [--workers 0]
        [--out OUT]

The sampler alone is stubbed: it returns the observed stamp and noise. All else is a run: the catalogue read
by partition, checked and planned, stamps cut and measured, batches committed and read back, tables merged,
exported as HATS; run and export in a process each. ``--s3``: mosaics and run are in a bucket of moto's S3
server on this machine, whose CPU time counts in the rate. ``--workers``: processes of a Dask cluster; 0: the
run's own process. Every id is held to the catalogue's before a number
counts.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from scale import alone

from galbatch.bench.timing import arguments, environment, keep
from galbatch.catalog import open_catalog
from galbatch.config import RunSettings
from galbatch.run import prepare, process
from galbatch.run.events import Progress
from galbatch.run.lay_out import write_plan
from galbatch.store import RunPaths, healpix_nested, open_run, place_of, write_hats
from galbatch.store.sky import INDEX, partition_sky
from galbatch.types import Observation, Posterior

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/support"))
STAMP, SPACING, SCALE, PLANES = 32, 24, 0.05, ("sci.fits", "err.fits", "mask.fits")
SURVEY = """name = "hats"
neighbours = "keep"
stamp_pix = {stamp}
[bands.f200w]
sci = "{where}/sci.fits"
err = "{where}/err.fits"
mask = "{where}/mask.fits"
psf = "psf.fits"
pixel_scale_arcsec = {scale}
psf_scale_arcsec = {scale}
unit = "nJy"
err_scale = 1.0
noise_acf = "none"
error_floor = 0.0
psf_error = "none"
"""


class Nothing:
    """A prior that is never asked. Where it is sent, the sampler is stubbed."""

    channels, target_fwhm_pix, sigma_min, sha256 = 1, 2.0, 0.01, "nothing"

    def __reduce__(self):
        return stubbed, ()

    def denoise(self, x, sigma):
        return x


def observed(prior, obs: Observation, draws: int, **_: object) -> Posterior:
    """In place of the sampler: what was observed, and a little noise that depends on the pixels."""
    data = np.where(obs.mask | ~np.isfinite(obs.data), 0, obs.data).astype(np.float32)
    noise = np.stack([np.roll(data, k + 1, -1) for k in range(draws)], 1) * np.float32(0.01)
    samples, one = data[:, None] + noise, np.ones(data.shape[:2], np.float32)
    n = len(data)
    return Posterior(
        samples, samples.mean(1), samples.std(1), one, 0.5 * one, np.zeros_like(data), 0 * one,
        np.zeros(n, np.int64), one, np.full(n, 9.0), np.full(n, draws), 2.0,
    )  # fmt: skip


def stubbed() -> Nothing:
    """The prior, with the sampler stubbed in this process."""
    import galbatch.pipeline.sampling as sampling

    sampling.sample_posterior = observed
    return Nothing()


def make_inputs(folder: Path, rows: int, spacing: int = SPACING) -> int:
    """Mosaic planes of blobs and noise, and a HATS catalogue of a source on every blob, ``spacing`` pixels
    apart."""
    rng, side = np.random.default_rng(0), int(np.ceil(np.sqrt(rows)))
    n = side * spacing + STAMP
    header = fits.Header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "BUNIT": "nJy", "CRVAL1": 150.0, "CRVAL2": 2.0}
    )
    header.update({"CRPIX1": n / 2, "CRPIX2": n / 2, "CD1_1": -SCALE / 3600, "CD2_2": SCALE / 3600})
    image = rng.standard_normal((n, n), np.float32)
    y, x = np.mgrid[-8:9, -8:9]
    blob = np.exp(-(x**2 + y**2) / (2 * 2.0**2)).astype(np.float32)
    i, j = np.divmod(np.arange(rows), side)
    cy, cx = i * spacing + STAMP // 2 + spacing // 2, j * spacing + STAMP // 2 + spacing // 2
    for a, b, flux in zip(cy.tolist(), cx.tolist(), rng.uniform(5, 200, rows).tolist(), strict=True):
        image[a - 8 : a + 9, b - 8 : b + 9] += flux * blob
    fits.writeto(folder / "sci.fits", image, header)
    fits.writeto(folder / "err.fits", np.ones((n, n), np.float32), header)
    fits.writeto(folder / "mask.fits", (rng.random((n, n)) < 1e-4).astype(np.int16), header)
    psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
    fits.writeto(folder / "psf.fits", (psf / psf.sum()).astype(np.float32))
    ra, dec = sky(header, cx, cy)
    return write_catalogue(folder / "cat.hats", ra, dec)


def sky(header: fits.Header, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ra, dec of pixels."""
    from astropy.wcs import WCS

    ra, dec = WCS(header).all_pix2world(x, y, 0)
    return ra, dec


def write_catalogue(root: Path, ra: np.ndarray, dec: np.ndarray) -> int:
    """A HATS catalogue with partitions of at most 20,000 rows; returns their number."""
    index, ids = healpix_nested(ra, dec), np.random.default_rng(1).permutation(len(ra)) + 2**60
    parts, listed = partition_sky([index], 20_000), ["Norder,Npix"]
    home = parts.home(index)
    for k, (order, pixel) in enumerate(zip(parts.order.tolist(), parts.pixel.tolist(), strict=True)):
        rows = np.flatnonzero(home == k)
        rows = rows[np.argsort(index[rows])]
        file = root / f"dataset/Norder={order}/Dir={pixel // 10_000 * 10_000}/Npix={pixel}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        columns = {"source_id": ids[rows], "ra": ra[rows], "dec": dec[rows], INDEX: index[rows]}
        columns |= {f"m{c}": np.random.default_rng(c).normal(25, 1, len(rows)) for c in range(10)}
        pq.write_table(pa.table(columns), file)
        listed.append(f"{order},{pixel}")
    (root / "partition_info.csv").write_text("\n".join(listed) + "\n")
    return len(parts)


def whole_run(folder: Path, out: str, draws: int, workers: int) -> dict[str, object]:
    """The run; its summary."""
    prior = stubbed()
    memory: list[list[int]] = []  # MB held at each tenth of the run by its process and by the largest worker

    def look(progress: Progress) -> None:
        if progress.done * 10 >= (len(memory) + 1) * progress.total:
            me = psutil.Process()
            held = [[p.memory_info().rss >> 20 for p in of] for of in ([me], me.children(recursive=True))]
            memory.append([max(each) for each in held if each])

    cluster = {"cluster": "local", "workers": workers} if workers else {"cluster": "none"}
    how = {"prior": prior, "draws": draws, "on_progress": look, **cluster}
    run = process(folder / "cat.hats", folder / "s.toml", out, **how)
    return run.summary | {"memory": memory}


def plan(folder: Path) -> int:
    """Checks and plan, as before the first batch; the rows planned."""
    inputs = prepare.open_inputs(RunSettings(str(folder / "cat.hats"), str(folder / "s.toml")))
    prepare.refuse_errors(inputs)
    paths = RunPaths(folder / "plan.run")
    paths.parts.mkdir(parents=True)
    return write_plan(paths, inputs.catalog, inputs.survey, 64, 0, inputs.row_flags)


def measure_plan(rows: int) -> dict[str, object]:
    """One line of results of checks and plan alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        partitions = make_inputs(folder, rows, 4)
        (folder / "s.toml").write_text(SURVEY.format(where=name, stamp=STAMP, scale=SCALE))
        planned, cost = alone(plan, folder)
        assert planned == rows
        ids = pq.read_table(folder / "plan.run/plan.parquet", columns=["source_id"])["source_id"].to_numpy()
        assert np.array_equal(np.sort(ids), np.arange(rows) + 2**60)
    found: dict[str, object] = {"benchmark": "hats_plan", "rows": rows, "partitions": partitions}
    return found | {f"plan_{k}": v for k, v in cost.items()} | environment("cpu")


def export(out: str, folder: Path) -> int:
    """The export; its partitions."""
    return len(write_hats(RunPaths(place_of(out)), folder).partitions)


def check(folder: Path, out: str, exported: Path) -> None:
    """Every source of the catalogue is in the product and its export once, where it was."""
    given = open_catalog(folder / "cat.hats").read(["source_id", "ra"])
    for found in (open_catalog(exported).read(["source_id", "ra"]), open_run(out).values("source_id", "ra")):
        a, b = (np.argsort(t["source_id"]) for t in (given, found))
        for name in ("source_id", "ra"):
            assert np.array_equal(given[name][a], found[name][b]), name


def measure(rows: int, s3: bool, draws: int, workers: int) -> dict[str, object]:
    """One line of results."""
    found: dict[str, object] = {
        "benchmark": "hats_run",
        "rows": rows,
        "s3": s3,
        "draws": draws,
        "workers": workers,
        "stamp_pix": STAMP,
    }
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, out = Path(name), f"{name}/hats.run"
        found["partitions_in"], where = make_inputs(folder, rows), name
        found["plane_mb"] = (folder / "sci.fits").stat().st_size / 1e6
        if s3:
            from bucket import environment as keys
            from bucket import s3_server

            os.environ.update(keys(stack.enter_context(s3_server())))
            where, out = "s3://bucket/mosaics", "s3://bucket/hats.run"
            for plane in PLANES:
                place_of(f"{where}/{plane}").take_file(folder / plane)
                (folder / plane).unlink()
        (folder / "s.toml").write_text(SURVEY.format(where=where, stamp=STAMP, scale=SCALE))
        summary, cost = alone(whole_run, folder, out, draws, workers)
        cost["cpu_s"] += summary["cpu_s"] if workers else 0
        assert summary["planned"] == rows == summary["ok"] + summary["flagged"] + summary["failed"]
        found |= {f"run_{k}": v for k, v in cost.items()} | {"run_rows_per_s": rows / cost["s"]}
        found |= {"run_rows_per_cpu_s": rows / cost["cpu_s"], "failed": summary["failed"]}
        found["run_mb_at_each_tenth"] = summary["memory"]
        found |= {f"stage_{k}_s": v for k, v in summary["stage_seconds"].items()}
        found |= {f"{k}_per_source": v / rows for k, v in summary.get("traffic", {}).items()}
        found["partitions_out"], cost = alone(export, out, folder / "product")
        found |= {f"export_{k}": v for k, v in cost.items()} | {"export_rows_per_s": rows / cost["s"]}
        check(folder, out, folder / "product")
    return found | environment("cpu")


def main() -> None:
    """Measure, print, append."""
    options = arguments(__doc__, rows=100_000, s3=False, plan_only=False, draws=2, workers=0)
    rows, how = options.rows, (options.s3, options.draws, options.workers)
    found = measure_plan(rows) if options.plan_only else measure(rows, *how)
    keep(found, options.out)


if __name__ == "__main__":
    main()
