"""The variance of each pixel from the noise planes of a layout, in the square of the unit of the science
image.

err: sigma^2; var: as it is; wht: 1/wht; exp: 1/exp (a relative weight: its scale must be measured). With
``poisson = "exposure"`` (DJA, grizli) the photon noise of the source is added: ``var = 1/wht + max(sci, 0)
/ gain``, ``gain = exp / PHOTMJSR / PHOTSCAL * (PHOTFNU / OPHOTFNU)``, the exposure map being subsampled by
its SAMPLE card. Pixels without a finite positive variance, weight and gain get an infinite variance.

The error floor is what no error map holds, independent from pixel to pixel: in proportion to the light (flat
fields, say), or what resampling of undersampled exposures leaves, in proportion to how much the light changes
between neighbouring pixels. The second is measured. No light of a source can vary faster than its PSF lets
pass. Where the transfer function is below ``PASSES``, the data hold errors alone: their scatter in a source,
over that of the noise map (calibrated on the stamp's own faint pixels), says how large they are. What is
wrong at the frequencies of the source itself (a PSF too broad, say) cannot be seen so, and shows in chi2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, ndimage

from galbatch.cutouts.fits.units import in_electrons
from galbatch.types import informed

if TYPE_CHECKING:
    from galbatch.cutouts.fits.header import Header
    from galbatch.cutouts.fits.images import OpenImage


MIN_FAINT, N_BRIGHTEST, BRIGHT_SIGMA, SLACK, MIN_EXCESS = 25, 9, 5.0, 1.5, 0.5


@dataclass(frozen=True)
class Gain:
    """Photon gain of an exposure map: ``phot_scale`` times the exposure; ``sample``: mosaic pixels to one
    of the map's; ``complete`` False if a card was missing and counted as 1."""

    phot_scale: float
    sample: int
    complete: bool


def gain_of(
    exp_header: Header, sci_header: Header, exp_shape: tuple[int, int], sci_shape: tuple[int, int]
) -> Gain:
    """Gain cards from the header of the exposure map, else from that of the science image. Of an image in
    electrons per second, the gain is the exposure itself."""

    def card(key: str) -> float | None:
        for header in (exp_header, sci_header):
            value = header.get(key)
            if isinstance(value, int | float) and math.isfinite(value) and value > 0:
                return float(value)
        return None

    mjsr, scal, new, old = card("PHOTMJSR"), card("PHOTSCAL"), card("PHOTFNU"), card("OPHOTFNU")
    scale = 1.0 / (mjsr or 1.0) / (scal or 1.0) * (new / old if new and old else 1.0)
    sample = card("SAMPLE") or max(1.0, round(sci_shape[1] / exp_shape[1]))
    complete = (mjsr is not None and scal is not None) or in_electrons(sci_header)
    return Gain(scale, max(1, int(sample)), complete)


def variance(kind: str, noise: np.ndarray, err_scale: ArrayLike = 1.0) -> np.ndarray:
    """(n, h, w) noise plane of ``kind`` 'err', 'var', 'wht' or 'exp' to a variance; inf where there is none,
    or one so large that it stands for none."""
    with np.errstate(all="ignore"):
        noise = noise.astype(np.float64)
        out = {"err": noise**2, "var": noise}.get(kind, 1.0 / noise) * np.square(err_scale)
        out = np.where(np.isfinite(noise) & (noise > 0) & np.isfinite(out), out, np.inf)
    return np.where(informed(np.sqrt(out)), out, np.inf)


def scale_sky(var: np.ndarray, sci: np.ndarray, scale: ArrayLike, photon: float = 0.0) -> np.ndarray:
    """(n, h, w) ``var`` with its sky part times ``scale``^2 and its photon part as it is: ``scale`` was
    measured on blank sky, and says nothing about the photon noise of sources that an error map holds too.

    The sky part of a pixel is at most ``v0``, the median variance of the stamp's faint pixels (its lowest
    tenth where fewer than ``MIN_FAINT`` are faint). What exceeds ``v0`` is photons as far as the light can
    account for it, at the variance per light of the ``N_BRIGHTEST`` brightest pixels (``photon``, the tile's,
    where they have none); the rest is shallower sky, and scaled as well. A map that is cut off at a floor
    hides photon noise below ``v0`` (seen where light asks for 0.3 to 1 of it): where the scale is below one,
    a pixel keeps what its light asks for, up to what the map says.
    """
    light = np.nan_to_num(sci.astype(np.float64))
    factor = np.broadcast_to(np.reshape(scale, (-1, 1, 1)), (len(var), 1, 1)) ** 2
    out = var.copy()
    for i in np.nonzero(np.isfinite(var).any(axis=(1, 2)))[0]:
        v0, photons, hidden = _photons(var[i], light[i], photon)
        out[i] = factor[i] * (var[i] - photons) + photons
        if factor[i] < 1:
            out[i] = np.maximum(out[i], np.minimum(var[i], factor[i] * v0 + hidden))
    return out


