"""The library of sharp galaxy images that training stamps are drawn from, split by galaxy.

A library holds square float32 images with their sky at zero, in a pyramid of resolutions (each level
averages 2 x 2 pixels of the one before), their half-light radius in pixels, and the smallest zoom that may
be asked of each: the number of source pixels per stamp pixel below which its own pixels, noise or PSF would
be seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from galbatch.errors import InputError
from galbatch.simulate.galaxies import half_light_radius

N_LEVELS = 5


@dataclass(frozen=True)
class SourceImage:
    """A sharp image (N, N), the galaxy it belongs to, what made it, and its smallest useful zoom."""

    image: np.ndarray
    group: str
    origin: str
    min_zoom: float = 0.6


def frame_of(image: np.ndarray, npix: int) -> tuple[float, float, int]:
    """Centre (y, x) of the flux of an image (H, W), and how many of its pixels to average along a side so
    that it fits into ``npix``."""
    y, x = flux_centre(image)
    half = _needed_half_width(image, y, x)
    return y, x, max(1, int(np.ceil(2 * half / npix)))


def prepare_image(
    image: np.ndarray, npix: int = 128, frame: tuple[float, float, int] | None = None
) -> np.ndarray | None:
    """(H, W) -> (npix, npix) float32 of unit sum: centred on the flux, block-averaged to fit, faded at the
    edge; ``frame``: of another band, to cut alike.

    None when no flux is left.
    """
    image = np.where(np.isfinite(image), image, 0).astype(np.float64)
    total = image.sum()
    if not total > 0:
        return None
    y, x, factor = frame or frame_of(image, npix)
    side = npix * factor
    out = np.zeros((side, side))
    y0, x0 = round(y) - side // 2, round(x) - side // 2
    ys, xs = (
        slice(max(y0, 0), min(y0 + side, image.shape[0])),
        slice(max(x0, 0), min(x0 + side, image.shape[1])),
    )
    cut = (image * _round_fade(image, y, x))[ys, xs]
    out[ys.start - y0 : ys.stop - y0, xs.start - x0 : xs.stop - x0] = cut
    out = out.reshape(npix, factor, npix, factor).mean(axis=(1, 3)) * _fade(npix)[:, None] * _fade(npix)[None]
    total = out.sum()
    return (out / total).astype(np.float32) if total > 0 else None


def flux_centre(image: np.ndarray) -> tuple[float, float]:
    """Centroid of the pixels above 10% of the peak of a lightly smoothed image: robust against wide wings."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(image, 1.0)
    weight = np.where(smooth > 0.1 * smooth.max(), smooth, 0)
    grid_y, grid_x = np.indices(image.shape)
    return float((grid_y * weight).sum() / weight.sum()), float((grid_x * weight).sum() / weight.sum())


def _needed_half_width(image: np.ndarray, y: float, x: float, fraction: float = 0.985) -> float:
    grid_y, grid_x = np.indices(image.shape)
    distance = np.maximum(abs(grid_y - y), abs(grid_x - x)).ravel()
    order = np.argsort(distance)
    growth = np.cumsum(image.ravel()[order])
    return distance[order][np.searchsorted(growth, fraction * growth[-1])] + 1


