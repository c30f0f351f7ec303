"""How good a prior is, on galaxies that it has never seen: numbers for the card, and pictures to look at."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from galbatch.errors import InputError
from galbatch.prior.integrate import log_levels, plain_steps, sde_dpmpp_2m
from galbatch.training.held_out import look_alikes, without
from galbatch.training.library import Library
from galbatch.training.spectra import residuals, wavelet_denoiser, wiener_denoiser
from galbatch.training.stamps import StampConfig, StampSource, contact_sheet

if TYPE_CHECKING:
    from galbatch.prior.model import Prior
    from galbatch.prior.network import Denoiser


SIGMAS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SOME_SIGMAS = (0.02, 0.1, 0.5)
FEATURES = ("gini", "m20", "concentration", "asymmetry", "smoothness", "r_half", "ellipticity")


def evaluate_prior(
    prior: Prior,
    library: Path,
    out: Path,
    train_library: Path | None = None,
    n_stamps: int = 256,
    n_samples: int = 64,
    measure: Callable | None = None,
) -> dict:
    """All checks; writes ``evaluation.json`` and pictures to ``out`` and returns the numbers.

    ``measure(images, pixel_scale_arcsec)`` is the morphology to compare samples with; None leaves that out.
    With ``train_library``, held-out images that look like a training image are left out first.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    held = Library.load(library)
    result: dict[str, Any] = {}
    if train_library is not None:
        distance, alike = look_alikes(held, Library.load(train_library))
        nearest = {"least": float(distance.min()), "median": float(np.median(distance))}
        result["look_alikes"] = {"left_out": int(alike.sum()), "of": len(held), **nearest}
        if alike.all():
            raise InputError(
                f"{library}: all {len(held)} images look like training images of {train_library}: nothing "
                "is held out; give the library of galaxies that were not trained on."
            )
        held = without(held, alike)
    source = StampSource(held, StampConfig(target_fwhm_pix=prior.spec.target_fwhm_pix))
    stamps = source.draw(n_stamps, 72, (1001,))
    result |= {
        "denoising": denoising_table(prior, stamps),
        "by_origin": by_origin(prior, held, source.config),
        "bias": bias_table(prior.denoise, stamps),
        "bias_by_brightness": brightness_bias(prior.denoise, stamps),
        "response": response_table(prior.denoise, stamps),
    }
    if n_samples:
        samples = sample_prior(prior, n_samples, 72, seed=5)
        contact_sheet(samples, out / "samples.png")
        contact_sheet(stamps[:n_samples], out / "held_out.png")
        if measure is not None:
            galaxies = source.draw(max(n_samples, 64), 72, (1003,))
            result["morphology"] = morphology_distance(samples, galaxies, measure)
        if train_library is not None:
            train = StampSource(Library.load(train_library), source.config)
            result["nearest_neighbour"] = nearest_neighbour(
                samples, source.draw(n_samples, 72, (1004,)), train
            )
    (out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def denoising_table(prior: Prior, stamps: Tensor) -> list[dict[str, float]]:
    """Mean square error in units of sigma^2: the network, a Wiener filter with the card's spectrum,
    wavelets."""
    wiener = wiener_denoiser(prior.card.spectrum, stamps.shape[-1], stamps.mean(dim=0, keepdim=True))
    ways = {"network": prior.denoise, "wiener": wiener, "wavelet": wavelet_denoiser()}
    rows: list[dict[str, float]] = []
    for i, sigma in enumerate(SIGMAS):
        errors = {name: residuals(way, stamps, sigma, 40 + i) for name, way in ways.items() if way}
        squares = {name: float(error.square().mean()) / sigma**2 for name, error in errors.items()}
        rows.append({"sigma": sigma} | squares)
    return rows


def bias_table(
    denoise: Callable[..., Any], stamps: Tensor, sigmas: tuple[float, ...] = SIGMAS
) -> list[dict[str, float]]:
    """By sigma: slope of x0 on D over pixels, and of flux on flux (1 for a calibrated denoiser, as E[x0 |
    D] = D); and the mean of the flux error in units of its own scatter."""
    rows = []
    for i, sigma in enumerate(sigmas):
        d = stamps - residuals(denoise, stamps, sigma, 60 + i)
        flux, flux_d = stamps.sum(dim=(1, 2, 3)), d.sum(dim=(1, 2, 3))
        error = flux - flux_d
        rows.append(
            {
                "sigma": sigma,
                "slope_pixel": _slope(d - stamps.mean(0), stamps - stamps.mean(0)),
                "slope_flux": _slope(flux_d - flux_d.mean(), flux - flux.mean()),
                "flux_bias_in_scatter": float(error.mean() / error.std()),
                "flux_bias_fraction": float(error.mean() / flux.mean()),
            }
        )
    return rows


def by_origin(prior: Prior, held: Library, config: StampConfig) -> dict:
    """Origin -> mean square error in units of sigma^2 at ``SOME_SIGMAS``, of stamps of its held-out images
    alone."""
    rows = {}
    for origin in sorted(set(held.origins)):
        stamps = StampSource(without(held, np.array(held.origins) != origin), config).draw(48, 72, (1002,))
        rows[origin] = {
            str(s): float(residuals(prior.denoise, stamps, s, 50 + i).square().mean()) / s**2
            for i, s in enumerate(SOME_SIGMAS)
        }
    return rows


def brightness_bias(
    denoise: Callable[..., Any], stamps: Tensor, sigmas: tuple[float, ...] = SOME_SIGMAS
) -> list[dict[str, float]]:
    """By sigma and by bins of D: mean of x0 - D over the pixels of a bin, in units of sigma, and the rms
    there.

    An exact denoiser has mean 0 in every bin of its own output, as E[x0 | D] = D.
    """
    rows = []
    for i, sigma in enumerate(sigmas):
        error = residuals(denoise, stamps, sigma, 70 + i)
        d = (stamps - error).flatten()
        edges = torch.tensor([-np.inf, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf]) * sigma
        for low, high in itertools.pairwise(edges.tolist()):
            mine = error.flatten()[(d > low) & (d <= high)]
            if len(mine) >= 100:
                rows.append(
                    {
                        "sigma": sigma,
                        "above_in_sigma": max(low / sigma, -1e3),
                        "pixels": len(mine),
                        "mean_in_sigma": float(mine.mean()) / sigma,
                        "rms_in_sigma": float(mine.square().mean().sqrt()) / sigma,
                    }
                )
    return rows


def _slope(x: Tensor, y: Tensor) -> float:
    return float((x * y).sum() / (x * x).sum())


def response_table(
    denoise: Callable[..., Any] | Denoiser, stamps: Tensor, sigmas: tuple[float, ...] = SIGMAS
) -> list[dict[str, float]]:
    """By sigma: error of D(x; c sigma) over that of D(x; sigma) for c = 1 / 1.1 and 1.1, and the c of least
    error from a parabola in ln c. An exact denoiser has it at one."""
    rows, step = [], np.log(1.1)

    def error(c: float, sigma: float, seed: int) -> float:
        return float(residuals(lambda x, s: denoise(x, c * s), stamps, sigma, seed).square().mean())

    for i, sigma in enumerate(sigmas):
        low, mid, high = (error(c, sigma, 80 + i) for c in (1 / 1.1, 1.0, 1.1))
        curvature = low - 2 * mid + high
        best = 0.5 * step * (low - high) / curvature if curvature > 0 else 0.0
        rows.append(
            {"sigma": sigma, "low": low / mid, "high": high / mid, "best_factor": float(np.exp(best))}
        )
    return rows


def fit_sigma_map(rows: list[dict[str, float]]) -> tuple[float, float]:
    """(a, b) of ln c = a + b ln(sigma) through the best factors of ``response_table``, each at most 0.2 off
    zero."""
    x = np.log([row["sigma"] for row in rows])
    y = np.clip(np.log([row["best_factor"] for row in rows]), -0.2, 0.2)
    b, a = np.polyfit(x, y, 1)
    return float(a), float(b)


@torch.inference_mode()
def sample_prior(prior: Any, n: int, size: int, seed: int) -> Tensor:
    """(n, 1, size, size) unconditional samples: SDE-DPM-Solver++(2M), log-uniform noise levels."""
    generator = torch.Generator().manual_seed(seed)
    levels = log_levels(torch.tensor([20.0]), torch.tensor([0.004]), 41)

    def normal() -> Tensor:
        return torch.randn(n, 1, 1, size, size, generator=generator)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return prior.denoise(x[:, 0], sigma.expand(n))[:, None]

    return sde_dpmpp_2m(denoise, 20.0 * normal(), plain_steps(levels), normal, 1.0, 1.0)[:, 0]


def morphology_distance(samples: Tensor, held: Tensor, measure: Callable[..., Any]) -> dict:
    """Kolmogorov-Smirnov distance and p-value by quantity between unconditional samples and held-out
    stamps."""
    from scipy.stats import ks_2samp

    tables = [
        measure(images[:, 0].numpy(), 1.0, sky_sigma=0.0, groups=("gini", "cas"))
        for images in (samples, held)
    ]
    out = {}
    for name in (n for n in FEATURES if n in tables[0].dtype.names):
        a, b = (t[name][np.isfinite(t[name]) & (t["flux_njy"] > 0)] for t in tables)
        test = ks_2samp(a, b)
        out[name] = {
            "ks": float(test.statistic),
            "p": float(test.pvalue),
            "median_samples": float(np.median(a)),
            "median_held_out": float(np.median(b)),
            "n": [len(a), len(b)],
        }
    return out


def nearest_neighbour(
    samples: Tensor, held: Tensor, train: StampSource, n_train: int = 2048
) -> dict[str, float]:
    """Distance to the nearest of ``n_train`` training stamps, images of unit norm: samples against held-out
    stamps.

    A network that memorised its training images would make samples nearer to them than held-out galaxies are.
    """
    bank = torch.cat([train.draw(256, samples.shape[-1], (2000, i)) for i in range(n_train // 256)])
    bank = torch.nn.functional.normalize(bank.flatten(1), dim=1)
    near = [
        (2 - 2 * (torch.nn.functional.normalize(x.flatten(1), dim=1) @ bank.T).amax(dim=1))
        .clamp_min(0)
        .sqrt()
        for x in (samples, held)
    ]
    return {
        "median_samples": float(near[0].median()),
        "median_held_out": float(near[1].median()),
        "least_samples": float(near[0].min()),
        "least_held_out": float(near[1].min()),
        "n_train": n_train,
    }
