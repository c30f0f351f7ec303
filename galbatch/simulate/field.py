"""A mock survey field with known truth: galaxies, neighbours, a star, a chip edge, bad pixels, noise.

Positions are zero-based pixels (x, y) of one grid shared by all bands; fluxes are nJy per pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numcodecs import BitRound
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from galbatch.errors import InputError
from galbatch.simulate.galaxies import KINDS, simulate_galaxies
from galbatch.simulate.telescope import correlated_noise, depth_map, nircam_like_psf, sigma_map

BAD, SATURATED, EDGE, NOTED = 1, 2, 4, 8
"""Mask bits: dead or hot, saturated, outside the chip (all to reject), and one that is harmless."""


@dataclass(frozen=True)
class Band:
    """A band of the mock: which simulated band it shows, its PSF and its depth."""

    name: str
    plane: int  # 0 blue, 1 red
    wavelength_um: float
    sky_sigma_njy: float
    njy_per_electron: float
    noise_lag_one: float


@dataclass(frozen=True)
class FieldSpec:
    """What the field holds. Lengths in pixels unless named otherwise."""

    seed: int = 1_000_000
    n: int = 48
    columns: int = 8
    cell: int = 88
    grid: int = 88  # side of a galaxy's own image
    truth_stamp: int = 128  # the largest stamp that a run makes by itself
    psf_pix: int = 81
    star_pix: int = 181
    psf_positions: int = 3
    pixel_scale_arcsec: float = 0.03
    target_fwhm_pix: float = 2.0
    peak_sn: tuple[float, float] = (5.0, 100.0)
    neighbour_share: float = 0.3
    bands: tuple[Band, ...] = (
        Band("f200w", 0, 1.99, 0.12, 0.002, 0.34),
        Band("f444w", 1, 4.40, 0.15, 0.003, 0.38),
    )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the mosaic."""
        return -(-self.n // self.columns) * self.cell, self.columns * self.cell


@dataclass
class Field:
    """A rendered field. Images are (bands, h, w); truth stamps are (n, bands, truth_stamp, truth_stamp)."""

    spec: FieldSpec
    sci: np.ndarray
    err: np.ndarray
    mask: np.ndarray
    psf: np.ndarray  # (bands, positions, p, p)
    truth: np.ndarray
    signal: np.ndarray  # noise-free, as seen through the PSF
    table: dict[str, np.ndarray] = field(default_factory=dict)


def make_field(spec: FieldSpec) -> Field:
    """Render the field of ``spec``; the same spec gives the same field.

    Truth stamps are each source alone, convolved with a Gaussian of ``target_fwhm_pix``. Raises
    ``InputError`` when a seed of the training range (below 10,000) is asked for.
    """
    if spec.seed < 10_000:
        raise InputError(
            f"field seed {spec.seed} is in the range kept for training (below 10000); add 1000000."
        )
    rng = np.random.default_rng(np.random.SeedSequence([spec.seed, 0xF1E]))
    psf = np.array(
        [
            [
                nircam_like_psf(b.wavelength_um, spec.pixel_scale_arcsec, spec.psf_pix, 3, seed=spec.seed + k)
                for k in range(spec.psf_positions)
            ]
            for b in spec.bands
        ]
    )
    table, sharp = _sources(spec, rng, psf)
    signal = np.zeros((len(spec.bands), *spec.shape))
    for row in range(spec.n):
        corner = int(table["x_corner"][row]), int(table["y_corner"][row])
        _add(signal, _observe(sharp[row], psf[:, table["psf_index"][row]]), corner, spec.psf_pix // 2)
    _add_neighbours(spec, rng, table, signal, psf)
    star = _add_star(spec, rng, signal)
    sci, err = _expose(spec, rng, signal)
    mask = _defects(spec, rng, table, sci, err, star)
    return Field(spec, sci, err, mask, psf, _truth_stamps(spec, table, sharp), signal, table)


def _sources(
    spec: FieldSpec, rng: np.random.Generator, psf: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Catalogue columns and sharp images (n, bands, grid, grid) in nJy, scaled to the wanted peak S/N."""
    images, properties = simulate_galaxies(spec.n, spec.seed, npix=spec.grid, kinds=list(KINDS))
    order = rng.permutation(spec.n)
    axis = np.arange(spec.grid)
    images, properties = images[order], properties[order]
    low, high = spec.peak_sn
    wanted = np.exp(np.log(low) + np.log(high / low) * (rng.permutation(spec.n) + 0.5) / spec.n)
    depth = [depth_map(spec.shape, b.sky_sigma_njy, 1.6, 0.1) for b in spec.bands]
    sharp = np.zeros((spec.n, len(spec.bands), spec.grid, spec.grid))
    kinds = {"x_corner": int, "y_corner": int, "psf_index": int, "x": float, "y": float}
    table: dict[str, np.ndarray] = {name: np.zeros(spec.n, dtype=kind) for name, kind in kinds.items()}
    red = spec.bands[-1]
    for row in range(spec.n):
        cell_y, cell_x = divmod(row, spec.columns)
        jitter = rng.integers(-7, 8, 2)
        table["x_corner"][row] = cell_x * spec.cell + (spec.cell - spec.grid) // 2 + jitter[0]
        table["y_corner"][row] = cell_y * spec.cell + (spec.cell - spec.grid) // 2 + jitter[1]
        total = images[row, 1].sum()
        table["x"][row] = table["x_corner"][row] + (images[row, 1].sum(0) @ axis) / total
        table["y"][row] = table["y_corner"][row] + (images[row, 1].sum(1) @ axis) / total
        position = int(
            np.clip(table["x"][row] / spec.shape[1] * spec.psf_positions, 0, spec.psf_positions - 1)
        )
        table["psf_index"][row] = position
        peak = fftconvolve(images[row, 1], psf[-1, position], mode="same").max()
        sky = depth[-1][int(table["y"][row]), int(table["x"][row])]
        t2, k = wanted[row] ** 2, red.njy_per_electron  # f / sqrt(sky^2 + k f) = S/N, solved for f
        flux = 0.5 * (t2 * k + math.sqrt((t2 * k) ** 2 + 4 * t2 * sky**2)) / peak
        for c, band in enumerate(spec.bands):
            sharp[row, c] = images[row, band.plane] * flux
    table["kind"], table["galaxy_index"] = properties["kind"], order
    table["peak_sn"] = wanted
    for c, band in enumerate(spec.bands):
        table[f"flux_njy_{band.name}"] = sharp[:, c].sum((1, 2))
    return table, sharp


def _observe(sharp: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Each band convolved with its PSF, in full: (bands, grid + p - 1, grid + p - 1)."""
    return np.stack([fftconvolve(s, p, mode="full") for s, p in zip(sharp, psf, strict=True)])


def _add(signal: np.ndarray, image: np.ndarray, corner: tuple[int, int], pad: int) -> None:
    """Add ``image`` to ``signal`` its unpadded part's first pixel at ``corner``, clipped to the field."""
    x0, y0 = corner[0] - pad, corner[1] - pad
    h, w = signal.shape[-2:]
    ya, yb = max(y0, 0), min(y0 + image.shape[-2], h)
    xa, xb = max(x0, 0), min(x0 + image.shape[-1], w)
    if yb > ya and xb > xa:
        signal[..., ya:yb, xa:xb] += np.clip(image[..., ya - y0 : yb - y0, xa - x0 : xb - x0], 0.0, None)


def _add_neighbours(
    spec: FieldSpec,
    rng: np.random.Generator,
    table: dict[str, np.ndarray],
    signal: np.ndarray,
    psf: np.ndarray,
) -> None:
    """Small uncatalogued galaxies 20 to 40 pixels from some of the sources."""
    side = 40
    chosen = np.flatnonzero(rng.random(spec.n) < spec.neighbour_share)
    kinds = ["elliptical", "spiral", "irregular", "disc"]
    images, _ = simulate_galaxies(len(chosen), spec.seed + 1, npix=side, kinds=kinds)
    table["neighbour"] = np.zeros(spec.n, dtype=bool)
    table["neighbour"][chosen] = True
    for image, row in zip(images, chosen, strict=True):
        distance, angle = rng.uniform(20.0, 36.0), rng.uniform(0.0, 2.0 * math.pi)
        corner = (
            round(table["x"][row] + distance * math.cos(angle) - side / 2),
            round(table["y"][row] + distance * math.sin(angle) - side / 2),
        )
        flux = math.exp(rng.uniform(math.log(15.0), math.log(150.0)))
        sharp = np.stack([image[b.plane] * flux for b in spec.bands])
        _add(signal, _observe(sharp, psf[:, table["psf_index"][row]]), corner, spec.psf_pix // 2)


def _add_star(spec: FieldSpec, rng: np.random.Generator, signal: np.ndarray) -> tuple[int, int]:
    """One star bright enough to saturate, at the corner of four cells; returns its pixel."""
    side = spec.star_pix
    x = (spec.columns // 2 - 1) * spec.cell + int(rng.integers(-4, 5))
    y = min(2 * spec.cell, spec.shape[0] // 2) + int(rng.integers(-4, 5))
    for c, (band, flux) in enumerate(zip(spec.bands, (60_000.0, 30_000.0), strict=False)):
        star = nircam_like_psf(band.wavelength_um, spec.pixel_scale_arcsec, side, 3, seed=spec.seed + 1)
        _add(signal[c : c + 1], flux * star[None], (x, y), side // 2)
    return x, y


def _expose(spec: FieldSpec, rng: np.random.Generator, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sci, err = np.zeros_like(signal), np.zeros_like(signal)
    for c, band in enumerate(spec.bands):
        sky = depth_map(spec.shape, band.sky_sigma_njy, 1.6, 0.1)
        err[c] = BitRound(8).encode(sigma_map(sky, signal[c], band.njy_per_electron)).view(err.dtype)
        sci[c] = signal[c] + err[c] * correlated_noise(rng, spec.shape, band.noise_lag_one)
    return sci, err


def _defects(
    spec: FieldSpec,
    rng: np.random.Generator,
    table: dict[str, np.ndarray],
    sci: np.ndarray,
    err: np.ndarray,
    star: tuple[int, int],
) -> np.ndarray:
    """Saturated core, chip edge, dead, hot and harmless pixels; returns the mask (bands, h, w) uint8."""
    mask = np.zeros(sci.shape, dtype=np.uint8)
    h, w = spec.shape
    y, x = np.mgrid[:h, :w]
    near_star = np.hypot(x - star[0], y - star[1]) < 12
    last = min(spec.columns, spec.n) - 1  # the chip's corner cuts the last source of the first row
    outside = (x - table["x"][last] - 9.0) > 0.75 * (y - table["y"][last])
    for c in range(len(spec.bands)):
        mask[c][near_star & (sci[c] > 120.0)] |= SATURATED
        bad = rng.integers(0, h * w, 90)
        mask[c].flat[bad] |= BAD
        sci[c].flat[bad[:60]] = rng.choice([-40.0, 60.0, 250.0], 60)
        sci[c].flat[bad[60:]] = np.nan
        column, row = int(table["x"][min(3, last)]) + 6, int(table["y"][min(3, last)]) - 20
        mask[c, row : row + 44, column] |= BAD
        sci[c, row : row + 44, column] = 0.0
        mask[c].flat[rng.integers(0, h * w, 200)] |= NOTED
        mask[c][outside] |= EDGE
        sci[c][(mask[c] & (SATURATED | EDGE)) > 0] = np.nan
        err[c][(mask[c] & EDGE) > 0] = np.nan
    return mask


def _truth_stamps(spec: FieldSpec, table: dict[str, np.ndarray], sharp: np.ndarray) -> np.ndarray:
    """Each source alone at the target PSF, cut around its nearest pixel; fills ``truth_x0``, ``truth_y0``."""
    size = spec.truth_stamp
    sigma = spec.target_fwhm_pix / (2.0 * math.sqrt(2.0 * math.log(2.0)))
    out = np.zeros((spec.n, len(spec.bands), size, size))
    table["truth_x0"] = np.rint(table["x"]).astype(int) - size // 2
    table["truth_y0"] = np.rint(table["y"]).astype(int) - size // 2
    pad = size
    for row in range(spec.n):
        x0 = table["truth_x0"][row] - table["x_corner"][row] + pad
        y0 = table["truth_y0"][row] - table["y_corner"][row] + pad
        for c in range(len(spec.bands)):
            blurred = gaussian_filter(np.pad(sharp[row, c], pad), sigma, mode="constant", truncate=6.0)
            out[row, c] = blurred[y0 : y0 + size, x0 : x0 + size]
    return out