def _round_fade(image: np.ndarray, y: float, x: float, faint: float = 1e-3) -> float | np.ndarray:
    """(H, W) a round fade where the galaxy reaches the frame, so that no square edge is ever learned; else
    one."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    if np.percentile(edge, 90) < faint * image.max():
        return 1.0
    reach = max(4.0, min(y, x, image.shape[0] - 1 - y, image.shape[1] - 1 - x))
    grid_y, grid_x = np.indices(image.shape)
    inside = np.clip((1 - np.hypot(grid_y - y, grid_x - x) / reach) / 0.4, 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * inside)


def _fade(n: int, width: int = 8) -> np.ndarray:
    """(n,) one inside, a cosine to zero over the last ``width`` pixels at both ends."""
    edge = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(edge / width, 0, 1))


class Library:
    """Images of one split by origin. ``levels[l]`` (n, npix / 2^l, npix / 2^l) float16, each image of unit
    peak."""

    MORE: tuple[str, ...] = ()  # arrays that a kind of library keeps besides

    def __init__(
        self, sources: Iterable[SourceImage], npix: int = 128, weights: dict[str, float] | None = None
    ) -> None:
        images, about = [], []
        for source in sources:
            image = prepare_image(source.image, npix)
            radius = 0.0 if image is None else half_light_radius(image, flux_centre(image))
            if image is not None and radius > 1.0:
                images.append((image / image.max()).astype(np.float16))
                about.append((source.group, source.origin, source.min_zoom, radius))
        if not images:
            raise InputError(
                "the training library is empty: no usable image in the given sources; check the paths "
                "in the [data] table of the configuration."
            )
        self._fill(np.stack(images), *zip(*about, strict=True))
        self.probability = self._probability(weights or {})

    def _fill(
        self,
        images: np.ndarray,
        groups: Sequence[str],
        origins: Sequence[str],
        min_zoom: ArrayLike,
        radius: ArrayLike,
    ) -> None:
        """Take prepared images (n, npix, npix) of unit peak, and what is known of each (n,)."""
        self.groups, self.origins = list(groups), list(origins)
        self.min_zoom, self.radius = np.array(min_zoom), np.array(radius)
        self.npix, self.levels = images.shape[-1], [images]
        for _ in range(1, N_LEVELS):
            last = self.levels[-1].astype(np.float32)
            n, side = len(last), last.shape[-1] // 2
            self.levels.append(last.reshape(n, side, 2, side, 2).mean(axis=(2, 4)).astype(np.float16))

    def save(self, path: Path) -> None:
        """Keep the prepared images, so that resuming need not read the sources again (npz, no pickle)."""
        np.savez(
            path,
            images=self.levels[0],
            groups=np.array(self.groups),
            origins=np.array(self.origins),
            min_zoom=self.min_zoom,
            radius=self.radius,
            probability=self.probability,
            **{name: getattr(self, name) for name in self.MORE},
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """What ``save`` kept."""
        with np.load(path, allow_pickle=False) as kept:
            library, names = cls.__new__(cls), (kept["groups"].tolist(), kept["origins"].tolist())
            library._fill(kept["images"], *names, kept["min_zoom"], kept["radius"])
            for name in ("probability", *cls.MORE):
                setattr(library, name, kept[name])
        return library

    def take(self, rows: np.ndarray) -> Self:
        """The library of some images (bool or indices); shares of the draws are those that were."""
        some, chosen = type(self).__new__(type(self)), np.arange(len(self))[rows]
        groups, origins = ([of[i] for i in chosen] for of in (self.groups, self.origins))
        some._fill(self.levels[0][chosen], groups, origins, self.min_zoom[chosen], self.radius[chosen])
        some.probability = self.probability[chosen] / self.probability[chosen].sum()
        return some

    def __len__(self) -> int:
        return len(self.groups)

    def _probability(self, weights: dict[str, float]) -> np.ndarray:
        """Share of the draws by origin, spread evenly over the galaxies of an origin and the images of a
        galaxy."""
        origins, groups = np.array(self.origins), np.array(self.groups)
        p = np.zeros(len(self))
        for origin in np.unique(origins):
            mine = origins == origin
            names, inverse, counts = np.unique(groups[mine], return_inverse=True, return_counts=True)
            p[mine] = weights.get(str(origin), 1.0) / len(names) / counts[inverse]
        return p / p.sum()

    def counts(self) -> dict[str, dict[str, int]]:
        """Images and galaxies by origin."""
        return {
            o: {
                "images": self.origins.count(o),
                "galaxies": len({g for g, oo in zip(self.groups, self.origins, strict=True) if oo == o}),
            }
            for o in sorted(set(self.origins))
        }


def is_held_out(group: str, fraction: float = 0.1) -> bool:
    """Whether a galaxy belongs to the held-out split: a hash of its name, the same everywhere and always."""
    digest = hashlib.sha256(group.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction
