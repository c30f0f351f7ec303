"""Noise measured on the blank parts of a mosaic: by how much its noise map is off, and how its pixels are
correlated.

Blank pixels are what is left when bad pixels and everything above 3 sigma on a smoothed image (grown by
``GROW_PIX``) are taken out and a slowly varying background is subtracted. ``err_scale`` is the robust
scatter (1.4826 MAD) of data / sigma there. It is measured again around each source, on the nearest pixels
that are enough, and used there where it differs beyond chance, or where the scatter is known to differ from
place to place by more than ``LOCAL_SPREAD`` (a constant noise map over a mosaic of varying depth).
``noise_acf`` is the autocorrelation of data / sigma by lag, from pairs of blank pixels (sums over pairs by
FFT), symmetrised, its power spectrum clamped to be positive, centre 1. Noise is correlated over a pixel or
two, or over twice the size of a detector's pixel (``WIDE_LAGS``: up to four); what is correlated at the
outermost lags as well is light that varies slowly (wings of a galaxy), and is taken out of both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import sep
from numpy.typing import ArrayLike
from scipy import fft, ndimage

from galbatch.cutouts.fits.header import read_image, scan_images
from galbatch.cutouts.fits.source import open_bytes
from galbatch.cutouts.noise.variance import photon_noise
from galbatch.errors import InputError

if TYPE_CHECKING:
    from galbatch.cutouts.survey.tile import Tile

MEASURED = ("measure", "auto")  # settings that take a value from the sky
LAGS = 7
WIDE_LAGS, REACHES, ENDS = 15, 0.05, 1 / 3  # used where the border of LAGS has REACHES, theirs ENDS of it
BOX_PIX, MAX_BOXES = 512, 16
SMOOTH_PIX, DETECT_SIGMA, GROW_PIX, BACKGROUND_PIX = 2.0, 3.0, 6, 48
LOCAL_BACKGROUND_PIX = 24  # the wings of a bright galaxy change faster than the sky of a mosaic
MIN_BLANK = 2000
LEAST_ACF, SIGNIFICANT = 0.02, 4.0  # a correlation below both (the second in its errors) is none
MOST_LIGHT = 0.9  # of the variance: beyond it nothing is left to measure noise on
MIN_PHOTON = 9
LOCAL_BOX_PIX, LOCAL_SPREAD, LOCAL_PRIOR = 128, 0.06, 500
MAD_ERROR = 1.17  # of a scatter by the MAD, times the root of the number of independent pixels
_FLOOR = 1e-3


def measure_tile(tile: Tile) -> dict:
    """{"err_scale", "photon" (variance per light of bright pixels, nJy), "noise_acf" (r, r) list, "n_blank",
    "blank_frac", "local_spread", "local"} of an open tile.

    Raises ``InputError`` when fewer than ``MIN_BLANK`` pixels are blank.
    """
    ny, nx = tile.shape
    h, w = min(ny, BOX_PIX), min(nx, BOX_PIX)
    clean, photon, count, total = [], [], 0, 0
    for y0, x0 in sampled_boxes(ny, nx, h, w):
        raw = tile.read([y0], [x0], h, w, raw_var=True)
        if not raw.ok[0]:
            raise InputError(f"{tile.subject}: noise cannot be measured: {raw.error}.")
        bad = (raw.bad | ~np.isfinite(raw.var))[0]
        with np.errstate(all="ignore"):
            z = np.where(bad, 0.0, raw.data[0] / np.sqrt(raw.var[0]))
        if (~bad).sum() < 100:
            continue
        z, blank = blank_pixels(z, bad)
        clean.append((z, blank))
        if blank.any():
            photon.append(photon_noise(raw.var[0], raw.data[0], ~bad, float(np.median(raw.var[0][blank]))))
        count, total = count + int(blank.sum()), total + int((~bad).sum())
    if count < MIN_BLANK:
        raise InputError(
            f"{tile.subject}: only {count} blank pixels in {tile.images['sci'].path}: noise cannot be "
            f'measured on fewer than {MIN_BLANK}. Give err_scale as a number and noise_acf = "none" or a '
            "file."
        )
    photons = np.concatenate(photon) if photon else np.zeros(0)
    scale, acf = scatter_of(clean)
    acf, spread = positive_definite(acf), _spread(clean)
    return {
        "err_scale": scale,
        "photon": float(np.median(photons)) if len(photons) >= MIN_PHOTON else 0.0,
        "noise_acf": np.round(acf, 6).tolist(),
        "n_blank": count,
        "blank_frac": round(count / max(total, 1), 4),
        "local_spread": round(spread, 4),
        "local": bool(spread > LOCAL_SPREAD),
    }


def unmeasured(why: str) -> dict:
    """What stands in ``measure_tile``'s place where it cannot measure: the noise map as it is, white."""
    return {"err_scale": 1.0, "photon": 0.0, "noise_acf": [[1.0]], "n_blank": 0, "local": False, "why": why}


