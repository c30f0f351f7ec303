"""Galaxies that a training never sees: the loss on them, those that look like a training image, and whether
samples can be told from them.

A classifier (Lopez-Paz & Oquab 2017, arXiv:1610.06545) learns to tell two sets of images apart and is scored
on images that it did not see. The area under its ROC curve (AUC) is 0.5 when the sets cannot be told apart
and 1 when every image betrays its set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galbatch.training.library import Library

if TYPE_CHECKING:
    from galbatch.prior.network import Denoiser
    from galbatch.training.cubes import CubeSource


@dataclass
class HeldOutLoss:
    """Held-out stamps and noise, the same at every check; loss by noise level."""

    clean: Tensor
    sigmas: tuple[float, ...] = (0.005, 0.015, 0.05, 0.15, 0.5, 1.5, 5.0)
    batch: int = 32
    seed: int = 11

    @torch.no_grad()
    def __call__(self, denoise: Callable[..., Any] | Denoiser) -> dict[str, float]:
        """sigma -> mean square error in units of sigma^2."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.clean.shape, generator=generator)
        out = {}
        for sigma in self.sigmas:
            error = [
                (denoise(x + sigma * e, torch.full((len(x),), sigma)) - x).square().mean()
                for x, e in zip(self.clean.split(self.batch), noise.split(self.batch), strict=True)
            ]
            out[f"{sigma:g}"] = float(torch.stack(error).mean()) / sigma**2
        return out


class JointLoss:
    """Held-out loss by number of bands and noise level, together and, with ``alone``, each band by itself."""

    def __init__(
        self,
        source: CubeSource,
        bands: tuple[int, ...] = (2, 4),
        sigmas: tuple[float, ...] = (0.05, 0.15, 0.5, 1.5),
        n: int = 32,
        size: int = 64,
    ) -> None:
        self.drawn = {c: source.draw_bands(n, c, size, (99, c)) for c in bands}
        self.sigmas = sigmas

    def __call__(self, denoise: Callable[..., Tensor], alone: bool = False) -> dict[str, float]:
        """ "c bands, sigma" -> mean square error in units of sigma^2."""
        out: dict[str, float] = {}
        for c, (clean, bands) in self.drawn.items():

            def joint(x: Tensor, sigma: Tensor, bands: Tensor = bands) -> Tensor:
                if alone:
                    n, c, h, w = x.shape
                    flat = denoise(x.reshape(n * c, 1, h, w), sigma.repeat_interleave(c))
                    return flat.reshape(x.shape)
                return denoise(x, sigma[:, None].expand(bands.shape), bands)

            found = HeldOutLoss(clean, self.sigmas, batch=len(clean))(joint)
            out |= {f"{c} bands, {sigma}": loss for sigma, loss in found.items()}
        return out


SIDE, TURNS = 32, 12
THRESHOLD = 0.05


def look_alikes(held: Library, train: Library, threshold: float = THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
    """For each image of ``held`` (n,): the distance to its nearest training image, and whether that is less
    than ``threshold``."""
    bank = _turned(train, 0.0, False)
    best = torch.full((len(held),), -1.0)
    for turn in range(TURNS):
        for mirrored in (False, True):
            mine = _turned(held, 2 * math.pi * turn / TURNS, mirrored)
            for i in range(0, len(mine), 256):
                found = (mine[i : i + 256] @ bank.T).amax(dim=1)
                best[i : i + 256] = torch.maximum(best[i : i + 256], found)
    distance = (2 - 2 * best).clamp_min(0).sqrt().numpy()
    return distance, distance < threshold


def without(library: Library, leave_out: np.ndarray, origins: tuple[str, ...] = ()) -> Library:
    """The library without the images marked in ``leave_out`` (n,) bool and without whole ``origins``;
    shares of the draws are those that were."""
    return library.take(~leave_out & ~np.isin(library.origins, origins))


def _centroid(images: Tensor) -> tuple[Tensor, Tensor]:
    """(y, x), each (n, 1, 1), in the units of ``grid_sample``: -1 to 1 across the image."""
    axis = (2 * torch.arange(images.shape[-1]) + 1) / images.shape[-1] - 1
    total = images.sum(dim=(1, 2))
    y, x = (images.sum(dim=d) @ axis / total for d in (2, 1))
    return y[:, None, None], x[:, None, None]


def _turned(library: Library, angle: float, mirrored: bool) -> Tensor:
    """(n, SIDE^2) images of unit norm at one scale and orientation."""
    out = torch.empty(len(library), SIDE * SIDE)
    pixel = (torch.arange(SIDE) - (SIDE - 1) / 2) * (8.0 / SIDE)
    cos, sin = math.cos(angle), math.sin(angle)
    dx = -pixel if mirrored else pixel
    y, x = cos * pixel[:, None] + sin * dx[None], -sin * pixel[:, None] + cos * dx[None]
    for i in range(0, len(library), 512):
        radius = torch.from_numpy(np.asarray(library.radius[i : i + 512], dtype=np.float32))
        level = 1 if float(radius.median()) > 6 else 0  # averaged pixels: no aliasing of fine structure
        images = torch.from_numpy(library.levels[level][i : i + 512]).float()
        reach = (radius * 2 / library.npix)[:, None, None]
        cy, cx = _centroid(images)
        grid = torch.stack([cx + x[None] * reach, cy + y[None] * reach], dim=-1)
        cut = F.grid_sample(images[:, None], grid, mode="bilinear", align_corners=False).flatten(1)
        out[i : i + 512] = F.normalize(cut, dim=1)
    return out


FOLDS = 5
FEATURES = ("gini", "m20", "concentration", "asymmetry", "smoothness", "r_half", "ellipticity")


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
    ``measure`` as in ``evaluate_prior``. Images whose morphology is not finite are given the median."""
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
