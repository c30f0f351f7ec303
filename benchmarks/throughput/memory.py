"""Peak memory of a run against the length of its catalogue: it must not grow with it.

    python benchmarks/throughput/memory.py [--sources 48 480 4800] [--out RESULTS.jsonl]

Each run is a process of its own, serial, with an exact denoiser of a Gaussian field in place of the
network, so that thousands of sources take minutes; all else is what a worker does: stamps, draws, statistics,
store, and the merge at the end. ``first_mb``: largest resident memory when the first batch is committed;
``batches_mb``: when the last is; ``peak_mb``: at the end, merge included. The exit code is 1 where
``batches_mb`` of the longest run exceeds its ``first_mb`` by more than ``--allowed`` MB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from galbatch.bench.timing import environment, keep

SIDE = 256


class GaussianPrior:
    """Denoiser of a stationary Gaussian field with a red spectrum, in the unit of the data."""

    channels, target_fwhm_pix, sigma_min, sha256 = 1, 2.0, 0.01, "gaussian"

    def denoise(self, x, sigma):
        import torch

        k = torch.fft.fftfreq(x.shape[-2])[:, None] ** 2 + torch.fft.rfftfreq(x.shape[-1])[None] ** 2
        power = 400.0 / (1.0 + (k / 0.01) ** 1.5)
        shrink = power / (power + sigma[:, None, None, None] ** 2)
        return torch.fft.irfft2(torch.fft.rfft2(x) * shrink, s=x.shape[-2:])


def write_field(folder: Path, n: int) -> Path:
    """A small mosaic of 40 round sources, and a catalogue that goes over them ``n`` times; the catalogue."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from astropy.io import fits
    from astropy.wcs import WCS

    rng = np.random.default_rng(5)
    x, y = rng.uniform(30, SIDE - 30, (2, 40))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    image = rng.normal(0, 1, (SIDE, SIDE))
    for i in range(len(x)):
        image += (20 + 2 * i) * np.exp(-((columns - x[i]) ** 2 + (rows - y[i]) ** 2) / 12)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [SIDE / 2] * 2, [150.0, 2.0]
    wcs.wcs.cdelt = [-0.03 / 3600, 0.03 / 3600]
    header = wcs.to_header()
    header["BUNIT"] = "nJy"
    spread = (np.arange(9) - 4) ** 2 / 4
    for name, data in (("sci", image), ("err", np.ones_like(image))):
        fits.writeto(folder / f"{name}.fits", data.astype("f4"), header)
    psf = np.exp(-(spread[:, None] + spread[None]))
    fits.writeto(folder / "psf.fits", (psf / psf.sum()).astype("f4"), fits.Header({"PIXSCALE": 0.03}))
    (folder / "c.toml").write_text('[bands.b]\nsci = "sci.fits"\nerr = "err.fits"\npsf = "psf.fits"\n')
    ra, dec = wcs.all_pix2world(x, y, 0)
    one = np.arange(n) % len(x)
    pq.write_table(
        pa.table({"source_id": np.arange(n), "ra": ra[one], "dec": dec[one]}), folder / "c.parquet"
    )
    return folder / "c.parquet"


def resident_mb() -> float:
    """Peak resident memory of this process so far."""
    line = next(v for v in Path("/proc/self/status").read_text().splitlines() if v.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def one_run(n: int, batch: int) -> dict:
    """A serial run of ``n`` sources in this process."""
    from galbatch.run import process

    seen = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = process(
            write_field(Path(folder), n),
            out=Path(folder) / "c.run",
            prior=GaussianPrior(),
            cluster="none",
            draws=2,
            mode="fast",
            batch=batch,
            stamp_pix=24,
            report=False,
            on_progress=lambda progress: seen.append((progress.done, resident_mb())),
        )
        rows = len(run.catalog)
        cpu = time.process_time() - start
    if rows != n:
        raise SystemExit(f"the catalogue has {rows} rows, not {n}")
    first = next(mb for done, mb in seen if done)
    return {
        "sources": n,
        "first_mb": first,
        "batches_mb": seen[-1][1],
        "peak_mb": resident_mb(),
        "cpu_s": cpu,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sources", type=int, nargs="+", default=[48, 480, 4800])
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--allowed", type=float, default=30.0)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_run(options.sources[0], options.batch)))
        return 0
    rows = []
    for n in options.sources:
        command = [sys.executable, __file__, "--one", "--sources", str(n), "--batch", str(options.batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        keep({"benchmark": "memory", **rows[-1], **environment("cpu")}, options.out)
    growth = rows[-1]["batches_mb"] - rows[-1]["first_mb"]
    print(f"{rows[-1]['sources']} sources, after the first batch: {growth:+.0f} MB")
    return int(growth > options.allowed)


if __name__ == "__main__":
    sys.exit(main())
