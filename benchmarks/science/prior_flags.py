"""Sources that the prior was not trained for, through sampler and morphology: are they flagged, or
hallucinated?

    python benchmarks/science/prior_flags.py --library small.train/library-held-out.npz [--model DIR]
        [--out DIR]

Each case of ``prior_limits.py`` is seen on 64 pixels with a Gaussian PSF of 3.5 pixels and a peak
signal-to-noise ratio of 30 (2 for the faint ones), sampled in mode 'fast' and measured. Printed: the share
of sources with each run flag, the median chi2 per pixel, the flux of the posterior mean over the true flux
in the stamp, and the rms of (mean - truth) over the peak. One JSON line goes to DIR/prior_flags.jsonl.
"""

from __future__ import annotations

import numpy as np
import torch
from prior_limits import record, start
from scipy.ndimage import gaussian_filter, label

from galbatch.forward import forward_model
from galbatch.morphology import measure_posterior, summarise
from galbatch.pipeline.measurement import band_flags
from galbatch.sampler import sample_posterior
from galbatch.types import Flag, Observation

SIDE, FWHM_PIX, SN = 64, 3.5, 30.0


def observe(stamps: np.ndarray, sn: float, prior, seed: int) -> tuple[Observation, np.ndarray]:
    """Observation of stamps (n, 1, 72, 72) at a peak S/N, unit noise, and the truth (n, 64, 64) in its
    unit."""
    n, margin = len(stamps), int(prior.margin_pix)
    axis = np.arange(25) - 12
    psf = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / (FWHM_PIX / 2.3548) ** 2)
    psf = np.repeat((psf / psf.sum())[None, None], n, axis=0).astype(np.float32)
    blank = np.zeros((n, 1, SIDE, SIDE), np.float32)
    model = forward_model(Observation(blank, blank + 1, psf), 1, margin, 8, prior.target_fwhm_pix)[1]
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


def main() -> None:
    out, prior, sets = start(default_n=16)
    sets = {name: s for name, s in sets.items() if s.shape[-1] == 72 and "flux scale" not in name}
    sets["peak S/N of 2"] = sets["as in training, 72 px"]
    rows = {}
    for name, stamps in sets.items():
        rows[name] = run_case(prior, stamps.numpy(), 2.0 if "S/N" in name else SN)
        print(f"{name:32s} " + "  ".join(f"{k} {v}" for k, v in rows[name].items()), flush=True)
    record(out / "prior_flags.jsonl", prior, rows)


if __name__ == "__main__":
    main()
