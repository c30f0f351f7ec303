"""From a checkpoint to a model folder: averaged weights, measured spectra and response, the card; of a joint
training the folder that it started from, its single-band files as they were, with ``joint.safetensors``."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from galbatch.prior.card import Card, load_state, save_state
from galbatch.prior.folder import CARD, JOINT, file_hash, load_weights, save_model
from galbatch.prior.network import Denoiser, is_joint
from galbatch.training.cubes import CubeLibrary, CubeSource
from galbatch.training.evaluate import fit_sigma_map, response_table
from galbatch.training.fit import LIBRARIES, FitConfig, starting_model
from galbatch.training.held_out import HeldOutLoss, JointLoss
from galbatch.training.library import Library
from galbatch.training.spectra import RadialBins, band_correlation, prior_spectrum, residual_spectrum
from galbatch.training.stamps import StampSource

N_SIGMAS = 18  # noise levels of a residual spectrum


def averaged_model(config: FitConfig, checkpoint: Path, width: float) -> tuple[Denoiser, dict]:
    """The network of a checkpoint with the weights of one average, and its meta data. What was not trained
    has the weights that training started from."""
    tensors, meta = load_state(checkpoint)
    prefix = f"ema{width}."
    trained = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    model = Denoiser(config.network, joint=bool(config.training.bands))
    before = load_weights(*starting_model(config)).state_dict() if config.training.bands else {}
    model.load_state_dict(before | trained, strict=False)
    return model.eval().requires_grad_(False), meta


def measure_card(model: Denoiser, stamps: Tensor, target_fwhm_pix: float, name: str) -> dict:
    """The measured part of the card of a network, from held-out stamps (n, 1, 72, 72)."""
    bins = RadialBins(stamps.shape[-1])
    spectrum, max_sd = prior_spectrum(stamps, bins)
    sigmas = np.exp(np.linspace(np.log(0.003), np.log(max(6.0, 1.5 * max_sd)), N_SIGMAS))
    residual = residual_spectrum(model, stamps, sigmas, bins)
    return {
        "name": name,
        "target_fwhm_pix": target_fwhm_pix,
        "sigma_data": model.sigma_data,
        "spectrum": spectrum,
        "residual_spectrum": residual,
        "max_sd": max_sd,
    }


def finish(config: FitConfig, folder: Path, out: Path, n_stamps: int = 512) -> Card:
    """Write the model folder ``out`` from the training folder ``folder``; returns its card, measured on
    ``n_stamps`` held-out stamps. Of the averages that with the least held-out loss is taken."""
    folder, checkpoint = Path(folder), Path(folder) / "checkpoint.safetensors"
    source = StampSource(Library.load(folder / LIBRARIES[1]), config.stamps)
    stamps = source.draw(n_stamps, 72, (77,))
    width, losses = best_average(config, checkpoint, HeldOutLoss(stamps[:96]))
    model, meta = averaged_model(config, checkpoint, width)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    values = measure_card(model, stamps, config.stamps.target_fwhm_pix, config.name)
    response = response_table(model, stamps[: n_stamps // 2])
    values |= {
        "network": config.network.to_dict(),
        "multiple_of": config.network.multiple_of,
        "margin_pix": config.stamps.margin_pix,
        "sigma_map": fit_sigma_map(response),
        "metrics": {"response": response, "averages": losses},
        "training": describe_training(config, meta, width),
        "data": describe_data(config, folder),
        "limits": config.card.get("limits", []),
    }
    return save_model(out, model, values)


def best_average(
    config: FitConfig, checkpoint: Path, loss: HeldOutLoss | JointLoss
) -> tuple[float, dict[str, float]]:
    """The average with the least mean log held-out loss, and that loss of each."""
    losses = {}
    for width in config.training.ema:
        model, _ = averaged_model(config, checkpoint, width)
        by_sigma = loss(model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        losses[str(width)] = float(np.mean(np.log(list(by_sigma.values()))))
    return float(min(losses, key=lambda width: losses[width])), losses


def describe_training(config: FitConfig, meta: dict, width: float) -> dict:
    """What the card says of the training."""
    t = config.training
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
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
        "loss": "EDM, in units of its running mean at the noise level and for the light of the image",
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


ALONE = "Bands are modelled one by one: correlations between bands are not part of the prior."
N_K = 8
COUNTS = (2, 4, 7)


def finish_joint(config: FitConfig, folder: Path, out: Path, n_stamps: int = 512) -> Card:
    """As ``finish``; ``n_stamps`` galaxies are for the correlation between bands, a quarter of them for the
    losses. The card's metrics have the losses of the average beside those of the same network, band by
    band."""
    folder, out, checkpoint = Path(folder), Path(out), Path(folder) / "checkpoint.safetensors"
    source = CubeSource(CubeLibrary.load(folder / LIBRARIES[1]), config.stamps)
    most = max(config.training.bands)
    width, averages = best_average(config, checkpoint, JointLoss(source, n=max(4, n_stamps // 16)))
    model, meta = averaged_model(config, checkpoint, width)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    numbers = tuple(c for c in COUNTS if c <= most) or (most,)
    loss = JointLoss(source, numbers, n=max(4, n_stamps // 4), size=config.training.sizes[0])
    losses = {"together": loss(model), "alone": loss(model, alone=True)}
    start, card = starting_model(config)
    if start.resolve() != out.resolve():
        shutil.copytree(start, out, dirs_exist_ok=True)
    tensors = {name: t.half() for name, t in model.state_dict().items() if is_joint(name)}
    save_state(out / JOINT, tensors, {})
    limits = [line for line in card.limits if line != ALONE] + config.card.get("limits", [])
    card = replace(
        card,
        joint=most,
        joint_sha256=file_hash(out / JOINT),
        cross=measure_cross(source, most, n_stamps),
        training=card.training | {"joint": describe_training(config, meta, width)},
        data=card.data + [d | {"joint": True} for d in describe_data(config, folder)],
        metrics=card.metrics | {"joint": losses | {"averages": averages}},
        limits=limits,
    )
    card.save(out / CARD)
    return card


def measure_cross(source: CubeSource, most: int, n_stamps: int, size: int = 72) -> dict:
    """The table of ``galbatch.prior.card``, fitted to held-out galaxies: by k, a ceiling and a length in ln
    wavelength; one power for all."""
    from scipy.optimize import least_squares

    bins = RadialBins(size, N_K)
    stamps, bands = source.draw_bands(n_stamps, most, size, (55,))
    spread = float((bands.amax(dim=1) - bands.amin(dim=1)).quantile(0.8))
    apart, found = band_correlation(stamps, bands, np.linspace(0.02, spread, 8), bins)

    def misfit(p: np.ndarray) -> np.ndarray:
        ceiling, length, power = unpacked(p)
        return (ceiling * np.exp(-((apart[:, None] / length) ** power)) - found).ravel()

    def unpacked(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        return 1 / (1 + np.exp(-p[:N_K])), np.exp(p[N_K:-1]), float(2 / (1 + np.exp(-p[-1])))

    ceiling, length, power = unpacked(
        least_squares(misfit, np.concatenate([np.full(N_K, 3.0), np.full(N_K, 1.0), [0.0]])).x
    )
    columns = {"k": bins.centres(), "ceiling": ceiling, "length": length}
    table = {name: [round(float(v), 4) for v in values] for name, values in columns.items()}
    return table | {"power": round(power, 3)}
