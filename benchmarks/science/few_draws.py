"""Do the intervals of a catalogue hold the truth with few draws, and with two fine pixels to a detector
pixel?

    python benchmarks/science/few_draws.py --galaxies 80 [--oversample 2] [--mode default]

Galaxies of the series of ``galbatch validate``, half of them under correlated noise, 16 draws each of the
model small. The first k of the same draws are measured as a run of k draws would be. Printed, as means over
the calibrated quantities: the share of the truths within p16 to p84, within the intervals of the draws
widened for their number (where calibration does not reach), and within raw16 to raw84.
"""

import numpy as np
import torch

from galbatch.bench.timing import arguments
from galbatch.forward import forward_model
from galbatch.morphology import measure_posterior, summarise
from galbatch.morphology.calibration import CALIBRATED, calibrated, reached
from galbatch.prior import load_prior
from galbatch.sampler import sample_posterior
from galbatch.simulate.galaxies import simulate_galaxies
from galbatch.training.library import Library, SourceImage
from galbatch.training.stamps import StampConfig, StampSource
from galbatch.types import Observation
from galbatch.validate.calibrate import within
from galbatch.validate.mock import ACF, SEED, SN_RANGE, STAMP, mock_psf

DRAWS = (16, 8, 4, 3, 2)
FWHM_PIX = {1: (2.3, 3.0, 4.2, 6.0), 2: (2.3, 3.0, 4.2)}  # of the PSF, detector pixels


def observe(prior, galaxy, number: int, oversample: int, rng) -> tuple[Observation, np.ndarray]:
    """What a telescope sees of a galaxy (h, w), and its truth (H, W) at the target PSF."""
    margin, target = prior.spec.margin_pix, prior.spec.target_fwhm_pix
    config = StampConfig(target_fwhm_pix=target, margin_pix=margin)
    side = -(-(STAMP + 2 * margin) // 8) * 8
    library = Library([SourceImage(galaxy, f"mock-{number}", "mock")])
    stamp = StampSource(library, config).draw(1, side, (SEED, number), scaled=False).numpy()[:, None]
    psf = mock_psf(rng.choice(FWHM_PIX[oversample]), 41 if oversample == 1 else 31)[None, None]
    blank = np.zeros((1, 1, STAMP // oversample, STAMP // oversample), np.float32)
    mask, acf = rng.random(blank.shape) < 0.01, ACF[None] if number % 2 else None
    model = forward_model(Observation(blank, blank + 1, psf), oversample, margin, 8, target)[1]
    clean = model.apply(torch.from_numpy(stamp.astype(np.float32)))[:, 0].numpy()
    unit = np.exp(rng.uniform(*np.log(SN_RANGE))) / clean.max()
    sigma = np.sqrt(1 + unit * clean.clip(min=0) * rng.uniform(0, 0.1))
    noise = forward_model(Observation(blank, sigma, psf, mask, noise_acf=acf), oversample)[1].noise
    white = lambda *shape: torch.from_numpy(rng.standard_normal((1, 1, *shape)).astype(np.float32))  # noqa: E731
    data = np.where(mask, np.nan, unit * clean + noise.sample(white)[:, 0].numpy())
    truth = unit * stamp[0, 0, 0, margin : margin + STAMP, margin : margin + STAMP]
    return Observation(data, sigma, psf, mask, noise_acf=acf), truth.astype(np.float32)


def measured(prior, galaxies: int, oversample: int, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Statistics (n, 17) of 16 draws and of the truth, and those of the pixels (n,)."""
    rng, images = np.random.default_rng([SEED, 77, oversample]), simulate_galaxies(galaxies, SEED)[0]
    tables, stamps = [], []
    for i in range(galaxies):
        obs, truth = observe(prior, images[i, rng.integers(0, 2)], i, oversample, rng)
        draws = sample_posterior(
            prior, obs, draws=max(DRAWS), mode=mode, oversample=oversample, source_ids=[i]
        ).samples[:, :, 0]
        planes = np.nan_to_num(obs.data[:, 0]), obs.sigma[:, 0], obs.mask[:, 0]
        table, seen = measure_posterior(
            np.concatenate([draws, truth[None, None]], axis=1),
            *planes, None, np.ascontiguousarray(obs.psf[:, 0]), obs.pixel_scale_arcsec, oversample,
            prior.spec.target_fwhm_pix, mean=draws.mean(1),
        )  # fmt: skip
        tables.append(table), stamps.append(seen)
        print(f"\r{i + 1} of {galaxies}", end="", flush=True)
    return np.concatenate(tables), np.concatenate(stamps)


def main() -> None:
    options = arguments(__doc__, galaxies=80, oversample=1, mode="default")
    prior = load_prior("small")
    table, seen = measured(prior, options.galaxies, options.oversample, options.mode)
    calibration, truth = prior.spec.calibration[options.mode], table[:, -1]
    scale = prior.spec.target_fwhm_pix * 0.03 / options.oversample
    print(f"\n{'draws':>5} {'sources':>8} {'p16-84':>8} {'widened':>8} {'raw16-84':>9}  (per cent)")
    for k in DRAWS:
        found = summarise(table[:, :k], seen)
        columns = calibrated(found, calibration, scale, options.oversample)
        known = reached(found, calibration, scale, options.oversample)
        cases = (columns, ("p16", "p84")), (found, ("p16", "p84")), (found, ("raw16", "raw84"))
        shares = [
            np.nanmean([within(of, q, ends, truth[q])[known] for q in CALIBRATED]) for of, ends in cases
        ]
        print(f"{k:>5} {known.sum():>8} " + " ".join(f"{100 * s:>8.1f}" for s in shares))


if __name__ == "__main__":
    main()
