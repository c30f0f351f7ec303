"""From the checkpoint of a joint training to a model folder: the one that it started from, its single-band
files as they were, with ``joint.safetensors`` and what the card says of bands together."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from galbatch.prior.card import Card, save_state
from galbatch.prior.model import CARD, JOINT, file_hash
from galbatch.prior.network import is_joint
from galbatch.training.cubes import CubeLibrary, CubeSource
from galbatch.training.finish import averaged_model, best_average, describe_data, describe_training
from galbatch.training.fit import LIBRARIES, FitConfig, starting_model
from galbatch.training.held_out import JointLoss
from galbatch.training.spectra import RadialBins, band_correlation

ALONE = "Bands are modelled one by one: correlations between bands are not part of the prior."

N_K = 8
COUNTS = (2, 4, 7)


def finish_joint(config: FitConfig, folder: Path, out: Path, n_stamps: int = 512) -> Card:
    """Write the model folder ``out`` from the training folder ``folder``; returns its card.

    ``n_stamps``: held-out galaxies for the correlation between bands, a quarter of them for the losses. Of
    the averages that with the least held-out loss is taken; the card's metrics have its losses beside those
    of the same network, band by band.
    """
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
