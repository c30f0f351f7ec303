"""From a checkpoint to a model folder: averaged weights, measured spectra and response, the card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from galbatch.prior.card import load_state
from galbatch.prior.model import load_weights, save_model
from galbatch.prior.network import Denoiser
from galbatch.training.evaluate import fit_sigma_map, response_table
from galbatch.training.fit import LIBRARIES, FitConfig, starting_model
from galbatch.training.held_out import HeldOutLoss, JointLoss
from galbatch.training.library import Library
from galbatch.training.spectra import RadialBins, jacobian_trace, prior_spectrum, residual_spectrum
from galbatch.training.stamps import StampSource

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.prior.card import Card


RESPONSE_SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0)


def averaged_model(config: FitConfig, checkpoint: Path, width: float | None) -> tuple[Denoiser, dict]:
    """The network of a checkpoint with the weights of one average (``None``: the raw ones), and its meta
    data. What was not trained has the weights that training started from."""
    tensors, meta = load_state(checkpoint)
    prefix = "model." if width is None else f"ema{width}."
    trained = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    model = Denoiser(config.network, joint=bool(config.training.bands))
    before = load_weights(*starting_model(config)).state_dict() if config.training.bands else {}
    model.load_state_dict(before | trained, strict=False)
    return model.eval().requires_grad_(False), meta


def sigma_grid(low: float, high: float, n: int = 18) -> np.ndarray:
    """(n,) logarithmic noise levels."""
    return np.exp(np.linspace(np.log(low), np.log(high), n))


def measure_card(model: Denoiser, stamps: Tensor, target_fwhm_pix: float, name: str) -> dict:
    """The measured part of the card of a network, from held-out stamps (n, 1, 72, 72)."""
    bins = RadialBins(stamps.shape[-1])
    spectrum, max_sd = prior_spectrum(stamps, bins)
    residual = residual_spectrum(model, stamps, sigma_grid(0.003, max(6.0, 1.5 * max_sd)), bins)
    return {
        "name": name,
        "target_fwhm_pix": target_fwhm_pix,
        "sigma_data": model.sigma_data,
        "spectrum": spectrum,
        "residual_spectrum": residual,
        "max_sd": max_sd,
    }


def tweedie_check(model: Denoiser, stamps: Tensor) -> dict[str, list[float]]:
    """Mean square error and sigma^2 tr J / n_pix at ``RESPONSE_SIGMAS``, and the square root of their
    ratio."""
    pairs = [jacobian_trace(model, stamps, s, 31 + i) for i, s in enumerate(RESPONSE_SIGMAS)]
    return {
        "sigma": list(RESPONSE_SIGMAS),
        "mse": [p[0] for p in pairs],
        "sigma2_trace": [p[1] for p in pairs],
        "sd_ratio": [float(np.sqrt(max(p[1], 0) / p[0])) for p in pairs],
    }


def finish(
    config: FitConfig,
    folder: Path,
    out: Path,
    width: float | None = None,
    n_stamps: int = 512,
    extra: dict | None = None,
) -> Card:
    """Write the model folder ``out`` from the training folder ``folder``; returns its card.

    ``width``: which average to use; None takes the one with the least held-out loss. ``extra`` overrides
    entries.
    """
    folder, checkpoint = Path(folder), Path(folder) / "checkpoint.safetensors"
    source = StampSource(Library.load(folder / LIBRARIES[1]), config.stamps)
    stamps = source.draw(n_stamps, 72, (77,))
    width, losses = (
        (width, {}) if width is not None else best_average(config, checkpoint, HeldOutLoss(stamps[:96]))
    )
    model, meta = averaged_model(config, checkpoint, width)
    model = model.to(memory_format=torch.channels_last)
    values = measure_card(model, stamps, config.stamps.target_fwhm_pix, config.name)
    response = response_table(model, stamps[: n_stamps // 2])
    values |= {
        "network": config.network.to_dict(),
        "multiple_of": config.network.multiple_of,
        "margin_pix": config.stamps.margin_pix,
        "sigma_map": fit_sigma_map(response),
        "metrics": {
            "tweedie": tweedie_check(model, stamps[: n_stamps // 2]),
            "response": response,
            "averages": losses,
        },
        "training": describe_training(config, meta, width),
        "data": describe_data(config, folder),
        "limits": config.card.get("limits", []),
    }
    return save_model(out, model, values | (extra or {}))


def best_average(
    config: FitConfig, checkpoint: Path, loss: HeldOutLoss | JointLoss
) -> tuple[float, dict[str, float]]:
    """The average with the least mean log held-out loss, and that loss of each."""
    losses = {}
    for width in config.training.ema:
        model, _ = averaged_model(config, checkpoint, width)
        by_sigma = loss(model.to(memory_format=torch.channels_last))
        losses[str(width)] = float(np.mean(np.log(list(by_sigma.values()))))
    return float(min(losses, key=losses.get)), losses


def describe_training(config: FitConfig, meta: dict, width: float) -> dict:
    """What the card says of the training."""
    t = config.training
    device = (
        f"{torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    )
    before = {}
    if t.start:
        _, card = starting_model(config)
        before = {"started_from": {"name": card.name, "sha256": card.sha256, "training": card.training}}
    return before | {
        "steps": meta["step"],
        "hours": round(meta["elapsed_s"] / 3600, 3),
        "batch": t.batch,
        "device": device,
        "stamps_seen": meta["step"] * t.batch,
        "learning_rate": t.learning_rate,
        "ema_width": width,
        "seed": t.seed,
        "loss": "EDM, weighted by its running mean per noise level",
        "optimiser": "Muon and Adam" if t.muon else "Adam",
    }


def describe_data(config: FitConfig, folder: Path) -> list[dict]:
    """Origins with credit, licence, weight, and how many galaxies and images trained or were held out."""
    train, held = (Library.load(folder / name).counts() for name in LIBRARIES)
    nothing = {"images": 0, "galaxies": 0}
    return [
        {
            "origin": d.origin,
            "credit": d.credit,
            "licence": d.licence,
            "weight": d.weight,
            "trained": train.get(d.origin, nothing),
            "held_out": held.get(d.origin, nothing),
        }
        for d in config.data
    ]
