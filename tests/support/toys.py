"""A prior that is cheap and exact, priors that misbehave, and a survey of a few round blobs: for tests of the
run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from astropy.io import fits

SIDE, STAMP = 160, 24


class GaussianPrior:
    """The exact denoiser of a stationary Gaussian field with a red spectrum, in the unit of the data."""

    channels, target_fwhm_pix, sigma_min, sha256 = 1, 2.0, 0.01, "toy-1"
    largest_power = 400.0

    def __init__(self, slow_s: float = 0.0):
        self.slow_s = slow_s

    def denoise(self, x, sigma):
        if self.slow_s:
            time.sleep(self.slow_s)
        k = torch.fft.fftfreq(x.shape[-2])[:, None] ** 2 + torch.fft.rfftfreq(x.shape[-1])[None] ** 2
        power = self.largest_power / (1.0 + (k / 0.01) ** 1.5)
        return torch.fft.irfft2(
            torch.fft.rfft2(x) * (power / (power + sigma[:, None, None, None] ** 2)), s=x.shape[-2:]
        )


class RedPrior(GaussianPrior):
    """The same with a quarter of the power."""

    sha256, largest_power = "toy", 100.0


class JointRedPrior(RedPrior):
    """The same for several bands, of which any two correlate by 0.8."""

    joint, sha256 = 8, "toy-joint"

    def cross_correlation(self, log_wavelengths, k):
        n = len(log_wavelengths)
        return (0.2 * np.eye(n) + 0.8) * np.ones((*np.shape(k), 1, 1))

    def denoise(self, x, sigma, bands=None):
        if bands is None:
            return super().denoise(x, sigma)
        mean = x.mean(1, keepdim=True)  # the mean of n bands has 0.2 + 0.8 n of the power, the rest 0.2
        parts = ((mean, 0.2 + 0.8 * x.shape[1]), (x - mean, 0.2))
        return sum(super(JointRedPrior, self).denoise(part, sigma / share**0.5) for part, share in parts)


class DeadlyPrior(GaussianPrior):
    """Kills its process when it sees a source as bright as ``limit``."""

    sha256 = "toy-deadly"

    def denoise(self, x, sigma):
        if float(x.abs().max()) > 1e4 and float(sigma.max()) < 1.0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().denoise(x, sigma)


def write_survey(folder: Path, n: int = 10, bright: int | None = None, off: int | None = None) -> Path:
    """``cat.parquet`` and ``cat.toml`` with one mosaic of Gaussian blobs; returns the catalogue's path.

    Source number ``bright`` is far too bright, number ``off`` lies outside the image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    yy, xx = np.mgrid[:SIDE, :SIDE]
    x, y = rng.uniform(25, SIDE - 25, (2, n))
    image = rng.normal(0, 1.0, (SIDE, SIDE))
    for i in range(n):
        flux = 3e7 if i == bright else 500 + 300 * i
        width = rng.uniform(1.5, 3)
        image += (
            flux / (2 * np.pi * width**2) * np.exp(-((xx - x[i]) ** 2 + (yy - y[i]) ** 2) / (2 * width**2))
        )
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0}
    cards |= {"CRPIX1": SIDE / 2, "CRPIX2": SIDE / 2, "CD1_1": -0.03 / 3600, "CD1_2": 0.0}
    header = fits.Header(cards | {"CD2_1": 0.0, "CD2_2": 0.03 / 3600, "BUNIT": "nJy"})
    fits.writeto(folder / "sci.fits", image.astype("f4"), header, overwrite=True)
    fits.writeto(folder / "err.fits", np.ones((SIDE, SIDE), "f4"), header, overwrite=True)
    py, px = np.mgrid[-7:8, -7:8]
    psf = np.exp(-(px**2 + py**2) / (2 * 1.3**2))
    fits.writeto(folder / "psf.fits", (psf / psf.sum()).astype("f4"), overwrite=True)
    ra = 150 - (x + 1 - SIDE / 2) * 0.03 / 3600 / np.cos(np.radians(2.0))
    dec = 2 + (y + 1 - SIDE / 2) * 0.03 / 3600
    if off is not None:
        dec[off] = 3.0
    pq.write_table(
        pa.table({"source_id": np.arange(n) + 100, "ra": ra, "dec": dec, "redshift": np.linspace(0, 1, n)}),
        folder / "cat.parquet",
    )
    (folder / "cat.toml").write_text(f"""name = "toy"
neighbours = "keep"
stamp_pix = {STAMP}
[bands.f200w]
sci = "sci.fits"
err = "err.fits"
psf = "psf.fits"
pixel_scale_arcsec = 0.03
psf_scale_arcsec = 0.03
unit = "nJy"
err_scale = 1.0
noise_acf = "none"
error_floor = 0.0
psf_error = "none"
""")
    return folder / "cat.parquet"


def write_sizes(folder: Path) -> Path:
    """The survey of six sources, one off the image, two with larger stamps; its catalogue."""
    catalog = write_survey(folder, n=6, off=2)
    sides = [np.nan, 2.88, np.nan, np.nan, 2.88, np.nan]
    pq.write_table(pq.read_table(catalog).append_column("stamp_arcsec", pa.array(sides)), catalog)
    return catalog


def start_s() -> float:
    """Seconds that a new process needs, on this machine and now, to import what a worker does."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import galbatch.run.worker, torch, numba"], check=True)
    return time.monotonic() - began


def product(run: Path) -> dict[str, bytes]:
    """Every byte that must be the same however a run was carried out: store, parts, tables, plan."""
    names = [
        *run.glob("posterior.zarr/**/*"),
        *run.glob("parts/*.arrow"),
        run / "catalog.parquet",
        run / "statistics.parquet",
        run / "plan.parquet",
    ]
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(names) if p.is_file()}
