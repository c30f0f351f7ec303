"""Stamps a second: this package against astropy's Cutout2D on one warm mosaic, in one run, on one core.

    python benchmarks/throughput/cutouts.py [--side 10000] [--sources 20000] [--out benchmarks/results.jsonl]

First every stamp of a sample is compared with Cutout2D's, pixel by pixel; only then is anything timed.
Times are CPU times of this process (the page cache is warm: the mosaic was just written and read), the best
of ``--repeats``. One line of JSON is printed, and appended to ``--out``.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.nddata.utils import NoOverlapError
from astropy.wcs import WCS

from galbatch.bench.timing import arguments, environment, keep
from galbatch.cutouts import open_survey

SIZE, BATCH = 64, 64


def write_survey(folder: Path, side: int) -> Path:
    """A mosaic of ``side`` x ``side`` pixels with an error map, a PSF, and its survey file."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [side / 2, side / 2], [150.0, 2.0]
    wcs.wcs.cdelt = [-0.03 / 3600, 0.03 / 3600]
    rng = np.random.default_rng(0)
    header = wcs.to_header()
    header["BUNIT"] = "nJy"
    fits.PrimaryHDU(rng.standard_normal((side, side), dtype=np.float32), header).writeto(folder / "sci.fits")
    fits.PrimaryHDU(np.ones((side, side), np.float32), header).writeto(folder / "err.fits")
    psf = np.zeros((9, 9), np.float32)
    psf[4, 4] = 1
    fits.PrimaryHDU(psf, fits.Header({"PIXSCALE": 0.03})).writeto(folder / "psf.fits")
    (folder / "s.toml").write_text('[bands.b]\nsci = "sci.fits"\nerr = "err.fits"\npsf = "psf.fits"\n')
    return folder / "s.toml"


def catalogue(tile, n: int) -> dict[str, np.ndarray]:
    """Sources all over the mosaic and its edges, in the order of a plan: by row."""
    rng = np.random.default_rng(1)
    ny, nx = tile.shape
    x, y = rng.uniform(-20, nx + 20, n), np.sort(rng.uniform(-20, ny + 20, n))
    ra, dec = tile.grid.to_sky(x, y)
    return {"source_id": np.arange(n), "ra": ra, "dec": dec}


def ours(tile, rows) -> np.ndarray:
    """All science stamps, batch by batch; returns the last batch."""
    x, y = tile.grid.to_pixel(rows["ra"], rows["dec"])
    x0, y0 = np.floor(x + 0.5).astype(int) - SIZE // 2, np.floor(y + 0.5).astype(int) - SIZE // 2
    for first in range(0, len(x0), BATCH):
        stamps, _ = tile.images["sci"].boxes(y0[first : first + BATCH], x0[first : first + BATCH], SIZE, SIZE)
    return stamps


def planes(tile, rows) -> None:
    """All planes with masks and variance, batch by batch."""
    x, y = tile.grid.to_pixel(rows["ra"], rows["dec"])
    x0, y0 = np.floor(x + 0.5).astype(int) - SIZE // 2, np.floor(y + 0.5).astype(int) - SIZE // 2
    for first in range(0, len(x0), BATCH):
        tile.read(y0[first : first + BATCH], x0[first : first + BATCH], SIZE, SIZE)


def peer(data, wcs, rows) -> np.ndarray:
    """astropy's Cutout2D by sky position, each copied."""
    for ra, dec in zip(rows["ra"], rows["dec"], strict=True):
        stamp = Cutout2D(data, SkyCoord(ra, dec, unit="deg"), SIZE, wcs, mode="partial", copy=True).data
    return stamp


def check(tile, data, wcs, rows) -> int:
    """Compare with Cutout2D; returns the number of stamps compared. Raises AssertionError on the first
    difference."""
    x, y = tile.grid.to_pixel(rows["ra"], rows["dec"])
    x0, y0 = np.floor(x + 0.5).astype(int) - SIZE // 2, np.floor(y + 0.5).astype(int) - SIZE // 2
    got, ok = tile.images["sci"].boxes(y0, x0, SIZE, SIZE)
    assert ok.all()
    for i in range(len(x)):
        try:
            position = (x0[i] + SIZE // 2, y0[i] + SIZE // 2)
            want = Cutout2D(data, position, SIZE, mode="partial", fill_value=np.nan, copy=True).data
        except NoOverlapError:
            want = np.full((SIZE, SIZE), np.nan, np.float32)
        np.testing.assert_array_equal(got[i], want)
    return len(x)


def best(function, repeats: int) -> float:
    """CPU seconds of the fastest of ``repeats`` calls after one warm-up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    args = arguments(__doc__, side=10_000, sources=20_000, peer_sources=300, repeats=3)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        survey = open_survey(write_survey(Path(folder), args.side))
        tile = survey.tile("b", "0")
        rows = catalogue(tile, args.sources)
        some = {k: v[:: max(1, args.sources // args.peer_sources)] for k, v in rows.items()}
        sparse = catalogue(tile, max(args.sources // 10, 1))
        random = {k: v[np.random.default_rng(2).permutation(args.sources)] for k, v in rows.items()}
        data = fits.getdata(Path(folder) / "sci.fits", memmap=True)
        wcs = WCS(fits.getheader(Path(folder) / "sci.fits"))
        compared = check(tile, data, wcs, some)
        x, y = tile.grid.to_pixel(some["ra"], some["dec"])
        ny, nx = tile.shape
        on = (x > 0) & (x < nx - 1) & (y > 0) & (y < ny - 1)
        few = {k: v[on] for k, v in some.items()}
        rates = {
            "sorted_per_s": args.sources / best(lambda: ours(tile, rows), args.repeats),
            "sparse_per_s": len(sparse["ra"]) / best(lambda: ours(tile, sparse), args.repeats),
            "unsorted_per_s": args.sources / best(lambda: ours(tile, random), args.repeats),
            "all_planes_per_s": args.sources / best(lambda: planes(tile, rows), args.repeats),
            "whole_batches_per_s": BATCH
            / best(
                lambda: survey.cut(
                    {k: v[args.sources // 2 : args.sources // 2 + BATCH] for k, v in rows.items()}, SIZE
                ),
                args.repeats,
            ),
            "cutout2d_skycoord_per_s": len(few["ra"]) / best(lambda: peer(data, wcs, few), args.repeats),
        }
    result = {
        "benchmark": "cutouts",
        "numpy": np.__version__,
        "mosaic_pix": args.side,
        "stamp_pix": SIZE,
        "sources": args.sources,
        "compared": compared,
        **{k: round(v, 1) for k, v in rates.items()},
        "ratio_to_cutout2d": round(rates["sorted_per_s"] / rates["cutout2d_skycoord_per_s"], 1),
        "sparse_ratio_to_cutout2d": round(rates["sparse_per_s"] / rates["cutout2d_skycoord_per_s"], 1),
    }
    keep(result | environment("cpu"), args.out)


if __name__ == "__main__":
    main()
