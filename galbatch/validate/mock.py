"""Held-out truth and what a telescope would have seen of it.

Galaxies come from the package's simulator, of a series no prior is trained on (``SEED``), through the law of
sizes, positions and companions that the prior was trained with: calibration is a statement about that law.
Each is seen with one of a few PSFs, at a peak signal-to-noise ratio per pixel that is log-uniform over 3 to
300, under noise that varies over the stamp, with bad pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from galbatch.forward import forward_model
from galbatch.sampler import sample_posterior
from galbatch.sampler.prior import as_denoiser
from galbatch.simulate.galaxies import simulate_galaxies
from galbatch.training.library import Library, SourceImage
from galbatch.training.stamps import StampConfig, StampSource
from galbatch.types import Observation, Posterior

SEED = 2_000_000
STAMP = 64
PSF_FWHM_PIX = (2.3, 3.0, 4.2, 6.0)
SN_RANGE = (3.0, 300.0)
ACF = np.outer([0.08, 0.36, 1, 0.36, 0.08], [0.08, 0.36, 1, 0.36, 0.08])  # like drizzled NIRCam mosaics


@dataclass(frozen=True)
class MockSet:
    """``obs`` of (n, 1, 64, 64) and the truth: ``image`` (n, 64, 64) at the target PSF, ``sn`` peak S/N per
    pixel (n,), ``fwhm_pix`` of the PSF and ``radius_pix``, the half-light radius of the truth."""

    obs: Observation
    image: np.ndarray
    sn: np.ndarray
    fwhm_pix: np.ndarray
    radius_pix: np.ndarray


def mock_psf(fwhm_pix: float, size: int = 41) -> np.ndarray:
    """A core, a ring and wings: elliptical Moffat (beta 2.5) with six faint spikes, unit sum."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    r = np.hypot(x, 1.08 * y)
    alpha = fwhm_pix / (2 * np.sqrt(2 ** (1 / 2.5) - 1))
    spikes = 1 + 0.5 * np.cos(6 * np.arctan2(y, x)) * (r > fwhm_pix)
    psf = (1 + (r / alpha) ** 2) ** -2.5 * spikes
    return psf / psf.sum()


def make_mocks(prior, n: int, seed: int = SEED, correlated: bool = False, sn_range=SN_RANGE) -> MockSet:
    """``n`` mock observations for a prior with the convention 'smoothed_peak' and one channel."""
    rng = np.random.default_rng([seed, 77])
    spec = as_denoiser(prior).spec
    margin, target = spec.margin_pix, spec.target_fwhm_pix
    size = -(-(STAMP + 2 * margin) // 8) * 8
    images, _ = simulate_galaxies(n, seed)
    band = rng.integers(0, 2, n)
    library = Library([SourceImage(images[i, band[i]], f"mock-{seed}-{i}", "mock") for i in range(n)])
    # every galaxy once: the library draws with repetition, so it is asked for one galaxy at a time
    stamps = np.concatenate(
        [
            StampSource(_only(library, i), StampConfig(target_fwhm_pix=target, margin_pix=margin))
            .draw(1, size, (seed, i), scaled=False)
            .numpy()
            for i in range(len(library))
        ]
    )[:, None]
    n = len(stamps)
    fwhm = rng.choice(PSF_FWHM_PIX, n)
    psf = np.stack([mock_psf(f) for f in fwhm])[:, None]
    blank = np.zeros((n, 1, STAMP, STAMP), np.float32)
    mask = rng.random(blank.shape) < 0.01
    mask[rng.random(n) < 0.2, :, :, 50:53] = True  # a bad column in some
    model = forward_model(Observation(blank, blank + 1, psf), 1, margin, 8, target)[1]
    clean = model.apply(torch.from_numpy(stamps.astype(np.float32)))[:, 0].numpy()
    sn = np.exp(rng.uniform(np.log(sn_range[0]), np.log(sn_range[1]), n))
    peak = clean.max((1, 2, 3))
    unit = sn / peak  # flux units in which the sky noise is one
    ramp = 1 + 0.25 * np.linspace(-1, 1, STAMP)[:, None] * rng.uniform(-1, 1, (n, 1, 1, 1))
    clean, truth = clean * unit[:, None, None, None], stamps * unit[:, None, None, None, None]
    sigma = np.sqrt(ramp**2 + clean.clip(min=0) * rng.uniform(0, 0.1, (n, 1, 1, 1)))
    acf = ACF[None] if correlated else None
    noise = forward_model(Observation(blank, sigma, psf, mask, noise_acf=acf), 1)[1].noise
    added = noise.sample(
        lambda *shape: torch.from_numpy(rng.standard_normal((n, 1, *shape)).astype(np.float32))
    )
    data = np.where(mask, np.nan, clean + added[:, 0].numpy())
    image = truth[:, 0, 0, margin : margin + STAMP, margin : margin + STAMP].astype(np.float32)
    return MockSet(Observation(data, sigma, psf, mask, noise_acf=acf), image, sn, fwhm, _half_light(image))


def sample_mocks(
    prior, mocks: MockSet, draws: int, mode: str, seed: int = 0, progress=None
) -> list[Posterior]:
    """The posterior of every mock, each by itself. ``progress(done, total)`` is called after each."""
    parts, n = [], len(mocks.image)
    for i in range(n):
        obs = _one(mocks.obs, i)
        parts.append(sample_posterior(prior, obs, draws=draws, mode=mode, seed=seed, source_ids=[i]))
        if progress:
            progress(i + 1, n)
    return parts


def _one(obs: Observation, i: int) -> Observation:
    return Observation(
        obs.data[i : i + 1],
        obs.sigma[i : i + 1],
        obs.psf[i : i + 1],
        obs.mask[i : i + 1],
        obs.pixel_scale_arcsec,
        obs.psf_scale_arcsec,
        obs.noise_acf,
    )


def _only(library: Library, i: int) -> Library:
    one = Library.__new__(Library)
    one.groups, one.origins = [library.groups[i]], [library.origins[i]]
    one.min_zoom, one.radius, one.probability = (
        library.min_zoom[i : i + 1],
        library.radius[i : i + 1],
        np.ones(1),
    )
    one._build_levels(library.levels[0][i : i + 1])
    return one


def _half_light(images) -> np.ndarray:
    out = []
    y, x = np.indices(images.shape[1:])
    for image in images:
        total = image.sum()
        r = np.hypot(y - (image * y).sum() / total, x - (image * x).sum() / total).ravel()
        order = np.argsort(r)
        out.append(
            r[order][np.searchsorted(np.cumsum(image.ravel()[order]), 0.5 * total).clip(max=r.size - 1)]
        )
    return np.array(out)
