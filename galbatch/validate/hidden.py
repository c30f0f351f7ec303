"""Which of two priors knows the galaxies of a survey better? Pixels are hidden, and predicted.

Blocks of pixels on a source are kept from the sampler, larger than the PSF, so that their neighbours do not
tell. Each prior draws from its posterior given the rest, and is scored by the mean log density of the
hidden pixels under a normal law with the mean of the draws as the telescope sees them, and their variance
with that of the noise (the score of Dawid & Sebastiani 1999, which is proper). It needs no truth, and no
draw that one of them made judges the other. The mixture of the draws themselves as the law has tails so
heavy that a single pixel decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from galbatch.forward import forward_model
from galbatch.sampler import sample_posterior
from galbatch.sampler.prior import as_denoiser
from galbatch.types import Observation

BLOCK_PIX, SHARE = 6, 0.2  # side of a hidden block, and the share of the source that is hidden


def hide(inside: np.ndarray, seed: int = 0) -> np.ndarray:
    """(b, c, h, w) bool: about ``SHARE`` of the pixels ``inside`` of each source and band, in blocks."""
    rng, (b, c, h, w) = np.random.default_rng(seed), inside.shape
    rows, columns = (-(-n // BLOCK_PIX) for n in (h, w))
    blocks = rng.random((b, c, rows, columns)) < SHARE
    return blocks.repeat(BLOCK_PIX, 2).repeat(BLOCK_PIX, 3)[:, :, :h, :w] & inside


def hidden_score(
    prior: Any,
    obs: Observation,
    hidden: np.ndarray,
    draws: int = 16,
    mode: str = "fast",
    oversample: int = 1,
    source_ids: Sequence | None = None,
) -> np.ndarray:
    """(b,) mean log density of the pixels ``hidden`` (b, c, h, w) that can be used, each in units of its
    noise; NaN for a source with none."""
    spec, hidden = as_denoiser(prior).spec, hidden & obs.valid
    posterior = sample_posterior(
        prior, replace(obs, mask=~obs.valid | hidden), draws, mode, oversample, source_ids=source_ids
    )
    data, model = forward_model(obs, oversample, target_fwhm_pix=spec.target_fwhm_pix)
    seen = model.apply(torch.from_numpy(np.ascontiguousarray(posterior.samples, np.float32)))
    weight = model.noise.weight.numpy()[:, 0]
    images, unit = seen.numpy(), np.sqrt(weight)
    error = (data.numpy()[:, 0] - images.mean(1)) * unit
    variance = 1 + (1 + 1 / draws) * (images.std(1, ddof=1) * unit) ** 2
    score = -0.5 * (error**2 / variance + np.log(2 * np.pi * variance))
    return np.where(hidden, score, 0).sum((1, 2, 3)) / np.where(
        hidden.any((1, 2, 3)), hidden.sum((1, 2, 3)), np.nan
    )


def compare(new: np.ndarray, old: np.ndarray) -> tuple[float, float, int]:
    """(mean gain of the new score over the old, its standard error from pairing by source, sources)."""
    gain = (new - old)[np.isfinite(new - old)]
    n = len(gain)
    return float(gain.mean()) if n else np.nan, float(gain.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan, n
