"""Posterior draws of a survey's own galaxies as training stamps: a round of expectation-maximisation.

The draws are the expectation step; training on them the maximisation (Rozet et al. 2024, arXiv:2405.13712).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galbatch.errors import InputError
from galbatch.prior.card import Card
from galbatch.prior.folder import save_model
from galbatch.prior.network import Denoiser, NetworkConfig
from galbatch.training.evaluate import fit_sigma_map, response_table
from galbatch.training.finish import measure_card
from galbatch.training.fit import run
from galbatch.training.held_out import HeldOutLoss
from galbatch.training.library import is_held_out
from galbatch.training.plan import TrainConfig
from galbatch.training.stamps import StampConfig, StampSource, seeded
from galbatch.training.trainer import Trainer, process_group

HELD_OUT = 0.25  # of the galaxies: they judge, and never train
LEAST = 8  # galaxies on either side
MEASURED = 256  # held-out stamps that the card is measured on


class DrawSource(StampSource):
    """``draw(n, size, seed)``: draws of galaxies chosen at random, turned and mirrored, in units of their
    flux scale, whose law is that of ``StampSource``."""

    def __init__(self, draws: Sequence[np.ndarray], config: StampConfig) -> None:
        """``draws``: (k, h, w) of each galaxy and band, any unit, at the target PSF."""
        self.draws, self.config = draws, config
        self.side = min(min(d.shape[-2:]) for d in draws)
        self.to("cpu")

    def to(self, device: str | torch.device) -> None:
        self.device = torch.device(device)

    def draw(self, n: int, size: int, seed: tuple[int, ...], scaled: bool = True) -> Tensor:
        rng, generator = seeded(seed)
        out = np.empty((n, 1, size, size), np.float32)
        for i, galaxy in enumerate(rng.integers(0, len(self.draws), n)):
            image = self.draws[galaxy][rng.integers(len(self.draws[galaxy]))]
            y, x = ((side - size) // 2 for side in image.shape)
            image = np.rot90(image[y : y + size, x : x + size], int(rng.integers(4)))
            out[i, 0] = (image[::-1] if rng.random() < 0.5 else image) / image.max()
        stamps = self._there(out)
        return stamps / self._scale(stamps, generator) if scaled else stamps


def split(names: Sequence[str], share: float = HELD_OUT) -> np.ndarray:
    """(n,) True for galaxies that judge and never train, by name. Raises ``InputError`` where too few are
    left."""
    held = np.array([is_held_out(f"adapt:{name}", share) for name in names], bool)
    judges, trained = (
        len({n for n, h in zip(names, held, strict=True) if h == side}) for side in (True, False)
    )
    if min(judges, trained) < LEAST:
        raise InputError(
            f"{judges + trained} galaxies can be used, {trained} to train on and {judges} to judge by: at "
            f"least {LEAST} of each are needed. Take a larger run, or accept worse grades (--quality)."
        )
    return held


def adapt(
    start: Denoiser,
    card: Card,
    draws: Sequence[np.ndarray],
    held: np.ndarray,
    folder: Path,
    steps: int,
    report: Callable[[dict], None] | None = None,
    stop_after: int | None = None,
) -> Trainer:
    """Go on training ``start`` on the draws (k, h, w) of galaxies that are not ``held`` (n,) bool; resumes in
    ``folder``."""
    stamps = StampConfig(target_fwhm_pix=card.target_fwhm_pix, margin_pix=card.margin_pix)
    train, judge = (
        DrawSource([d for d, h in zip(draws, held, strict=True) if h == side], stamps)
        for side in (False, True)
    )
    side = min(train.side, judge.side) // card.multiple_of * card.multiple_of
    config = TrainConfig(
        steps=steps,
        batch=48,
        sizes=(side,),
        size_shares=(1.0,),
        learning_rate=5e-4,
        warmup=max(1, steps // 10),
        validate_every=max(1, steps // 5),
    )
    rank, world, device = process_group()
    network = NetworkConfig(**card.network)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(network, config, train, folder, device, rank, world)
    if (folder / "checkpoint.safetensors").is_file():
        trainer.load()
    else:
        trainer.start_from(start)
    return run(trainer, HeldOutLoss(judge.draw(96, side, (99,))), report, stop_after)


def written(
    trainer: Trainer, card: Card, draws: Sequence[np.ndarray], held: np.ndarray, out: Path, facts: dict
) -> Card:
    """Write the model folder ``out`` of a finished ``adapt``: the weights' short average, what is measured
    of it on held-out draws, and ``facts`` for the card."""
    judge = DrawSource([d for d, h in zip(draws, held, strict=True) if h], trainer.source.config)
    stamps = judge.draw(MEASURED, trainer.config.sizes[0], (77,))
    model: Any = Denoiser(trainer.network_config)
    average = trainer.ema[str(trainer.config.ema[0])]
    model.load_state_dict(dict(zip(trainer.names, average, strict=True)), strict=False)
    model = model.cpu().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    values = measure_card(model, stamps, card.target_fwhm_pix, facts["name"])
    values["sigma_map"] = fit_sigma_map(response_table(model, stamps))
    kept = {name: getattr(card, name) for name in ("network", "multiple_of", "margin_pix", "limits")}
    # the widest galaxies that the prior knew are still its own: a survey of small ones does not forbid large
    values["max_sd"] = max(values["max_sd"], card.max_sd)
    return save_model(out, model, kept | values | facts)
