"""Held-out truth and what a telescope would have seen of it.

Galaxies come from the package's simulator, of a series no prior is trained on (``SEED``), through the law of
sizes, positions and companions that the prior was trained with: calibration is a statement about that law.
Each is seen with one of a few PSFs, at a peak signal-to-noise ratio per pixel that is log-uniform over 3 to
300, under noise that varies over the stamp, with bad pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from galbatch.forward import forward_model
from galbatch.interfaces import Denoiser, PriorSpec
from galbatch.sampler import sample_posterior, sources_at_once
from galbatch.sampler.prior import as_denoiser
from galbatch.simulate.galaxies import half_light_radius, simulate_galaxies
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
    pixel (n,), ``fwhm_pix`` of the PSF and ``radius_pix``, the half-light radius of the truth.

    ``inside`` (n, 64, 64): where the truth is known and judged; None is everywhere. ``galaxy`` (n,): which
    galaxy it is, where one is seen several times; None is another each time.
    """

    obs: Observation
    image: np.ndarray
    sn: np.ndarray
    fwhm_pix: np.ndarray
    radius_pix: np.ndarray
    inside: np.ndarray | None = None
    galaxy: np.ndarray | None = None


def mock_psf(fwhm_pix: float, size: int = 41) -> np.ndarray:
    """A core, a ring and wings: elliptical Moffat (beta 2.5) with six faint spikes, unit sum."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    r = np.hypot(x, 1.08 * y)
    alpha = fwhm_pix / (2 * np.sqrt(2 ** (1 / 2.5) - 1))
    spikes = 1 + 0.5 * np.cos(6 * np.arctan2(y, x)) * (r > fwhm_pix)
    psf = (1 + (r / alpha) ** 2) ** -2.5 * spikes
    return psf / psf.sum()


def make_mocks(
    prior: Denoiser,
    n: int,
    seed: int = SEED,
    correlated: bool = False,
    sn_range: tuple[float, float] = SN_RANGE,
) -> MockSet:
    """``n`` mock observations for a prior with the convention 'smoothed_peak' and one channel."""
    rng = np.random.default_rng([seed, 77])
    spec = as_denoiser(prior).spec
    size = stamp_side(spec)
    images, _ = simulate_galaxies(n, seed)
    band = rng.integers(0, 2, n)
    library = Library([SourceImage(images[i, band[i]], f"mock-{seed}-{i}", "mock") for i in range(n)])
    # every galaxy once: the library draws with repetition, so it is asked for one galaxy at a time
    config = StampConfig(target_fwhm_pix=spec.target_fwhm_pix, margin_pix=spec.margin_pix)
    views = (StampSource(library.take(np.array([i])), config) for i in range(len(library)))
    stamps = np.stack([v.draw(1, size, (seed, i), scaled=False)[0, 0].numpy() for i, v in enumerate(views)])
    fwhm = rng.choice(PSF_FWHM_PIX, len(stamps))
    psf = np.stack([mock_psf(f) for f in fwhm])[:, None]
    mask = rng.random((len(stamps), 1, STAMP, STAMP)) < 0.01
    mask[rng.random(len(stamps)) < 0.2, :, :, 50:53] = True  # a bad column in some
    sn = np.exp(rng.uniform(np.log(sn_range[0]), np.log(sn_range[1]), len(stamps)))
    return observe(spec, stamps, psf, fwhm, mask, sn, rng, correlated)


def stamp_side(spec: PriorSpec) -> int:
    """Side of the square on which a prior works for a stamp of ``STAMP`` pixels."""
    return -(-(STAMP + 2 * spec.margin_pix) // 8) * 8


def observe(
    spec: PriorSpec,
    stamps: np.ndarray,
    psf: np.ndarray,
    fwhm_pix: np.ndarray,
    mask: np.ndarray,
    sn: np.ndarray,
    rng: np.random.Generator,
    correlated: bool,
) -> MockSet:
    """What a telescope sees of noise-free ``stamps`` (n, H, W) at the target PSF.

    ``psf`` (n, 1, p, p), ``mask`` (n, 1, 64, 64) True where bad, ``sn`` (n,) peak signal-to-noise ratio
    per pixel. The noise varies over the stamp, and with the light of the galaxy.
    """
    n, margin = len(stamps), spec.margin_pix
    blank = np.zeros((n, 1, STAMP, STAMP), np.float32)
    model = forward_model(Observation(blank, blank + 1, psf), 1, margin, 8, spec.target_fwhm_pix)[1]
    clean = model.apply(torch.from_numpy(stamps[:, None, None].astype(np.float32)))[:, 0].numpy()
    unit = sn / clean.max((1, 2, 3))  # flux units in which the sky noise is one
    ramp = 1 + 0.25 * np.linspace(-1, 1, STAMP)[:, None] * rng.uniform(-1, 1, (n, 1, 1, 1))
    clean, truth = clean * unit[:, None, None, None], stamps * unit[:, None, None]
    sigma = np.sqrt(ramp**2 + clean.clip(min=0) * rng.uniform(0, 0.1, (n, 1, 1, 1)))
    acf = ACF[None] if correlated else None
    noise = forward_model(Observation(blank, sigma, psf, mask, noise_acf=acf), 1)[1].noise
    added = noise.sample(
        lambda *shape: torch.from_numpy(rng.standard_normal((n, 1, *shape)).astype(np.float32))
    )
    data = np.where(mask, np.nan, clean + added[:, 0].numpy())
    image = truth[:, margin : margin + STAMP, margin : margin + STAMP].astype(np.float32)
    obs = Observation(data, sigma, psf, mask, noise_acf=acf)
    return MockSet(obs, image, sn, fwhm_pix, np.array([half_light_radius(image) for image in image]))


def sample_mocks(
    prior: Denoiser,
    mocks: MockSet,
    draws: int,
    mode: str,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Posterior]:
    """The posterior of all mocks, in batches as a run has them. ``progress(done, total)`` is called for each
    mock."""
    parts, n = [], len(mocks.image)
    size = sources_at_once(as_denoiser(prior).spec.device, draws)
    for first in range(0, n, size):
        rows = range(first, min(first + size, n))
        obs = _rows(mocks.obs, rows)
        parts.append(sample_posterior(prior, obs, draws=draws, mode=mode, seed=seed, source_ids=list(rows)))
        if progress is not None:
            for i in rows:
                progress(i + 1, n)
    return parts


def _rows(obs: Observation, rows: range) -> Observation:
    at = slice(rows.start, rows.stop)
    mask = None if obs.mask is None else obs.mask[at]
    return replace(obs, data=obs.data[at], sigma=obs.sigma[at], psf=obs.psf[at], mask=mask)
