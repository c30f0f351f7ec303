"""Galaxies that a training never sees: the loss on them, and those that look like a training image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
