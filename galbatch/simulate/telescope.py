"""A NIRCam-like PSF computed from a segmented aperture with wavefront error.

The pupil is that of an 18-hexagon telescope of 6.6 m with three struts; the wavefront error is random, drawn
once per seed: Zernike terms on each segment, a few terms over the whole pupil and a ripple. The image is the
squared modulus of the pupil's Fourier transform, taken by matrix products at any sampling (Soummer et al.
2007, Opt. Express 15, 15935), averaged over wavelength, convolved with pointing jitter and integrated over
pixels. Lengths of the pupil are metres, wavefront errors nanometres, sky angles arcsec.

Noise is that of a drizzled mosaic: a unit-variance white field is convolved with a small separable kernel,
normalised so that the variance stays 1, and multiplied by the sigma map.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.ndimage import convolve1d, gaussian_filter

from galbatch.errors import InputError

PUPIL_PIXELS = 256
PUPIL_METRES = 6.64
FLAT_TO_FLAT = 1.315
"""Width of one hexagonal segment between opposite sides, gaps of 7 mm included in the pitch."""
PITCH = 1.322
WAVEFRONT_RMS_NM = 120.0
"""Default total wavefront error: what the WebbPSF F200W model has (115 nm telescope, 35 nm instrument)."""
ARCSEC = math.pi / 180.0 / 3600.0


def _segment_centres() -> np.ndarray:
    """Centres (18, 2) of the two rings of segments, flat sides up."""
    centres = []
    for q in range(-2, 3):
        for r in range(-2, 3):
            if max(abs(q), abs(r), abs(q + r)) in (1, 2):
                centres.append((PITCH * math.sqrt(3) / 2 * q, PITCH * (r + q / 2)))
    return np.array(centres)


@lru_cache(maxsize=1)
def _pupil() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transmission (n, n), x and y (metres) of the pupil, struts included."""
    axis = (np.arange(PUPIL_PIXELS) - 0.5 * (PUPIL_PIXELS - 1)) * (PUPIL_METRES / PUPIL_PIXELS)
    x, y = np.meshgrid(axis, axis)
    transmission = np.zeros_like(x)
    for cx, cy in _segment_centres():
        transmission = np.maximum(transmission, _hexagon(x - cx, y - cy))
    for angle in (90.0, 235.0, 305.0):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        along, across = x * c + y * s, -x * s + y * c
        transmission[(along > 0) & (np.abs(across) < 0.06)] = 0.0
    return transmission, x, y


def _hexagon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    half = 0.5 * FLAT_TO_FLAT
    inside = np.abs(y) < half
    for sign in (1, -1):
        inside &= np.abs(sign * x * math.sqrt(3) / 2 + y / 2) < half
    return inside.astype(np.float64)


