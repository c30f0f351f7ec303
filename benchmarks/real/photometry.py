"""Aperture photometry of the observed pixels with photutils, beside that of the reconstruction.

A Kron aperture on a segment that photutils finds itself; nothing but pixels, noise and the mask of neighbours
is taken from the run.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.convolution import convolve
from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources, make_2dgaussian_kernel

THRESHOLD_SIGMA, MIN_PIX, SMOOTHING_FWHM_PIX = 1.5, 6, 3.0


@dataclass(frozen=True)
class Photometry:
    """``snr`` of the aperture's flux under white noise; ``outside``: share of the aperture beyond the image,
    and ``centre_masked``; ``model``: light of the model over that of the pixels in the aperture, both as the
    telescope sees them; ``matched_njy``: flux of the pixels, brought to the target PSF by what the
    reconstruction gains there when its PSF is taken out."""

    snr: float
    outside: float
    centre_masked: bool
    model: float
    matched_njy: float


def photometry(data, sigma, neighbour, model, mean) -> Photometry | None:
    """All (h, w) of one grid: pixels (NaN outside the image), noise (inf where not used), True on neighbours,
    the mean through the PSF and the mean at the target PSF. None where nothing is detected at the middle."""
    bad = ~np.isfinite(data) | ~np.isfinite(sigma) | neighbour
    middle = tuple(n // 2 for n in data.shape)
    clean, noise = np.where(bad, 0.0, data), np.where(np.isfinite(sigma), sigma, np.median(sigma[~bad]))
    segments = _segments(clean, noise, bad)
    label = None if segments is None else _at(segments.data, middle)
    if not label:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = SourceCatalog(clean, segments, error=noise, mask=bad).get_label(label)
        aperture = source.make_kron_apertures()
    weight = None if aperture is None else aperture.to_mask(method="exact").to_image(data.shape)
    if weight is None:
        return None
    inside = lambda image, use=True: float((weight * np.where(use, image, 0.0)).sum())  # noqa: E731
    pixels, error = inside(data, ~bad), inside(noise**2, ~bad) ** 0.5
    full = pixels + inside(model, bad & ~neighbour)
    whole = inside(model, ~neighbour)
    return Photometry(
        snr=pixels / error,
        outside=1 - inside(np.isfinite(data).astype(float)) / aperture.area,
        centre_masked=bool(bad[middle]),
        model=inside(model, ~bad) / pixels,
        matched_njy=full * inside(mean, ~neighbour) / whole if whole > 0 else np.nan,
    )


def _segments(clean, noise, bad):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        smooth = convolve(clean, make_2dgaussian_kernel(SMOOTHING_FWHM_PIX, size=5))
        found = detect_sources(smooth, THRESHOLD_SIGMA * noise, MIN_PIX, mask=bad)
        return found and deblend_sources(smooth, found, MIN_PIX, progress_bar=False)


def _at(labels, middle, reach=4) -> int:
    """The label nearest to the middle, at most ``reach`` pixels away; 0 where there is none."""
    y, x = np.nonzero(labels)
    far = np.hypot(y - middle[0], x - middle[1])
    return int(labels[y[far.argmin()], x[far.argmin()]]) if len(far) and far.min() <= reach else 0
