"""Classical restoration for ``referee.py``: Richardson-Lucy, Wiener and sparse deconvolution in
starlets.

Every method returns the image at the target PSF (a Gaussian of 2 pixels FWHM), in the unit of the data.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.signal import fftconvolve

from galbatch.types import Observation


def filled(obs: Observation) -> np.ndarray:
    """The stamp with a median of its surroundings where it is masked."""
    data = np.nan_to_num(obs.data[0, 0]).astype(float)
    return np.where(obs.valid[0, 0], data, ndimage.median_filter(data, 5))


def to_target_fwhm(image):
    return ndimage.gaussian_filter(image, 2.0 / 2.3548)


def lucy(obs: Observation, iterations: int):
    from skimage.restoration import richardson_lucy

    lift = 5 * float(np.median(obs.sigma))  # it wants positive data: a pedestal, taken off again
    psf = obs.psf[0, 0].astype(float)
    return to_target_fwhm(
        richardson_lucy((filled(obs) + lift).clip(1e-3), psf, iterations, clip=False) - lift
    )


def wiener(obs: Observation, balance: float):
    from skimage.restoration import wiener

    return to_target_fwhm(wiener(filled(obs), obs.psf[0, 0].astype(float), balance, clip=False))


def sparse(obs: Observation, threshold: float, scales: int = 4, iterations: int = 100):
    """Positive image with few starlet coefficients: accelerated proximal steps, thresholds of ``threshold``
    sky sigma (Starck, Fadili & Murtagh 2007; Beck & Teboulle 2009)."""
    data, psf = filled(obs), obs.psf[0, 0].astype(float)
    level = threshold * float(np.median(obs.sigma))
    x = z = np.zeros_like(data)
    t = 1.0
    for _ in range(iterations):
        gradient = fftconvolve(data - fftconvolve(z, psf, "same"), psf[::-1, ::-1], "same")
        new = shrunk(z + gradient, level, scales).clip(min=0)
        after = (1 + np.sqrt(1 + 4 * t * t)) / 2
        x, z, t = new, new + (t - 1) / after * (new - x), after
    return to_target_fwhm(x)


def shrunk(image, level: float, scales: int):
    """Soft thresholding of the starlet coefficients of an image, finer ones more, as white noise is."""
    out, smooth = 0, image
    for j, noise in enumerate((0.89, 0.20, 0.085, 0.041)[:scales]):
        kernel = np.zeros(4 * 2**j + 1)
        kernel[:: 2**j] = np.array([1, 4, 6, 4, 1]) / 16
        coarse = ndimage.convolve1d(ndimage.convolve1d(smooth, kernel, 0), kernel, 1)
        detail = smooth - coarse
        out, smooth = out + np.sign(detail) * (np.abs(detail) - noise * level).clip(min=0), coarse
    return out + smooth


METHODS = (
    ("Richardson-Lucy (oracle)", lucy, (2, 4, 8, 16, 32, 64, 128)),
    ("Wiener (oracle)", wiener, np.logspace(-3, 3, 13)),
    ("sparse starlets (oracle)", sparse, np.logspace(-2.5, 0.5, 8)),
)


def at_oracle(mocks, name: str):
    """A method at the strength that is best for the galaxy at hand: images (n, 1, h, w)."""
    restore, strengths = next(rest for own, *rest in METHODS if own == name)
    images = []
    for i, truth in enumerate(mocks.image):
        o, rows = mocks.obs, slice(i, i + 1)
        obs = Observation(o.data[rows], o.sigma[rows], o.psf[rows], o.mask[rows])
        tries = [restore(obs, strength) for strength in strengths]
        images.append(min(tries, key=lambda image, truth=truth: ((image - truth) ** 2).sum())[None])
    return np.stack(images)