def robust_scatter(values: np.ndarray) -> float:
    """1.4826 times the median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def scatter_of(clean: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, np.ndarray]:
    """Robust scatter of boxes (values, which are blank), and the autocorrelation (r, r), of noise alone."""
    scatter = robust_scatter(np.concatenate([z[blank] for z, blank in clean]))
    wide = autocorrelation([(z / scatter, blank) for z, blank in clean], WIDE_LAGS)
    cut = (WIDE_LAGS - LAGS) // 2
    narrow = wide[cut:-cut, cut:-cut]
    acf = wide if REACHES < border(narrow) > border(wide) / ENDS else narrow
    acf, light = without_slow_light(acf)
    return scatter * math.sqrt(1 - light), acf


def _spread(clean: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Relative spread (robust) of the scatter in blocks of ``LOCAL_BOX_PIX``; 0 with fewer than four of
    them."""
    scatters = []
    for z, blank in clean:
        for i in range(0, z.shape[0] - LOCAL_BOX_PIX // 2, LOCAL_BOX_PIX):
            for j in range(0, z.shape[1] - LOCAL_BOX_PIX // 2, LOCAL_BOX_PIX):
                part = np.s_[i : i + LOCAL_BOX_PIX, j : j + LOCAL_BOX_PIX]
                if blank[part].sum() > 2 * MIN_BLANK:
                    scatters.append(robust_scatter(z[part][blank[part]]))
    return float(np.std(scatters) / np.mean(scatters)) if len(scatters) > 3 else 0.0


def local_scale(tile: Tile, x: np.ndarray, y: np.ndarray, size: int, measured: dict) -> np.ndarray:
    """(n,) factor on sigma around pixels (x, y): that of the tile (``measure_tile``), or that of the blank
    pixels of a box as wide as a stamp of ``size`` (at least ``LOCAL_BOX_PIX``; twice as wide where fewer than
    ``MIN_BLANK`` are blank) where the noise of the tile varies, or where the two differ by ``SIGNIFICANT``
    errors. Few blank pixels pull it to the tile's. It depends on the source's surroundings alone."""
    side, given = max(LOCAL_BOX_PIX, size), float(measured["err_scale"])
    scale, count = _box_scatter(tile, x, y, side)
    few = count < MIN_BLANK
    if few.any():
        scale[few], count[few] = _box_scatter(tile, x[few], y[few], 2 * side)
    scale = np.sqrt((count * scale**2 + LOCAL_PRIOR * given**2) / (count + LOCAL_PRIOR))
    if measured["local"]:
        return scale
    inflation = np.square(measured["noise_acf"]).sum()
    error = MAD_ERROR * np.sqrt(inflation / np.maximum(count, 1))
    return np.where(np.abs(np.log(scale / given)) > SIGNIFICANT * error, scale, given)


def _box_scatter(tile: Tile, x: np.ndarray, y: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) scatter (``scatter_of``) of data / sigma over the blank pixels of boxes around (x, y), and how
    many are blank: both 0 where there is nothing to measure."""
    ny, nx = tile.shape
    h, w = min(side, ny), min(side, nx)
    y0 = np.clip(np.floor(y + 0.5).astype(int) - h // 2, 0, ny - h)
    x0 = np.clip(np.floor(x + 0.5).astype(int) - w // 2, 0, nx - w)
    raw = tile.read(y0, x0, h, w, raw_var=True)
    scale, count = np.zeros(len(y0)), np.zeros(len(y0))
    bad = raw.bad | ~np.isfinite(raw.var)
    for i in np.nonzero(raw.ok & ((~bad).sum(axis=(1, 2)) > 100))[0]:
        with np.errstate(all="ignore"):
            z = np.where(bad[i], 0.0, raw.data[i] / np.sqrt(raw.var[i]))
            z, blank = blank_pixels(z, bad[i], LOCAL_BACKGROUND_PIX)
            found, _ = scatter_of([(z, blank)])
        if np.isfinite(found) and found > 0:
            scale[i], count[i] = found, blank.sum()
    return scale, count


def sampled_boxes(ny: int, nx: int, h: int, w: int) -> list[tuple[int, int]]:
    """Up to ``MAX_BOXES`` boxes spread evenly over a mosaic."""
    rows, cols = -(-ny // h), -(-nx // w)
    all_boxes = [(min(i * h, ny - h), min(j * w, nx - w)) for i in range(rows) for j in range(cols)]
    keep = np.unique(np.linspace(0, len(all_boxes) - 1, min(MAX_BOXES, len(all_boxes))).astype(int))
    return [all_boxes[k] for k in keep]


def blank_pixels(z: np.ndarray, bad: np.ndarray, mesh: int = BACKGROUND_PIX) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) data over sigma, a background that varies over ``mesh`` pixels subtracted, and which pixels hold
    only noise."""
    blank, weight = ~bad, ndimage.gaussian_filter((~bad).astype(float), SMOOTH_PIX)
    for _ in range(3):
        level = _background(z, ~blank, mesh)
        flat = np.where(bad, 0.0, z - level)
        with np.errstate(all="ignore"):
            smooth = np.where(bad, 0.0, ndimage.gaussian_filter(flat, SMOOTH_PIX) / weight)
        spread = 1.4826 * np.median(np.abs(smooth[blank] - np.median(smooth[blank])))
        sources = (
            ndimage.binary_dilation(np.abs(smooth) > DETECT_SIGMA * spread, iterations=GROW_PIX)
            if spread > 0
            else bad
        )
        found = ~bad & ~sources
        if found.sum() < 100:
            break
        blank = found
    return z - _background(z, ~blank, mesh), blank


def _background(z: np.ndarray, mask: np.ndarray, mesh: int) -> np.ndarray:
    """A smooth background; a plain median where the image is too small or too covered for one."""
    if min(z.shape) < 2 * mesh or mask.mean() > 0.9:
        return np.full(z.shape, np.median(z[~mask]) if (~mask).any() else 0.0)
    fit = sep.Background(
        np.ascontiguousarray(z, np.float64),
        mask=np.ascontiguousarray(mask),
        bw=mesh,
        bh=mesh,
    )
    return fit.back()


def autocorrelation(boxes: list[tuple[np.ndarray, np.ndarray]], size: int = LAGS) -> np.ndarray:
    """(size, size) autocorrelation by lag of boxes (values, which count); pairs with one pixel left out do
    not count."""
    reach = size // 2
    products, pairs = np.zeros((size, size)), np.zeros((size, size))
    for z, good in boxes:
        values = np.where(good, np.clip(z, -5, 5), 0.0)
        values[good] -= values[good].mean()
        shape = [fft.next_fast_len(s + reach, real=True) for s in z.shape]
        for out, image in ((products, values), (pairs, good.astype(float))):
            power = np.abs(fft.rfft2(image, shape)) ** 2
            full = fft.irfft2(power, shape)
            out += np.roll(full, (reach, reach), (0, 1))[:size, :size]
    with np.errstate(all="ignore"):
        acf = np.where(pairs > 100, products / pairs, 0.0)
    acf /= acf[reach, reach]
    return 0.5 * (acf + acf[::-1, ::-1])


def border(acf: np.ndarray) -> float:
    """Mean of the outermost lags."""
    outer = np.ones(acf.shape, bool)
    outer[1:-1, 1:-1] = False
    return float(acf[outer].mean())


def without_slow_light(acf: np.ndarray) -> tuple[np.ndarray, float]:
    """The autocorrelation (r, r) of the noise alone, and the share of the variance that is light which varies
    slowly: the mean of the outermost lags, where noise has none; 0 where that is below ``LEAST_ACF``."""
    light = border(acf)
    if acf.shape[0] < LAGS or not LEAST_ACF < light < MOST_LIGHT:
        return acf, 0.0
    return (acf - light) / (1 - light), light


def positive_definite(acf: np.ndarray) -> np.ndarray:
    """The autocorrelation nearest to ``acf`` (found by clamping its spectrum and cutting it back to its
    lags, in turns) whose spectrum is at least ``_FLOOR`` of white noise at every frequency."""
    size, grid = acf.shape[0], 8 * acf.shape[0]
    reach, out = size // 2, acf.copy()
    for _ in range(100):
        spectrum = _spectrum(out, grid)
        if spectrum.min() >= _FLOOR:
            break
        back = fft.irfft2(np.maximum(spectrum, 2 * _FLOOR), (grid, grid))
        out = np.roll(back, (reach, reach), (0, 1))[:size, :size]
        out = out / out[reach, reach]
    lowest = _spectrum(out, grid).min()
    if lowest < _FLOOR:
        white = np.zeros_like(out)
        white[reach, reach] = 1.0
        share = (_FLOOR - lowest) / (1 - lowest)
        out = (1 - share) * out + share * white
    return out


def _spectrum(acf: np.ndarray, grid: int) -> np.ndarray:
    reach = acf.shape[0] // 2
    full = np.zeros((grid, grid))
    full[: acf.shape[0], : acf.shape[1]] = acf
    return fft.rfft2(np.roll(full, (-reach, -reach), (0, 1))).real


def lag_one(acf: ArrayLike) -> float:
    """Mean correlation with the next pixel, from ``acf`` (r, r); NaN of one without lags."""
    acf = np.asarray(acf, float)
    middle = len(acf) // 2
    return float(acf[middle, middle + 1] + acf[middle + 1, middle]) / 2 if middle else np.nan


def is_white(acf: np.ndarray, n_blank: float) -> bool:
    """Whether no lag of ``acf`` (r, r) stands out of what ``n_blank`` pixels of white noise give."""
    off = np.abs(acf).ravel()
    off = np.delete(off, off.size // 2)
    return bool(off.max(initial=0.0) < max(LEAST_ACF, SIGNIFICANT / np.sqrt(n_blank)))


def acf_from_file(path: str) -> np.ndarray:
    """A (r, r) image of the autocorrelation, r odd, centre 1."""
    source = open_bytes(path)
    images = scan_images(source)
    acf = read_image(source, images[0], np.float64) if images else np.zeros((0, 0))
    if (
        acf.ndim != 2
        or acf.shape[0] != acf.shape[1]
        or acf.shape[0] % 2 == 0
        or not np.all(np.isfinite(acf))
        or abs(acf[acf.shape[0] // 2, acf.shape[0] // 2] - 1) > 1e-3
    ):
        raise InputError(
            f"noise_acf file {path}: it must be a square image of odd size with 1 in its centre, "
            f"not {acf.shape}."
        )
    return positive_definite(0.5 * (acf + acf[::-1, ::-1]))