def _photons(var: np.ndarray, light: np.ndarray, fallback: float) -> tuple[float, np.ndarray, np.ndarray]:
    """The sky variance of a stamp (h, w), and the photon noise of its light: as seen in ``var``, and as its
    light asks for."""
    known = np.isfinite(var)
    faint = known
    for _ in range(3):
        if faint.sum() < MIN_FAINT:
            v0 = np.quantile(var[known], 0.1)
            break
        v0 = np.median(var[faint])
        faint = known & (light <= np.sqrt(v0))
    excess = np.where(known, np.maximum(var - v0, 0.0), 0.0)
    brightest = np.argsort(np.where(known, light, -np.inf), axis=None)[-N_BRIGHTEST:]
    bright = brightest[light.flat[brightest] > BRIGHT_SIGMA * np.sqrt(v0)]
    per_light = np.median(excess.flat[bright] / light.flat[bright]) if len(bright) else 0.0
    if per_light * light.max() < MIN_EXCESS * v0:
        per_light = max(per_light, fallback)
    mean = ndimage.uniform_filter(light, 3).clip(min=0)
    seen = np.minimum(excess, SLACK * per_light * np.maximum(light, mean))
    asked = per_light * np.clip(light, 0, mean)
    middle = known & (asked > 0.3 * v0) & (asked < v0)
    cut_off = excess[middle].sum() < 0.5 * asked[middle].sum()
    return v0, seen, asked if cut_off else np.zeros_like(asked)


def photon_noise(var: np.ndarray, light: np.ndarray, usable: np.ndarray, v0: float) -> np.ndarray:
    """Variance per light at the bright pixels whose variance is mostly photons, above the sky variance
    ``v0``."""
    bright = usable & (light > BRIGHT_SIGMA * np.sqrt(v0)) & (var > 3 * v0)
    return (var[bright] - v0) / light[bright]


def poisson(sci: np.ndarray, exposure: np.ndarray, gain: Gain) -> np.ndarray:
    """(n, h, w) variance of the source's photons; inf where the exposure is not positive."""
    effective = gain.phot_scale * exposure.astype(np.float64)
    with np.errstate(all="ignore"):
        return np.where(effective > 0, np.maximum(np.nan_to_num(sci), 0.0) / effective, np.inf)


