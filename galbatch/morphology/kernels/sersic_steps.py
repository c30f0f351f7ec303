"""The Sersic fit in two halves, for models that are convolved with a PSF in between, many sources side by
side.

A step proposes parameters and draws the model with its derivatives; the caller convolves these; the other
half accepts or rejects. ``status`` of a source: 0 searching, 1 converged. Sources never see each other.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels import sersic
from galbatch.morphology.kernels.jit import entry, leaf
from galbatch.morphology.kernels.least_squares import add_row, clear, propose
from galbatch.morphology.kernels.sersic_model import model_images


@leaf
def _assign(to: np.ndarray, values: np.ndarray) -> None:
    for k in range(to.size):
        to[k] = values[k]


@leaf
def _keep(
    normal: np.ndarray,
    gradient: np.ndarray,
    p: np.ndarray,
    matrix: np.ndarray,
    vector: np.ndarray,
    trial: np.ndarray,
) -> None:
    _assign(gradient, vector)
    _assign(p, trial)
    for k in range(7):
        _assign(normal[k], matrix[k])


@entry
def propose_models(
    which: np.ndarray,
    p: np.ndarray,
    trial: np.ndarray,
    normal: np.ndarray,
    gradient: np.ndarray,
    damping: np.ndarray,
    images: np.ndarray,
) -> None:
    """For each source of ``which`` (m,): set ``trial`` from ``p`` and fill its ``images`` (m, H, 8, W)."""
    for j in range(which.size):
        i = which[j]
        if math.isfinite(damping[i]):  # not finite: the first time, p as it is
            for _ in range(20):
                if propose(p[i], normal[i], gradient[i], damping[i], trial[i]):
                    break
                damping[i] *= 10.0
                _assign(trial[i], p[i])
        else:
            _assign(trial[i], p[i])
        sersic.limit(trial[i], images.shape[1], images.shape[3])
        model_images(trial[i], 0, 0, images[j], sersic.DIVIDE)


@entry
def assess_models(
    which: np.ndarray,
    images: np.ndarray,
    data: np.ndarray,
    weight: np.ndarray,
    p: np.ndarray,
    trial: np.ndarray,
    normal: np.ndarray,
    gradient: np.ndarray,
    chi2: np.ndarray,
    damping: np.ndarray,
    hits: np.ndarray,
    status: np.ndarray,
) -> None:
    """For each source of ``which``: take ``trial`` where chi2 fell, and say whether the search is over."""
    matrix, vector = np.empty((7, 7)), np.empty(7)
    for j in range(which.size):
        i = which[j]
        clear(matrix, vector)
        new = 0.0
        for y in range(images.shape[1]):
            new += add_row(images[j, y], 0, data[i, y], weight[i, y], matrix, vector)
        if not math.isfinite(damping[i]):
            _keep(normal[i], gradient[i], p[i], matrix, vector, trial[i])
            chi2[i], damping[i] = new, 1e-3
        elif new <= chi2[i]:
            status[i] = 1 if chi2[i] - new < sersic.TOLERANCE * chi2[i] else 0
            _keep(normal[i], gradient[i], p[i], matrix, vector, trial[i])
            chi2[i] = new
            hits[i] = sersic.limit(trial[i], data.shape[1], data.shape[2])
            damping[i] = max(0.1 * damping[i], 1e-9)
        else:
            damping[i] *= 8.0
            status[i] = 1 if damping[i] > 1e10 else 0
