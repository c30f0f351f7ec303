"""Can samples of a prior be told from galaxies that it was not trained on?

    python benchmarks/science/told_apart.py --library small.train/library-held-out.npz [--model NAME]
        [--samples 1000] [--out FILE]

A classifier (Lopez-Paz & Oquab 2017, arXiv:1610.06545) learns to tell two sets of images apart and is scored
on images that it did not see. The area under its ROC curve (AUC) is 0.5 when the sets cannot be told apart
and 1 when every image betrays its set. Two classifiers, on morphology and on pixels; as a control, galaxies
against other galaxies of the same source, which is 0.5 but for chance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galbatch.bench.timing import arguments, environment, keep
from galbatch.morphology import measure
from galbatch.prior import load_prior
from galbatch.training.evaluate import FEATURES, sample_prior
from galbatch.training.library import Library
from galbatch.training.stamps import StampConfig, StampSource

SIDE = 72
FOLDS = 5


def area_under_curve(score: np.ndarray, is_second: np.ndarray) -> tuple[float, float]:
    """AUC of scores (n,) for labels (n,) bool, by ranks, and its standard error (Hanley & McNeil 1982)."""
    from scipy.stats import rankdata

    n1, n0 = int(is_second.sum()), int((~is_second).sum())
    auc = (rankdata(score)[is_second].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = (auc * (1 - auc) + (n1 - 1) * (q1 - auc**2) + (n0 - 1) * (q2 - auc**2)) / (n1 * n0)
    return float(auc), float(np.sqrt(max(variance, 0.0)))


def pixel_two_sample(a: Tensor, b: Tensor, folds: int = FOLDS, steps: int = 600) -> tuple[float, float]:
    """(AUC, standard error) of a small convolutional network on images (n, 1, H, W), cross-validated.

    It sees asinh(x / 0.02), so faint structure counts; images are turned and mirrored at random while it
    learns.
    """
    images = torch.asinh(torch.cat([a, b]) / 0.02) / 5
    label = torch.cat([torch.zeros(len(a)), torch.ones(len(b))])

    def fit_and_score(train: Tensor, test: Tensor, generator: torch.Generator) -> Tensor:
        net = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2),
            nn.GroupNorm(4, 16),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.Conv2d(32, 48, 3, 2, 1),
            nn.GroupNorm(4, 48),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(48 * 9, 1),
        )
        optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            index = train[torch.randint(len(train), (32,), generator=generator)]
            loss = F.binary_cross_entropy_with_logits(
                net(_one_turn(images[index], generator))[:, 0], label[index]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            return net(images[test])[:, 0]

    return _cross_validated(label, folds, fit_and_score)


def morphology_two_sample(a: Tensor, b: Tensor, measure: Callable) -> tuple[float, float]:
    """(AUC, standard error) of a small perceptron on ``FEATURES``, flux and peak, cross-validated;
    ``measure``: the morphology. Images whose morphology is not finite are given the median."""
    from scipy.stats import rankdata

    both = torch.cat([a, b])
    table = measure(both[:, 0].numpy(), 1.0, sky_sigma=0.0, groups=("gini", "cas"))
    columns = [np.asarray(table[name], dtype=float) for name in FEATURES if name in table.dtype.names]
    columns += [v.clamp_min(1e-3).log().numpy() for v in (both.sum((1, 2, 3)), both.amax((1, 2, 3)))]
    x = np.stack([_filled(column) for column in columns], axis=1)
    rank = rankdata(x, axis=0) / len(x) * 3.4 - 1.7  # robust against outliers; ties must not betray the order
    features = torch.from_numpy(rank.astype(np.float32))
    label = torch.cat([torch.zeros(len(a)), torch.ones(len(b))])

    def fit_and_score(train: Tensor, test: Tensor, generator: torch.Generator) -> Tensor:
        net = nn.Sequential(nn.Linear(features.shape[1], 16), nn.Tanh(), nn.Linear(16, 1))
        optimiser = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.1)
        for _ in range(200):
            loss = F.binary_cross_entropy_with_logits(net(features[train])[:, 0], label[train])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            return net(features[test])[:, 0]

    return _cross_validated(label, FOLDS, fit_and_score)


def _filled(column: np.ndarray) -> np.ndarray:
    """(n,) with the median in place of what is not finite, zeros when nothing is."""
    good = np.isfinite(column)
    return np.where(good, column, np.median(column[good]) if good.any() else 0.0)


def _cross_validated(label: Tensor, folds: int, fit_and_score: Callable[..., Any]) -> tuple[float, float]:
    """AUC of scores that each image gets from a classifier trained without it; ranks are taken fold by
    fold."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(label), generator=generator)
        score = torch.zeros(len(label))
        for test in order.chunk(folds):
            keep = torch.ones(len(label), dtype=torch.bool)
            keep[test] = False
            found = fit_and_score(torch.nonzero(keep)[:, 0], test, generator)
            score[test] = (found.argsort().argsort() + 0.5) / len(found)
    return area_under_curve(score.numpy(), label.numpy() > 0.5)


def _one_turn(x: Tensor, generator: torch.Generator) -> Tensor:
    """One random quarter turn and mirror for the batch."""
    turn, flip = (int(torch.randint(k, (), generator=generator)) for k in (4, 2))
    x = torch.rot90(x, turn, (2, 3))
    return x.flip(3) if flip else x


def main() -> None:
    given = arguments(__doc__, library=str, model="small", samples=1000)
    prior = load_prior(given.model)
    config = StampConfig(target_fwhm_pix=prior.spec.target_fwhm_pix)
    source = StampSource(Library.load(given.library), config)
    samples = sample_prior(prior, given.samples, SIDE, seed=5)
    galaxies, others = (source.draw(max(given.samples, 64), SIDE, (k,)) for k in (1003, 1005))
    found: dict[str, Any] = {"benchmark": "told_apart", "model": given.model, "samples": given.samples}
    for name, images in (("samples", samples), ("control", others)):
        found[f"morphology_{name}"] = morphology_two_sample(images, galaxies, measure)
        found[f"pixels_{name}"] = pixel_two_sample(images, galaxies)
    keep(found | environment(prior.device), given.out)


if __name__ == "__main__":
    main()
