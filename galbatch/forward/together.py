"""Bands on several detector grids as one forward model: one fine grid, one detector image for each band.

Detector images are (b, k, c, h, w) with the height and width of the largest stamp. A band of fewer pixels has
its own in the first rows and columns, and no weight beyond.

Where a survey file does not say wavelengths, the names of bands do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from galbatch.errors import InputError
from galbatch.forward.operator import ForwardModel, forward_model
from galbatch.types import Observation


def side_by_side(images: Sequence[Tensor]) -> Tensor:
    """Images (..., c, h, w) of several sizes as one (..., sum of c, largest h, largest w), zero beyond."""
    h, w = (max(i.shape[axis] for i in images) for axis in (-2, -1))
    return torch.cat([F.pad(i, (0, w - i.shape[-1], 0, h - i.shape[-2])) for i in images], -3)


@dataclass(frozen=True)
class Together:
    """The models of groups of bands, in turn; what each is asked for its own bands."""

    parts: tuple[ForwardModel, ...]

    def _of(self, u: Tensor, detector: bool = False) -> list[tuple[ForwardModel, Tensor]]:
        """Each part and its bands of ``u`` (..., c, y, x)."""
        own = torch.split(u, [p.otf.shape[2] for p in self.parts], -3)
        if detector:
            own = tuple(o[..., : p.stamp[0], : p.stamp[1]] for p, o in zip(self.parts, own, strict=True))
        return list(zip(self.parts, own, strict=True))

    def _each(self, name: str) -> list[Any]:
        return [getattr(p, name) for p in self.parts]

    @property
    def fine(self) -> tuple[int, int]:
        return self.parts[0].fine

    @property
    def stamp(self) -> tuple[int, int]:
        heights, widths = zip(*self._each("stamp"), strict=True)
        return max(heights), max(widths)

    @property
    def oversample(self) -> tuple[int, ...]:
        return tuple(self._each("oversample"))

    @property
    def margin(self) -> int:
        return self.parts[0].margin

    @property
    def grid(self) -> tuple[tuple[int, int], ...]:
        return tuple(self._each("grid"))

    @cached_property
    def otf_fine(self) -> Tensor:
        """(b, 1, c, H, W // 2 + 1), as that of ``ForwardModel``."""
        return torch.cat(self._each("otf_fine"), 2)

    @property
    def noise(self) -> NoiseOfParts:
        return NoiseOfParts(self)

    def take(self, rows: np.ndarray) -> Together:
        """Of these sources."""
        return Together(tuple(p.take(rows) for p in self.parts))

    def with_psfs(self, found: Tensor) -> Together:
        """As that of ``ForwardModel``."""
        own = torch.split(found, [p.otf.shape[2] for p in self.parts], 2)
        return Together(tuple(p.with_psfs(part) for p, part in zip(self.parts, own, strict=True)))

    def mean_weight(self) -> Tensor:
        """(b, 1, c, 1, 1): mean of 1 / sigma^2 over the stamp of each band."""
        return torch.cat([p.mean_weight() for p in self.parts], 2)

    def apply(self, x: Tensor) -> Tensor:
        """A x."""
        return side_by_side([p.apply(own) for p, own in self._of(x)])

    def adjoint(self, u: Tensor) -> Tensor:
        """A^T u."""
        return torch.cat([p.adjoint(own) for p, own in self._of(u, True)], -3)

    def normal(self, x: Tensor) -> Tensor:
        """A^T N^-1 A x."""
        return torch.cat([p.normal(own) for p, own in self._of(x)], -3)

    def quick_normal(self, x: Tensor) -> Tensor:
        """A^T N^-1 A x with the quick inverse of correlated noise."""
        return torch.cat([p.quick_normal(own) for p, own in self._of(x)], -3)

    def from_detector(self, u: Tensor, grid: tuple[int, int]) -> Tensor:
        """Each detector pixel's value in its fine pixels."""
        return torch.cat([p.from_detector(own, grid) for p, own in self._of(u, True)], -3)

    def crop(self, x: Tensor) -> Tensor:
        """The part of a fine image (..., c, H, W) that the stamps cover."""
        return torch.cat([p.crop(own) for p, own in self._of(x)], -3)

    def circulant_precision(self) -> Tensor:
        """As that of ``ForwardModel``."""
        return torch.cat([p.circulant_precision() for p in self.parts], 2)


@dataclass(frozen=True)
class NoiseOfParts:
    """The noise of every part, independent of the others."""

    of: Together

    def _map(self, name: str, u: Tensor) -> Tensor:
        return side_by_side([getattr(p.noise, name)(own) for p, own in self.of._of(u, True)])

    @cached_property
    def weight(self) -> Tensor:
        """(b, 1, c, h, w): 1 / sigma^2, zero where masked or where a band has no pixel."""
        return side_by_side([p.noise.weight for p in self.of.parts])

    @property
    def owed(self) -> torch.Tensor:
        """(b, 1, c, h, w) of the parts."""
        return side_by_side([p.noise.owed * torch.ones_like(p.noise.weight) for p in self.of.parts])

    @property
    def modes(self) -> Tensor | None:
        """Those of the first part whose PSF is not exact; None where all are."""
        return next((p.noise.modes for p in self.of.parts if p.noise.modes is not None), None)

    @property
    def inflation(self) -> np.ndarray:
        """(c,), of each band's part."""
        return np.concatenate([np.full(p.otf.shape[2], p.noise.inflation) for p in self.of.parts])

    @property
    def sum_inflation(self) -> Tensor:
        """(1, 1, c), of each band."""
        return torch.cat(
            [
                torch.as_tensor(p.noise.sum_inflation, device=p.otf.device).expand(1, 1, p.otf.shape[2])
                for p in self.of.parts
            ],
            2,
        )

    def precision(self, u: Tensor) -> Tensor:
        """N^-1 u for u (b, k, c, h, w)."""
        return self._map("precision", u)

    def quick_precision(self, u: Tensor) -> Tensor:
        """N^-1 u roughly and at once."""
        return self._map("quick_precision", u)

    def exact_precision(self, u: Tensor) -> Tensor:
        """N^-1 u though the PSF be exact."""
        return self._map("exact_precision", u)

    def corrected(self, u: Tensor) -> Tensor:
        """Residuals less the expected error of the PSF in them."""
        return self._map("corrected", u)

    def sample(self, normal: Callable[..., Tensor]) -> Tensor:
        """Noise (b, k, c, h, w); ``normal(c, ...)`` draws standard normals for all bands."""
        return side_by_side([p.noise.sample(own) for p, own in self._normals(normal)])

    def _normals(self, normal: Callable[..., Tensor]) -> list[tuple[ForwardModel, Callable[..., Tensor]]]:
        """Each part and what draws normals for its bands: those of all bands, of which it takes its own."""
        counts = [p.otf.shape[2] for p in self.of.parts]
        first = np.cumsum([0, *counts]).tolist()

        def own(start: int, count: int) -> Callable[..., Tensor]:
            return lambda _, *shape: normal(sum(counts), *shape)[:, :, start : start + count]

        return [(p, own(start, count)) for p, start, count in zip(self.of.parts, first, counts, strict=False)]


def own_pixels(observations: Sequence[Observation], device: Any) -> Tensor:
    """(b, 1, c, h, w) bool: pixels of observations whose bands come in turn that are no neighbour's."""
    others = [np.zeros(o.data.shape, bool) if o.neighbour is None else o.neighbour for o in observations]
    return ~side_by_side([torch.from_numpy(o)[:, None].to(device) for o in others])


def steps_of(observations: Sequence[Observation], oversample: int) -> list[int]:
    """Fine pixels along a side of a detector pixel of each, ``oversample`` for the finest. Raises
    ``InputError`` where a pixel is not a whole number of the finest or stamps do not cover the same area."""
    scales = np.array([o.pixel_scale_arcsec for o in observations])
    ratios = scales / scales.min()
    whole = np.rint(ratios)
    sides = [np.array(o.data.shape[2:]) * r for o, r in zip(observations, whole, strict=True)]
    if (abs(ratios / whole - 1) > 1e-3).any() or any((side != sides[0]).any() for side in sides):
        shapes = ", ".join(f"{o.data.shape[2:]} of {o.pixel_scale_arcsec:g} arcsec" for o in observations)
        raise InputError(
            f"stamps of {shapes}: to be seen together they must cover the same square, and their pixels must "
            "be whole numbers of the finest ones."
        )
    return [int(r) * oversample for r in whole]


def joint_model(
    observations: Sequence[Observation],
    steps: Sequence[int],
    geometry: tuple[int, int, float],
    scale: np.ndarray,
    device: Any,
) -> tuple[Tensor, ForwardModel | Together]:
    """Data (b, 1, c, h, w) and forward model of observations of the same sources, whose bands come in turn;
    ``geometry``: margin, multiple_of, target_fwhm_pix of ``forward_model``; ``scale`` (b, c)."""
    scales = np.split(scale, np.cumsum([o.data.shape[1] for o in observations])[:-1], 1)
    made = [
        forward_model(o, n, *geometry, own, device)
        for o, n, own in zip(observations, steps, scales, strict=True)
    ]
    if len(made) == 1:
        return made[0]
    return side_by_side([data for data, _ in made]), Together(tuple(model for _, model in made))


# Filters of HST's optical cameras, in nanometres; all other numbers (its infrared ones, JWST's) are in tens.
_OPTICAL = "218 225 275 336 390 435 438 475 502 547 555 606 621 625 658 689 763 775 814 845 850".split()
_UM = {
    **{"u": 0.365, "g": 0.48, "r": 0.62, "i": 0.76, "z": 0.89, "y": 0.98, "vis": 0.715},
    **{"j": 1.25, "h": 1.64, "k": 2.19, "ks": 2.15},
}
_EUCLID_UM = {"y": 1.08, "j": 1.37, "h": 1.77}


def wavelength_um(band: str) -> float | None:
    """The wavelength of a band in micrometres, to a few per cent, by its name; None where that does not say.

    Known are the filters of HST and JWST (F200W), those of Euclid, and letters (u g r i z y j h k) as the
    last word.
    """
    name = band.lower()
    found = re.search(r"f(\d{3,4})(?:w2?|m|n|lp|x)(?![a-z0-9])", name)
    if found:
        return int(found[1]) / (1000 if found[1] in _OPTICAL else 100)
    own = _EUCLID_UM if "euclid" in name or "nisp" in name else {}
    last = re.split(r"[^a-z]+", name)[-1]
    return own.get(last, _UM.get(last))


def wavelengths_um(bands: list) -> list[float]:
    """Of all bands. Raises ``InputError`` naming the ones whose names do not say."""
    found = {str(band): wavelength_um(str(band)) for band in bands}
    unknown = [name for name, value in found.items() if value is None]
    if unknown:
        raise InputError(
            f"the wavelengths of bands {', '.join(unknown)} are not known by their names: give that "
            "of each band in micrometres."
        )
    return [float(found[str(band)] or 0) for band in bands]