def _zernikes(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Zernike terms 1 to 11 (Noll), unit rms on the unit disc."""
    r2 = x * x + y * y
    return [
        np.ones_like(x),
        2 * x,
        2 * y,
        math.sqrt(3) * (2 * r2 - 1),
        math.sqrt(6) * 2 * x * y,
        math.sqrt(6) * (x * x - y * y),
        math.sqrt(8) * (3 * r2 - 2) * y,
        math.sqrt(8) * (3 * r2 - 2) * x,
        math.sqrt(8) * (3 * x * x * y - y**3),
        math.sqrt(8) * (x**3 - 3 * x * y * y),
        math.sqrt(5) * (6 * r2 * r2 - 6 * r2 + 1),
    ]


def wavefront_error(seed: int, rms_nm: float = WAVEFRONT_RMS_NM) -> np.ndarray:
    """A random wavefront error map (n, n) in nm over the pupil, of total rms ``rms_nm``, tilt removed."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x9F5]))
    transmission, x, y = _pupil()
    error = np.zeros_like(x)
    segment_scale = np.array([1.0, 0.7, 0.7, 0.7, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.3])
    for cx, cy in _segment_centres():
        on = _hexagon(x - cx, y - cy) > 0
        terms = _zernikes((x[on] - cx) / 0.76, (y[on] - cy) / 0.76)
        error[on] += sum(c * t for c, t in zip(rng.normal(0.0, segment_scale), terms, strict=True))
    terms = _zernikes(x / 3.3, y / 3.3)
    error += sum(0.8 * c * t for c, t in zip(rng.normal(size=8), terms[3:], strict=True))
    ripple = gaussian_filter(rng.normal(size=x.shape), 5.0)
    error += 0.6 * ripple / ripple.std()
    on = transmission > 0
    basis = np.stack([np.ones(on.sum()), x[on], y[on]], -1)
    error[on] -= basis @ np.linalg.lstsq(basis, error[on], rcond=None)[0]
    error[~on] = 0.0
    return np.asarray(error * (rms_nm / np.sqrt(np.mean(error[on] ** 2))))


def _intensity(field: np.ndarray, wavelength_um: float, step_arcsec: float, samples: int) -> np.ndarray:
    """|FT|^2 of a pupil field on samples x samples points ``step_arcsec`` apart; a whole plane sums to 1."""
    metres = PUPIL_METRES / PUPIL_PIXELS
    pupil = (np.arange(PUPIL_PIXELS) - 0.5 * (PUPIL_PIXELS - 1)) * metres
    sky = (np.arange(samples) - 0.5 * (samples - 1)) * step_arcsec * ARCSEC
    kernel = np.exp((-2j * math.pi / (wavelength_um * 1e-6)) * np.outer(sky, pupil)).astype(np.complex64)
    image = kernel @ field.astype(np.complex64) @ kernel.T
    scale = (metres * step_arcsec * ARCSEC / (wavelength_um * 1e-6)) ** 2
    return np.abs(image) ** 2 * (scale / np.sum(np.abs(field) ** 2))


def nircam_like_psf(
    wavelength_um: float,
    pixel_scale_arcsec: float,
    npix: int,
    oversample: int = 5,
    seed: int = 0,
    wavefront_rms_nm: float = WAVEFRONT_RMS_NM,
    bandwidth: float = 0.23,
    jitter_arcsec: float = 0.007,
) -> np.ndarray:
    """The PSF on ``npix`` x ``npix`` pixels, float64, its core centred on the middle pixel.

    Parameters
    ----------
    wavelength_um : central wavelength, micron; ``bandwidth`` is the filter's width over it.
    pixel_scale_arcsec : side of a pixel, arcsec; the response of the square pixel is included.
    npix : side of the result; must be odd so that the centre is a pixel.
    oversample : odd number of points per pixel side at which the image is computed and averaged.
    seed : which wavefront (a position on the detector, say).

    The sum is the energy that falls on the array: below 1, and never forced to it. Raises ``InputError`` for
    an even ``npix`` or ``oversample``.
    """
    if npix % 2 == 0 or oversample % 2 == 0 or npix < 1 or oversample < 1:
        raise InputError(
            f"PSF of {npix} pixels at oversampling {oversample}: both must be odd and positive, "
            "so that the centre is a pixel. Add 1 to the even one."
        )
    transmission, _, _ = _pupil()
    error = wavefront_error(seed, wavefront_rms_nm)
    step = pixel_scale_arcsec / oversample
    pad = 2 * oversample
    samples = npix * oversample + 2 * pad
    total = np.zeros((samples, samples))
    waves = wavelength_um * (1.0 + bandwidth * (np.arange(7) - 3) / 7.0)
    for wave in waves:
        field = transmission * np.exp(2j * math.pi * error * 1e-3 / wave)
        total += _intensity(field, wave, step, samples) / len(waves)
    if jitter_arcsec > 0:
        total = gaussian_filter(total, jitter_arcsec / step, mode="constant")
    core = math.hypot(0.45 * wavelength_um * 1e-6 / (PUPIL_METRES * ARCSEC), 0.4 * pixel_scale_arcsec)
    total = _centred(total, step, samples, core)
    inner = total[pad:-pad, pad:-pad]
    return np.asarray(inner.reshape(npix, oversample, npix, oversample).sum((1, 3)))


def _centred(image: np.ndarray, step_arcsec: float, samples: int, width_arcsec: float) -> np.ndarray:
    """Shift by a band-limited sub-pixel step until the centroid of the core is the middle.

    The centroid is taken under a Gaussian window of sigma ``width_arcsec``, as wide as the core, which moves
    it half as far as the image: hence the factor 2.
    """
    axis = (np.arange(samples) - 0.5 * (samples - 1)) * step_arcsec
    window = np.exp(-0.5 * (axis / width_arcsec) ** 2)
    frequency = np.fft.fftfreq(samples)
    transform = np.fft.fft2(image)
    dx = dy = 0.0
    for _ in range(6):
        phase = np.exp(2j * math.pi * (frequency[:, None] * dy + frequency[None, :] * dx))
        image = np.fft.ifft2(transform * phase).real
        weighted = image * window[:, None] * window[None, :]
        dy += 2.0 * (weighted.sum(1) @ axis) / weighted.sum() / step_arcsec
        dx += 2.0 * (weighted.sum(0) @ axis) / weighted.sum() / step_arcsec
    return np.clip(image, 0.0, None)


def drizzle_kernel(lag_one: float) -> np.ndarray:
    """The 1-d kernel [a, 1, a] / norm whose output has autocorrelation ``lag_one`` between neighbours.

    With a = (1 - sqrt(1 - 2 L^2)) / (2 L), 2 a / (1 + 2 a^2) = L. Raises ``InputError`` outside [0, 0.66].
    """
    if not 0.0 <= lag_one <= 0.66:
        raise InputError(f"noise autocorrelation {lag_one} at lag 1: give a value from 0 to 0.66.")
    a = (1.0 - math.sqrt(1.0 - 2.0 * lag_one**2)) / (2.0 * lag_one) if lag_one > 0 else 0.0
    return np.array([a, 1.0, a]) / math.sqrt(1.0 + 2.0 * a * a)


def correlated_noise(rng: np.random.Generator, shape: tuple[int, int], lag_one: float) -> np.ndarray:
    """Unit-variance Gaussian noise (h, w) float64 whose neighbours correlate by ``lag_one``."""
    kernel = drizzle_kernel(lag_one)
    white = rng.standard_normal((shape[0] + 2, shape[1] + 2))
    field = convolve1d(convolve1d(white, kernel, axis=0), kernel, axis=1)
    return np.asarray(field[1:-1, 1:-1])


def sigma_map(sky_sigma: np.ndarray, signal: np.ndarray, njy_per_electron: float) -> np.ndarray:
    """Standard deviation per pixel: sky, and Poisson noise of the noise-free ``signal`` (nJy per pixel)."""
    return np.asarray(np.sqrt(sky_sigma**2 + njy_per_electron * np.clip(signal, 0.0, None)))


def depth_map(shape: tuple[int, int], sky_sigma: float, step: float, gradient: float) -> np.ndarray:
    """Sky noise of two overlapping exposures: deep at the left, ``step`` times noisier at the right.

    The border is slanted, and the noise grows by ``gradient`` (a fraction) from bottom to top.
    """
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array([shape[0] - 1, shape[1] - 1])[:, None, None]
    shallow = x > 0.62 - 0.12 * y
    return np.asarray(sky_sigma * np.where(shallow, step, 1.0) * (1.0 + gradient * y))
