"""A source with a known truth, in plain arrays, for the tests of pictures and pages."""

import numpy as np
from scipy.ndimage import gaussian_filter

from galbatch.report.view import Number, SourceView


def fake_view(size=32, oversample=1, truth=True, draws=8, model=True, seed=0) -> SourceView:
    """An inclined disc with a clump, blurred and noisy, a block and an edge masked; draws scatter."""
    rng = np.random.default_rng(seed)
    fine = size * oversample
    y, x = (np.mgrid[:fine, :fine] - (fine - 1) / 2) / oversample
    flux = 30 * np.exp(-np.hypot(x, y / 0.6) / 3) + 6 * np.exp(-((x - 6) ** 2 + (y + 3) ** 2) / 4)
    flux /= oversample**2

    def blurred(image):
        seen = gaussian_filter(image, 2.0 * oversample)
        return seen.reshape(size, oversample, size, oversample).sum((1, 3))

    scatter = gaussian_filter(rng.normal(size=(draws, fine, fine)), (0, 1.5 * oversample, 1.5 * oversample))
    samples = flux * (1 + scatter * oversample)
    sigma = np.full((size, size), 0.4)
    observed = blurred(flux) + sigma * rng.normal(size=sigma.shape)
    mask = np.zeros((size, size), bool)
    mask[20:24, 4:8] = mask[:, -2:] = True
    psf = np.exp(-(np.hypot(*(np.mgrid[:25, :25] - 12)) ** 2) / 8)
    mean = samples.mean(0)
    return SourceView(
        source_id="demo-17",
        band="f200w",
        observed=observed,
        sigma=sigma,
        mean=mean,
        std=samples.std(0),
        samples=samples,
        pixel_scale_arcsec=0.03,
        prior_driven=1 / (1 + mean * oversample**2),
        mask=mask,
        model=blurred(mean) if model else None,
        psf=psf / psf.sum(),
        truth=flux if truth else None,
        north_deg=20.0,
        numbers=(
            Number("mag_ab", 24.31, 24.35, 24.39, 24.41, 24.36 if truth else np.nan),
            Number("gini", 0.52, 0.54, 0.56, 0.49, 0.55 if truth else np.nan),
            Number("sersic_n", np.nan, np.nan, np.nan),
        ),
        facts={"chi2 per pixel": "1.02 (p = 0.41)", "flags": "NEIGHBOUR"},
    )