def exposure_boxes(
    image: OpenImage, y0: np.ndarray, x0: np.ndarray, h: int, w: int, sample: int
) -> tuple[np.ndarray, np.ndarray]:
    """Stamps (n, h, w) of a subsampled exposure map at mosaic pixels (y0, x0), and which could be read."""
    if sample == 1:
        return image.boxes(y0, x0, h, w)
    ya, xa = np.floor_divide(y0, sample), np.floor_divide(x0, sample)
    small, ok = image.boxes(ya, xa, (h - 1) // sample + 2, (w - 1) // sample + 2)
    rows = np.floor_divide(np.asarray(y0)[:, None] + np.arange(h), sample) - ya[:, None]
    cols = np.floor_divide(np.asarray(x0)[:, None] + np.arange(w), sample) - xa[:, None]
    return small[np.arange(len(small))[:, None, None], rows[:, :, None], cols[:, None, :]], ok


PASSES = 5e-3  # of the light
MIN_BEYOND = 0.05  # share of the frequencies of the stamp that must be free of light
CORE_SIGMA, SKY_SIGMA = 20.0, 2.0
MIN_CORE, MIN_SKY = 12, 100
MEDIAN_OF_CHI2 = 0.455  # of one degree of freedom
SIGNIFICANT = 4.0  # standard deviations of the scatter
LARGEST = 1.0


def floor_variance(
    setting: float | str, data: np.ndarray, var: np.ndarray, bad: np.ndarray, psf: np.ndarray, psf_step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Variance (n, h, w) of these errors, and their rms over the light of the bright pixels (n,), as a
    fraction.

    ``setting``: the fraction of the light, or "measure". ``data``, ``var`` (n, h, w), ``bad`` pixels
    unusable; ``psf`` (n, p, p) with ``psf_step`` pixels of the data to a pixel of the PSF.
    """
    out, floor = np.zeros(data.shape), np.zeros(len(data))
    with np.errstate(invalid="ignore"):
        bright = ~bad & (data > CORE_SIGMA * np.sqrt(var))
    for i in np.nonzero(bright.sum((1, 2)) >= (MIN_CORE if setting == "measure" else 0))[0]:
        clean = np.where(bad[i] | ~np.isfinite(data[i]), 0, data[i]).astype(np.float64)
        light = ndimage.uniform_filter(clean, 3).clip(min=0)
        if setting == "measure":
            change = _change(clean, np.where(bad[i], 0, var[i]))
            share = measure_share(
                clean, var[i], bad[i], light, change, beyond(psf[i], psf_step, data.shape[1:])
            )
            out[i] = (share * change) ** 2
            floor[i] = np.sqrt(out[i][bright[i]].sum() / (light[bright[i]] ** 2).sum())
        else:
            out[i], floor[i] = (setting * light) ** 2, setting
    return out, floor


def _change(data: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Standard deviation of the light over 3 x 3 pixels, the noise taken off."""
    mean = ndimage.uniform_filter(data, 3)
    return np.sqrt(
        (ndimage.uniform_filter(data**2, 3) - mean**2 - ndimage.uniform_filter(var, 3)).clip(min=0)
    )


def beyond(psf: np.ndarray, psf_step: float, shape: tuple[int, int]) -> np.ndarray:
    """(h, w // 2 + 1) bool: frequencies of a stamp that neither the PSF (p, p) nor its aliases let pass."""
    p = np.arange(psf.shape[0])
    axes = []
    for f in (np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])):
        aliases = (f[None] + np.array([0.0, -1.0, 1.0])[:, None]) if psf_step < 0.99 else f[None]
        axes.append(np.exp(-2j * np.pi * psf_step * aliases[..., None] * p))
    passed = np.abs(np.einsum("afp,pq,bgq->abfg", axes[0], psf, axes[1], optimize=True)).sum((0, 1))
    return passed < PASSES * max(psf.sum(), 1e-30)


def measure_share(
    data: np.ndarray,
    var: np.ndarray,
    bad: np.ndarray,
    light: np.ndarray,
    change: np.ndarray,
    free: np.ndarray,
) -> float:
    """Errors of one stamp (h, w) in units of ``change``; zero where the scatter does not ask for any, or
    cannot be measured."""
    h, w = data.shape
    kernel = fft.irfft2(free.astype(float), s=(h, w)) ** 2
    share = kernel.sum()  # of the power of white noise that is left
    if share < MIN_BEYOND:
        return 0.0

    def spread(u: np.ndarray) -> np.ndarray:
        return fft.irfft2(fft.rfft2(u) * fft.rfft2(kernel), s=(h, w)).clip(min=1e-30)

    window = np.outer(_taper(h), _taper(w))
    usable = ~bad & np.isfinite(var)
    scatter = fft.irfft2(fft.rfft2(patched(data, bad) * window) * free, s=(h, w)) ** 2
    noise = spread(np.where(usable, var, np.median(var[usable])) * window**2)
    unit = spread((change * window) ** 2)
    inside = (window > 0.9) & ~ndimage.binary_dilation(bad, iterations=2)
    sn = light / np.sqrt(np.where(usable, var, np.inf))
    bright, faint = inside & (sn > CORE_SIGMA), inside & (np.abs(sn) < SKY_SIGMA)
    if bright.sum() < MIN_CORE:
        return 0.0
    if faint.sum() >= MIN_SKY:
        noise *= np.median(scatter[faint] / noise[faint]) / MEDIAN_OF_CHI2
    scatter, noise, unit = scatter[bright], noise[bright], unit[bright]
    if (scatter / noise).mean() < 1 + SIGNIFICANT * np.sqrt(2 / max(bright.sum() * share, 1)):
        return 0.0
    low, high = 0.0, LARGEST
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if (scatter / (noise + middle**2 * unit)).mean() > 1 else (low, middle)
    return (low + high) / 2


def _taper(n: int) -> np.ndarray:
    """One in the middle, falling to zero over an eighth at each end."""
    edge = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / (n / 8)
    return np.sin(0.5 * np.pi * edge.clip(max=1)) ** 2


def patched(data: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Bad pixels replaced by the mean of their good neighbours, zero where there are none."""
    if not bad.any():
        return data
    good = (~bad).astype(np.float32)
    near = ndimage.gaussian_filter(data * good, 1.0) / ndimage.gaussian_filter(good, 1.0).clip(min=1e-3)
    return np.where(bad, near, data)
