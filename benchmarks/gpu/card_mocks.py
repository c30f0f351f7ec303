"""Observations to measure rates with: their truth does not matter."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from galbatch.bench.kernels import ACF
from galbatch.types import Observation

SOURCES = 2000  # of the field of a run


def mocks(n: int, noise: str, size: int = 64):
    """Discs with a knot at a peak S/N of 30 (of 5 to 100 for 'mixed') under white or correlated noise."""
    rng = np.random.default_rng(n)
    y, x = np.mgrid[:size, :size] - size / 2
    angle, radius, ratio = rng.uniform(0, np.pi, n), rng.uniform(2, 8, n), rng.uniform(0.4, 1, n)
    angle, radius, ratio = (a[:, None, None] for a in (angle, radius, ratio))
    u, v = np.cos(angle) * x + np.sin(angle) * y, (np.cos(angle) * y - np.sin(angle) * x) / ratio
    image = np.exp(-np.hypot(u, v) / radius) + 0.5 * np.exp(-((u - 3) ** 2 + (v + 2) ** 2) / 6)
    image /= image.max((1, 2), keepdims=True)
    grid, width = np.arange(41) - 20, rng.uniform(1, 2, n)[:, None, None]
    psf = np.exp(-0.5 * (grid[:, None] ** 2 + grid**2) / width**2)
    psf /= psf.sum((1, 2), keepdims=True)
    snr = np.exp(rng.uniform(np.log(5), np.log(100), n)) if noise == "mixed" else np.full(n, 30.0)
    sigma = np.exp(0.2 * y / size) / snr[:, None, None]
    normals, acf = rng.standard_normal(image.shape), None
    if noise == "correlated":
        around = np.roll(np.pad(ACF, (0, size - len(ACF))), (-2, -2), (0, 1))
        power = np.fft.rfft2(around).real.clip(0)
        normals, acf = np.fft.irfft2(np.fft.rfft2(normals) * np.sqrt(power), s=(size, size)), ACF[None]
    mask = rng.random(image.shape) < 0.01
    return Observation(*(a[:, None] for a in (image + sigma * normals, sigma, psf, mask)), noise_acf=acf)


def simulate_field(folder: Path) -> subprocess.Popen:
    """Begins to write a field in two bands to a folder, a minute of one core."""
    line = ["simulate", "field", "--n", str(SOURCES), "--out", str(folder), "--overwrite"]
    if (folder / "demo.parquet").exists():
        line = ["--version"]
    return subprocess.Popen([sys.executable, "-m", "galbatch", *line], stdout=subprocess.DEVNULL)
