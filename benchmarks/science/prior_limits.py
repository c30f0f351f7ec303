"""A prior outside of what it was trained on: does it get worse, and does it know?

    python benchmarks/science/prior_limits.py --library small.train/library-held-out.npz [--model DIR]
        [--out DIR] [--n N] [--flags]

Held-out galaxies are seen under laws that training never used: larger than the stamp, stars only, far off
centre, a flux scale that is wrong by a factor, stamps of 136 pixels; and images that are no galaxies at
all. For each, at two noise levels: the mean square error in units of sigma^2, the part of it that a Wiener
filter leaves (below 1: the network is the better one), and the error that the network itself expects (the
square root of sigma^2 tr J over the error: 1 when it knows its error, below 1 when it is overconfident).
With ``--flags`` each case is seen instead on 64 pixels with a Gaussian PSF of 3.5 pixels and a peak
signal-to-noise ratio of 30 (2 for the faint ones), sampled in mode 'fast' and measured: flagged, or
hallucinated? Printed: the share of sources with each run flag, the median chi2 per pixel, the flux of the
posterior mean over the true flux in the stamp, and the rms of (mean - truth) over the peak. One JSON line
goes to DIR/prior_limits.jsonl or DIR/prior_flags.jsonl.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, label
from torch import Tensor

from galbatch.bench.timing import environment, keep
from galbatch.forward import forward_model
from galbatch.morphology import measure_posterior, summarise
from galbatch.pipeline.measurement import band_flags
from galbatch.prior import load_prior
from galbatch.sampler import sample_posterior
from galbatch.training.library import Library
from galbatch.training.spectra import residuals, wiener_denoiser
from galbatch.training.stamps import StampConfig, StampSource, contact_sheet
from galbatch.types import Flag, Observation

SIGMAS = (0.05, 0.3)


def jacobian_trace(
    denoise, stamps, sigma: float, seed: int, step: float = 0.02, batch: int = 32
) -> tuple[float, float]:
    """(mean square error, sigma^2 tr J / n_pix) per pixel: equal for an exact denoiser (Tweedie).

    The trace is probed with random signs and a forward difference of rms ``step`` sigma.
    """
    generator = torch.Generator().manual_seed(seed)
    mse, trace = [], []
    with torch.inference_mode():
        for x in stamps.split(batch):
            level = torch.full((len(x),), sigma)
            noisy = x + sigma * torch.randn(x.shape, generator=generator)
            sign = torch.randint(0, 2, x.shape, generator=generator).float() * 2 - 1
            base = denoise(noisy, level)
            moved = denoise(noisy + step * sigma * sign, level)
            mse.append((x - base).square().mean(dim=(1, 2, 3)))
            trace.append(sigma * (sign * (moved - base)).mean(dim=(1, 2, 3)) / step)
    return float(torch.cat(mse).mean()), float(torch.cat(trace).mean())


def not_galaxies(n: int, size: int, rng: np.random.Generator) -> Tensor:
    """Stripes, letters of straight strokes and white noise, of unit peak."""
    y, x = np.indices((size, size))
    images = []
    for i in range(n):
        if i % 3 == 0:
            image = 0.5 + 0.5 * np.sin((x * np.cos(i) + y * np.sin(i)) * rng.uniform(0.3, 1.5))
        elif i % 3 == 1:
            image = np.zeros((size, size))
            for _ in range(4):
                a, b = rng.integers(8, size - 12, 2)
                image[a : a + 3, b // 2 : b // 2 + size // 3] = 1
                image[b // 2 : b // 2 + size // 3, a : a + 3] = 1
        else:
            image = rng.random((size, size))
        images.append(image)
    return torch.from_numpy(np.stack(images)[:, None].astype(np.float32))


def cases(library: Library, config: StampConfig, n: int) -> dict[str, Tensor]:
    """Name -> stamps (n, 1, H, W) in units of the flux scale."""

    def law(**changes):
        return StampSource(library, StampConfig(**{**vars(config), **changes}))

    usual = law().draw(n, 72, (41,))
    far = {"offset_pix": 0.0, "far_fraction": 1.0, "companion_fraction": 0.0}
    return {
        "as in training, 72 px": usual,
        "as in training, 136 px": law().draw(n, 136, (42,)),
        "half-light radius 14 to 22 px": law(radius_pix=(14.0, 22.0), large_fraction=0.0).draw(n, 72, (43,)),
        "half-light radius 0.5 to 1 px": law(radius_pix=(0.5, 1.0), large_fraction=0.0).draw(n, 72, (44,)),
        "stars alone": law(point_fraction=1.0, companion_fraction=0.0).draw(n, 72, (45,)),
        "centre up to 24 px off": law(**far, far_offset_pix=24.0).draw(n, 72, (46,)),
        "flux scale 3 times too large": usual / 3,
        "flux scale 3 times too small": usual * 3,
        "flux scale 10 times too small": usual * 10,
        "no galaxies": not_galaxies(n, 72, np.random.default_rng(0)),
    }


SIDE, FWHM_PIX, SN = 64, 3.5, 30.0


def observe(stamps: np.ndarray, sn: float, prior, seed: int) -> tuple[Observation, np.ndarray]:
    """Observation of stamps (n, 1, 72, 72) at a peak S/N, unit noise, and the truth (n, 64, 64) in its
    unit."""
    n, margin = len(stamps), int(prior.spec.margin_pix)
    axis = np.arange(25) - 12
    psf = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / (FWHM_PIX / 2.3548) ** 2)
    psf = np.repeat((psf / psf.sum())[None, None], n, axis=0).astype(np.float32)
    blank = np.zeros((n, 1, SIDE, SIDE), np.float32)
    model = forward_model(Observation(blank, blank + 1, psf), 1, margin, 8, prior.spec.target_fwhm_pix)[1]
    clean = model.apply(torch.from_numpy(stamps[:, None].astype(np.float32)))[:, 0].numpy()
    unit = (sn / np.maximum(clean.max((1, 2, 3)), 1e-9))[:, None, None, None]
    noise = np.random.default_rng(seed).standard_normal(clean.shape)
    truth = (stamps * unit)[:, 0, margin : margin + SIDE, margin : margin + SIDE]
    return Observation((clean * unit + noise).astype(np.float32), blank + 1, psf), truth


def segments(data: np.ndarray) -> np.ndarray:
    """(n, h, w) int32: 1 in the region above two sigma of the smoothed image nearest to the centre, else
    0."""
    out = np.zeros(data.shape, np.int32)
    y, x = np.indices(data.shape[1:]) - (SIDE - 1) / 2
    for i, image in enumerate(data):
        found, count = label(gaussian_filter(image, 1.5) > 2 / (2 * 1.5 * np.sqrt(np.pi)))
        if count:
            nearest = np.where(found > 0, np.hypot(y, x), np.inf).argmin()
            out[i] = found == found.flat[nearest]
    return out


def run_case(prior, stamps: np.ndarray, sn: float) -> dict:
    """Flags, chi2 and errors of one case."""
    obs, truth = observe(stamps, sn, prior, 3)
    posterior = sample_posterior(prior, obs, draws=6, mode="fast", seed=1)
    seg = segments(obs.data[:, 0])
    draws, classical = measure_posterior(
        posterior.samples[:, :, 0], obs.data[:, 0], obs.sigma[:, 0], np.zeros(truth.shape, bool), seg,
        obs.psf[:, 0], 1.0, 1, posterior.target_fwhm_pix,
    )  # fmt: skip
    flags = posterior.flags | band_flags(summarise(draws, classical), SIDE, posterior.target_fwhm_pix)
    flags |= np.where((seg == 0).all((1, 2)), int(Flag.NO_SEG), 0)
    mean = posterior.mean[:, 0]
    edge = (mean.shape[-1] - SIDE) // 2
    mean = mean[:, edge : edge + SIDE, edge : edge + SIDE]
    quality = ~np.isin([f.name for f in Flag], ["SERSIC_FAILED", "SERSIC_BOUND"])
    some = sum(int(f) for f, q in zip(Flag, quality, strict=True) if q)
    return {
        "flagged": float(np.mean((flags & some) != 0)),
        "flags": {
            f.name: round(float(np.mean((flags & int(f)) != 0)), 2) for f in Flag if np.any(flags & int(f))
        },
        "chi2": float(np.median(posterior.chi2)),
        "flux_ratio": float(np.median(mean.sum((1, 2)) / truth.sum((1, 2)))),
        "rms_over_peak": float(
            np.median(np.sqrt(np.mean((mean - truth) ** 2, axis=(1, 2))) / truth.max((1, 2)))
        ),
    }


def flagged(prior, sets: dict[str, Tensor], out: Path) -> None:
    """The table of ``--flags``."""
    sets = {name: s for name, s in sets.items() if s.shape[-1] == 72 and "flux scale" not in name}
    sets["peak S/N of 2"] = sets["as in training, 72 px"]
    rows = {}
    for name, stamps in sets.items():
        rows[name] = run_case(prior, stamps.numpy(), 2.0 if "S/N" in name else SN)
        print(f"{name:32s} " + "  ".join(f"{k} {v}" for k, v in rows[name].items()), flush=True)
    keep({"model": prior.card.sha256[:12], **rows} | environment("cpu"), out / "prior_flags.jsonl")


def limits(prior, sets: dict[str, Tensor], out: Path) -> None:
    """Errors of the network alone, and a picture of them."""
    rows, shown = {}, []
    for name, stamps in sets.items():
        wiener = wiener_denoiser(prior.card.spectrum, stamps.shape[-1], stamps.mean(dim=0, keepdim=True))
        rows[name] = []
        for i, sigma in enumerate(SIGMAS):
            error, expected = jacobian_trace(prior.denoise, stamps, sigma, 50 + i)
            linear = float(residuals(wiener, stamps, sigma, 60 + i).square().mean())
            rows[name].append([error / sigma**2, error / linear, float(np.sqrt(max(expected, 0) / error))])
        cells = "   ".join("{:.4f} {:.2f} {:.2f}".format(*row) for row in rows[name])
        print(f"{name:32s} {cells}", flush=True)
        if stamps.shape[-1] == 72:
            left = residuals(prior.denoise, stamps[:12], SIGMAS[1], 61)
            shown += [stamps[:12], stamps[:12] - left]
    contact_sheet(torch.cat(shown).clamp_min(0), out / "prior_limits.png", columns=12)
    keep({"model": prior.card.sha256[:12], **rows} | environment("cpu"), out / "prior_limits.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--flags", action="store_true")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    prior = load_prior(chosen.model, device="cpu", precision="float32")  # small finite differences
    config = StampConfig(target_fwhm_pix=prior.spec.target_fwhm_pix)
    sets = cases(Library.load(chosen.library), config, chosen.n)
    (flagged if chosen.flags else limits)(prior, sets, chosen.out)


if __name__ == "__main__":
    main()
