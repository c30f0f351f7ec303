"""From a checkpoint to a model folder: averaged weights, measured spectra and response, the card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from galbatch.prior.checkpoint import load_state
from galbatch.prior.fit import LIBRARIES, FitConfig
from galbatch.prior.library import Library
from galbatch.prior.model import save_model
from galbatch.prior.network import Denoiser, NetworkConfig
from galbatch.prior.spectra import RadialBins, jacobian_trace, prior_spectrum, residual_spectrum
from galbatch.prior.stamps import StampSource

RESPONSE_SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0)


def averaged_model(checkpoint, network: NetworkConfig, width: float | None) -> tuple[Denoiser, dict]:
    """The network of a checkpoint with the weights of one average (``None``: the raw ones), and its meta data."""
    tensors, meta = load_state(checkpoint)
    model = Denoiser(network)
    prefix = "model." if width is None else f"ema{width}."
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[prefix + name])
    return model.eval().requires_grad_(False), meta


def sigma_grid(low: float, high: float, n: int = 18) -> np.ndarray:
    """(n,) logarithmic noise levels."""
    return np.exp(np.linspace(np.log(low), np.log(high), n))


def measure_card(model: Denoiser, stamps, target_fwhm_pix: float, name: str) -> dict:
    """The measured part of the card of a network, from held-out stamps (n, 1, 72, 72)."""
    bins = RadialBins(stamps.shape[-1])
    spectrum, max_sd = prior_spectrum(stamps, bins)
    residual = residual_spectrum(model, stamps, sigma_grid(0.003, max(6.0, 1.5 * max_sd)), bins)
    return {"name": name, "target_fwhm_pix": target_fwhm_pix, "sigma_data": model.sigma_data, "spectrum": spectrum,
            "residual_spectrum": residual, "max_sd": max_sd}


def tweedie_check(model: Denoiser, stamps) -> dict[str, list[float]]:
    """Mean square error and sigma^2 tr J / n_pix at ``RESPONSE_SIGMAS``, and the square root of their ratio."""
    pairs = [jacobian_trace(model, stamps, s, 31 + i) for i, s in enumerate(RESPONSE_SIGMAS)]
    return {"sigma": list(RESPONSE_SIGMAS), "mse": [p[0] for p in pairs], "sigma2_trace": [p[1] for p in pairs],
            "sd_ratio": [float(np.sqrt(max(p[1], 0) / p[0])) for p in pairs]}


def finish(config: FitConfig, folder, out, width: float | None = None, n_stamps: int = 512, extra: dict | None = None):
    """Write the model folder ``out`` from the training folder ``folder``; returns its card."""
    folder = Path(folder)
    width = config.training.ema[0] if width is None else width
    model, meta = averaged_model(folder / "checkpoint.safetensors", config.network, width)
    model = model.to(memory_format=torch.channels_last)
    held = StampSource(Library.load(folder / LIBRARIES[1]), config.stamps)
    stamps = held.draw(n_stamps, 72, (77,))
    values = measure_card(model, stamps, config.stamps.target_fwhm_pix, config.name)
    values["metrics"] = {"tweedie": tweedie_check(model, stamps[:n_stamps // 4])}
    values |= {"network": config.network.to_dict(), "multiple_of": config.network.multiple_of,
               "margin_pix": config.stamps.margin_pix}
    values["training"] = {"steps": meta["step"], "hours": meta["elapsed_s"] / 3600, "ema_width": width,
                          "batch": config.training.batch}
    values["data"] = describe_data(config, folder)
    return save_model(out, model, values | (extra or {}))


def describe_data(config: FitConfig, folder: Path) -> list[dict]:
    """Origins with credit, licence, weight, and how many galaxies and images trained or were held out."""
    train, held = (Library.load(folder / name).counts() for name in LIBRARIES)
    nothing = {"images": 0, "galaxies": 0}
    return [{"origin": d.origin, "credit": d.credit, "licence": d.licence, "weight": d.weight,
             "trained": train.get(d.origin, nothing), "held_out": held.get(d.origin, nothing)} for d in config.data]
