"""``galbatch train --from-run``: a prior adapted to the galaxies of a run, written only when galaxies of the
survey that it was not trained on say that it is better.

Which of two priors knows the galaxies of a survey better? Each predicts one half of an exposure from the
other.

With noise e of the law of the data's own, y + e and y - e are two observations of twice the variance whose
noises are independent, like the halves of an exposure. Each prior draws from its posterior given the first,
and is scored by the mean log density of the second under a normal law with the mean of the draws as the
telescope sees them, and their variance with that of the noise (the score of Dawid & Sebastiani 1999, which
is proper). It needs no truth, no draw that one of them made judges the other, and a prior that follows the
noise of one half is punished by the other. What it saw of more than pixels that were hidden: decision 0045.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from galbatch.errors import InputError, ModelError
from galbatch.forward import forward_model
from galbatch.pipeline.sampling import observation_of
from galbatch.prior import load_prior
from galbatch.prior.card import Card
from galbatch.prior.folder import CARD, load_weights, model_folder
from galbatch.run.context import Cutter, fix_threads
from galbatch.run.prepare import open_inputs
from galbatch.run.start import saved_settings
from galbatch.sampler import sample_posterior
from galbatch.sampler.prior import as_denoiser
from galbatch.sampler.random import Normals
from galbatch.store import Run, iter_plan, open_run
from galbatch.training.draws import DrawSource, adapt, split, written
from galbatch.training.held_out import HeldOutLoss
from galbatch.training.stamps import StampConfig
from galbatch.types import Observation, StampBatch

SPLIT_STAGE = 1 << 22  # random stage of the noise that splits an exposure


def halves(obs: Observation, source_ids: Sequence, seed: int = 0) -> tuple[Observation, np.ndarray]:
    """One half of each exposure as an observation, and the data (b, c, h, w) of the other, zero where masked:
    both have twice the variance, and their noises are independent where ``obs`` tells its own truly."""
    data, model = forward_model(replace(obs, psf_error=None))
    normals = Normals(seed, source_ids, range(data.shape[2]), [0], first_stage=SPLIT_STAGE)
    e = model.noise.sample(normals.draw)
    first, second = ((data + sign * e)[:, 0].numpy() for sign in (1, -1))
    root = np.float32(np.sqrt(2))
    white = None if obs.sigma_white is None else root * obs.sigma_white
    return replace(obs, data=first, sigma=root * obs.sigma, sigma_white=white, mask=~obs.valid), second


def half_score(
    prior: Any,
    obs: Observation,
    inside: np.ndarray,
    draws: int = 16,
    mode: str = "fast",
    oversample: int = 1,
    source_ids: Sequence | None = None,
) -> np.ndarray:
    """(b,) mean log density of the second half of each exposure, in units of its noise, over the pixels
    ``inside`` (b, c, h, w) that can be used; NaN for a source with none."""
    spec, inside = as_denoiser(prior).spec, inside & obs.valid
    ids = list(range(len(obs.data))) if source_ids is None else source_ids
    first, second = halves(obs, ids)
    posterior = sample_posterior(prior, first, draws, mode, oversample, source_ids=ids)
    model = forward_model(replace(first, psf_error=None), oversample, target_fwhm_pix=spec.target_fwhm_pix)[1]
    seen = model.apply(torch.from_numpy(np.ascontiguousarray(posterior.samples, np.float32)))
    weight = model.noise.weight.numpy()[:, 0]
    images, unit = seen.numpy(), np.sqrt(weight)
    error = (second - images.mean(1)) * unit
    variance = 1 + (1 + 1 / draws) * (images.std(1, ddof=1) * unit) ** 2
    score = -0.5 * (error**2 / variance + np.log(2 * np.pi * variance))
    return np.where(inside, score, 0).sum((1, 2, 3)) / np.where(
        inside.any((1, 2, 3)), inside.sum((1, 2, 3)), np.nan
    )


def compare(new: np.ndarray, old: np.ndarray) -> tuple[float, float, int]:
    """(mean gain of the new score over the old, its standard error from pairing by source, sources)."""
    gain = (new - old)[np.isfinite(new - old)]
    n = len(gain)
    return float(gain.mean()) if n else np.nan, float(gain.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan, n


MOST = 2000  # galaxies and bands that train, and that are kept in memory
JUDGED = 128  # sources that judge
CERTAIN, LOSS = 2.0, 1.0  # standard errors by which the new prior must be better, and its loss at most


@dataclass(frozen=True)
class Galaxies:
    """What is used of a run: ``names`` of sources, their ``draws`` (k, h, w) at the target PSF, and the
    ``bands`` by source that are good."""

    names: list[str]
    draws: list[np.ndarray]
    bands: dict[str, list[str]]


def adapt_to_run(
    run: str | Path,
    out: Path,
    steps: int = 400,
    quality: int = 0,
    report: Callable[[dict], None] | None = None,
    stop_after: int | None = None,
    threads: int = 1,
) -> dict[str, Any] | None:
    """Train the prior of a finished ``run`` on the draws of its sources of this ``quality`` or better, and
    write it to ``out/model`` if held-out sources are predicted better; None where training stopped before its
    end.

    Returns ``gain`` (in log density per pixel of the second halves), its ``error``, the ``sources`` that
    judged, and ``loss``, the ratio of the denoising losses on draws of held-out galaxies. Raises
    ``InputError`` for a run without draws or with too few sources, ``ModelError`` where the new prior is not
    better: nothing is written.
    """
    opened, out = open_run(run), Path(out)
    settings = saved_settings(opened.paths)
    if settings.model == "object":
        raise InputError(
            f"{run}: made with a prior object of a program. Only models of a folder can be adapted."
        )
    start = model_folder(settings.model)
    card = Card.load(start / CARD)
    galaxies = galaxies_of(opened, quality)
    held = split(galaxies.names)
    fix_threads(threads)
    trainer = adapt(load_weights(start, card), card, galaxies.draws, held, out, steps, report, stop_after)
    if trainer.progress() < 1 or trainer.rank:
        return None
    facts = {
        "name": f"{card.name}-adapted",
        "training": {
            "started_from": {"name": card.name, "sha256": card.sha256},
            "steps": trainer.step,
            "batch": trainer.config.batch,
            "learning_rate": trainer.config.learning_rate,
        },
        "data": [
            {
                "origin": "posterior draws",
                "credit": f"run {opened.paths.root.name}",
                "trained": int((~held).sum()),
                "held_out": int(held.sum()),
            }
        ],
    }
    candidate = Path(tempfile.mkdtemp(prefix=".candidate-", dir=out))
    try:
        written(trainer, card, galaxies.draws, held, candidate, facts)
        found = judge(opened, galaxies, held, start, candidate)
        _refuse_worse(found)
        _replace(candidate, out / "model")
    finally:
        shutil.rmtree(candidate, ignore_errors=True)
    return found


def galaxies_of(run: Run, quality: int = 0) -> Galaxies:
    """Draws of every band that is graded ``quality`` or better, of up to ``MOST`` galaxies and bands."""
    names: list[str] = []
    draws: list[np.ndarray] = []
    bands: dict[str, list[str]] = {}
    for n, band in enumerate(run.bands):
        if run.layout.pixel_ratio and run.layout.pixel_ratio[n] != 1:
            continue  # its draws are smoother than those of a detector's own pixels
        for name in run.select(quality, band)["source_id"].tolist():
            if len(draws) < MOST:
                bands.setdefault(str(name), []).append(band)
                names.append(str(name))
                draws.append(run.samples(name, band))
    if not names:
        raise InputError(
            f"{run.paths.root}: no source of quality {quality} or better to train on (--quality)."
        )
    return Galaxies(names, draws, bands)


def judge(run: Run, galaxies: Galaxies, held: np.ndarray, start: Path, candidate: Path) -> dict[str, Any]:
    """How much better ``candidate`` is than ``start`` on the galaxies that are ``held`` out."""
    old, new = load_prior(start, precision="float32"), load_prior(candidate, precision="float32")
    judges = [name for name, h in zip(galaxies.names, held, strict=True) if h]
    wanted = {name: galaxies.bands[name] for name in dict.fromkeys(judges)}
    scores: dict[str, list[tuple[float, float]]] = {}
    for stamps, place, number in _bands_again(run, dict(list(wanted.items())[:JUDGED])):
        band, name = stamps.bands[number], str(stamps.source_id[place])
        obs, inside = observation_of([band], np.array([place])), band.seg[None, [place]] == 1
        options = {"oversample": run.layout.oversample, "source_ids": [f"{name} {band.band}"]}
        both = [half_score(prior, obs, inside, **options)[0] for prior in (new, old)]
        if np.isfinite(both).all():
            scores.setdefault(name, []).append(tuple(both))
    gain, error, n = compare(*np.array([np.mean(both, 0) for both in scores.values()]).reshape(-1, 2).T)
    source = DrawSource([d for d, h in zip(galaxies.draws, held, strict=True) if h], StampConfig())
    drawn = source.draw(96, source.side // new.spec.multiple_of * new.spec.multiple_of, (98,))
    losses = [HeldOutLoss(drawn)(prior.denoise) for prior in (new, old)]
    ratio = float(np.exp(np.mean([np.log(losses[0][s] / losses[1][s]) for s in losses[0]])))
    return {"gain": gain, "error": error, "sources": n, "loss": ratio}


def _bands_again(run: Run, wanted: dict[str, list[str]]) -> Iterator[tuple[StampBatch, int, int]]:
    """(stamps, place of a source in them, number of a band) for all that is wanted, cut again."""
    settings = saved_settings(run.paths)
    cut = Cutter(open_inputs(settings, run.manifest.get("measured")).survey, run.layout)
    for rows in iter_plan(run.paths.plan):
        ids = rows.columns["source_id"].astype(str)
        chosen = np.flatnonzero(np.isin(ids, list(wanted)))
        for _, stamps in cut(rows.take(chosen).columns) if len(chosen) else ():
            for place, name in enumerate(stamps.source_id.astype(str)):
                for n, band in enumerate(stamps.bands):
                    if place not in stamps.failures and band.band in wanted[name]:
                        yield stamps, place, n


def _refuse_worse(found: dict[str, Any]) -> None:
    if not found["gain"] > CERTAIN * found["error"] or not found["loss"] < LOSS:
        raise ModelError(
            f"The adapted prior is not better on {found['sources']} held-out galaxies of the survey: one "
            f"half of their exposure, predicted from the other, gains {found['gain']:+.4f} +- "
            f"{found['error']:.4f} in log density per pixel, and the loss on their draws is "
            f"{found['loss']:.3f} times the old one. It was not written. Keep the prior of the run, or train "
            "on more sources."
        )


def _replace(candidate: Path, model: Path) -> None:
    """Put the files of ``candidate`` into ``model``: an earlier model of ours goes."""
    model.mkdir(parents=True, exist_ok=True)
    for file in sorted(candidate.iterdir(), key=lambda p: p.name == CARD):
        os.replace(file, model / file.name)
