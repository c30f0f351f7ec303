"""A prior outside of what it was trained on: does it get worse, and does it know?

    python benchmarks/science/prior_limits.py --library small.train/library-held-out.npz [--model DIR]
        [--out DIR]

Held-out galaxies are seen under laws that training never used: larger than the stamp, stars only, far off
centre, a flux scale that is wrong by a factor, stamps of 136 pixels; and images that are no galaxies at
all. For each, at two noise levels: the mean square error in units of sigma^2, the part of it that a Wiener
filter leaves (below 1: the network is the better one), and the error that the network itself expects (the
square root of sigma^2 tr J over the error: 1 when it knows its error, below 1 when it is overconfident).
One JSON line goes to DIR/prior_limits.jsonl.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from galbatch.bench.timing import environment, keep
from galbatch.prior import load_prior
from galbatch.training.library import Library
from galbatch.training.spectra import jacobian_trace, residuals, wiener_denoiser
from galbatch.training.stamps import StampConfig, StampSource, contact_sheet

SIGMAS = (0.05, 0.3)


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


def start(default_n: int) -> tuple[Path, object, dict[str, Tensor]]:
    """(output folder, prior, cases) from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--n", type=int, default=default_n)
    parser.add_argument("--out", type=Path, default=Path("."))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    prior = load_prior(chosen.model, device="cpu", precision="float32")  # small finite differences
    config = StampConfig(target_fwhm_pix=prior.target_fwhm_pix)
    return chosen.out, prior, cases(Library.load(chosen.library), config, chosen.n)


def record(path: Path, prior, rows: dict) -> None:
    """Append the cases' rows as one JSON line."""
    keep({"model": prior.card.sha256[:12], **rows} | environment("cpu"), path)


def main() -> None:
    out, prior, sets = start(default_n=32)
    rows, shown = {}, []
    for name, stamps in sets.items():
        wiener = wiener_denoiser(prior.spectrum, stamps.shape[-1], stamps.mean(dim=0, keepdim=True))
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
    record(out / "prior_limits.jsonl", prior, rows)


if __name__ == "__main__":
    main()
