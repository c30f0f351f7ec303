"""Galaxies in several bands at once: a library of aligned images, and stamps of them for a joint network.

A cube is one view of a galaxy in some bands, cut alike. ``bands`` is always the natural log of the pivot
wavelength in micrometres. The bands of a stamp share view, size, position and companions; each is divided by
its own flux scale, whose scatter is half common to the bands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from galbatch.errors import ConfigError, InputError
from galbatch.simulate.galaxies import half_light_radius
from galbatch.training.library import Library, flux_centre, frame_of, prepare_image
from galbatch.training.sources import DataConfig, block_average, find_files, read_images
from galbatch.training.stamps import Dice, StampSource, flux_ratio, seeded, smoothed_peak


@dataclass(frozen=True)
class Cube:
    """One view of a galaxy: flux (bands, N, N), wavelengths (bands,) in micrometres."""

    flux: np.ndarray
    wavelengths_um: np.ndarray
    group: str
    origin: str
    min_zoom: float = 0.6


def read_cubes(config: DataConfig, base: Path) -> Iterator[Cube]:
    """The galaxies of a ``[[data]]`` table, bands together. Raises ``ConfigError`` when the wavelengths are
    neither in the file nor in the table."""
    for path in find_files(config, base):
        for galaxy in read_images(path):
            chosen = list(config.bands or range(len(galaxy.flux)))
            known = config.wavelengths_um or [
                galaxy.wavelengths_um[i] for i in chosen if galaxy.wavelengths_um
            ]
            if len(known) != len(chosen):
                raise ConfigError(
                    f"training data '{config.origin}': {path} has {len(chosen)} bands and {len(known)} known "
                    "wavelengths: give wavelengths_um, one for each band (micrometres)."
                )
            if galaxy.group not in config.exclude:
                yield Cube(
                    np.stack([block_average(galaxy.flux[i], config.average) for i in chosen]),
                    np.array(known),
                    f"{config.origin}:{galaxy.group}",
                    config.origin,
                    max(config.min_zoom, galaxy.psf_fwhm_pix / config.average),
                )


class CubeLibrary(Library):
    """Images of all bands in one list, as in ``Library``; those of cube i are ``start[i]`` to
    ``start[i + 1]``, ``bands`` (n,) are theirs, ``radius`` is that of their mean, and ``share`` (cubes,) is
    how often a cube is drawn."""

    MORE = ("bands", "start")

    def __init__(
        self, cubes: Iterable[Cube], npix: int = 128, weights: dict[str, float] | None = None
    ) -> None:
        images, bands, start, about = [], [], [0], []
        for cube in cubes:
            seen = [i for i, plane in enumerate(cube.flux) if plane.sum() > 0]
            mean = np.mean([cube.flux[i] / cube.flux[i].sum() for i in seen], axis=0)
            frame = frame_of(mean, npix)
            made = [prepare_image(cube.flux[i], npix, frame) for i in seen]
            good = [(i, image) for i, image in zip(seen, made, strict=True) if image is not None]
            together = np.mean([image for _, image in good], axis=0)
            radius = half_light_radius(together, flux_centre(together))
            if not radius > 1.0:
                continue
            images += [(image / image.max()).astype(np.float16) for _, image in good]
            bands += [float(np.log(cube.wavelengths_um[i])) for i, _ in good]
            about += [(cube.group, cube.origin, cube.min_zoom, radius)] * len(good)
            start.append(len(images))
        if not images:
            raise InputError("the library of cubes is empty: check the [[data]] tables of the configuration.")
        self._fill(np.stack(images), *zip(*about, strict=True))
        self.bands, self.start = np.array(bands, dtype=np.float32), np.array(start)
        self.probability = self._probability(weights or {})

    @property
    def counts_of_bands(self) -> np.ndarray:
        """(cubes,) how many bands each has."""
        return np.diff(self.start)

    @property
    def share(self) -> np.ndarray:
        """(cubes,) how often each is drawn."""
        return np.add.reduceat(self.probability, self.start[:-1])


class CubeSource(StampSource):
    """Draws stamps in several bands: ``draw_bands(n, c, size, seed)`` depends on its arguments alone."""

    library: CubeLibrary

    def draw_bands(self, n: int, c: int, size: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(n, c, size, size) stamps, each band in units of its flux scale, and their bands (n, c), in random
        order. Raises ``InputError`` when no galaxy has as many bands."""
        dice = rng, generator = seeded(seed)
        k = self.config
        offset = self._offset(n, dice)
        share = self.library.share * (self.library.counts_of_bands >= c)
        if not share.any():
            raise InputError(
                f"no galaxy of the library has {c} bands: ask for fewer, or give data with more."
            )
        cube = rng.choice(len(share), size=n, p=share / share.sum())
        index = np.stack([rng.choice(np.arange(*self.library.start[i : i + 2]), c, False) for i in cube])
        bands = torch.from_numpy(self.library.bands[index])
        image = self._cubes(index, size, offset, dice)
        nucleus = np.flatnonzero(rng.random(n) < k.nucleus_fraction + k.point_fraction)
        ratio = _coloured(flux_ratio(len(nucleus), 0.05, 2.0, generator), bands[nucleus], 1.0, generator)
        points = self._points(size, offset[nucleus])[:, None]
        image.index_add_(0, self._there(nucleus), self._there(ratio) * points)
        image = self._with_companions(image, bands, dice)
        return image / self._scales(image, generator), bands

    def _cubes(self, index: np.ndarray, size: int, offset: Tensor, dice: Dice, small: bool = False) -> Tensor:
        """(n, c, size, size) of unit flux: library images ``index`` (n, c), those of a row in one view."""
        (n, c), (rng, generator) = index.shape, dice
        zoom = self._zoom(index[:, 0], size, rng, small)
        flat, wide = index.reshape(-1), offset.repeat_interleave(c, dim=0)
        return self.render(flat, zoom.repeat(c), wide, size, generator, alike=c).reshape(n, c, size, size)

    def _with_companions(self, image: Tensor, bands: Tensor, dice: Dice) -> Tensor:
        n, lib, size, (rng, generator) = len(image), self.library, image.shape[-1], dice
        has = np.flatnonzero(rng.random(n) < self.config.companion_fraction)
        if len(has):
            cube = rng.choice(len(lib.share), size=len(has), p=lib.share / lib.share.sum())
            nearest = [
                lib.start[i] + abs(lib.bands[slice(*lib.start[i : i + 2])] - mine[:, None]).argmin(axis=1)
                for i, mine in zip(cube, bands[has].numpy(), strict=True)
            ]
            offset = self._companion_offset(len(has), size, generator)
            ratio = flux_ratio(len(has), 0.03, 1.5, generator)
            other = self._cubes(np.stack(nearest), size, offset, dice, small=True)
            colours = self._there(_coloured(ratio, bands[has], 0.7, generator))
            image.index_add_(0, self._there(has), colours * other)
        return image

    def _scales(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """(n, c, 1, 1) flux scale of each band: half of the scatter's variance is common to a galaxy."""
        n, c = image.shape[:2]
        low, high = self.config.scale_fwhm_pix
        fwhm = low * (high / low) ** torch.rand(n * c, generator=generator)
        peak = smoothed_peak(image.flatten(0, 1)[:, None], self._there(fwhm), self.config).reshape(n, c, 1, 1)
        spread = torch.randn(n, 1, generator=generator).abs() * self.config.scatter
        common, own = torch.randn(n, 1, generator=generator), torch.randn(n, c, generator=generator)
        return peak * self._there(torch.exp(spread * (common + own) / math.sqrt(2)))[..., None, None]


def _coloured(ratio: Tensor, bands: Tensor, scatter: float, generator: torch.Generator) -> Tensor:
    """(m, c, 1, 1) flux ratios that fall or rise with wavelength, by a random power."""
    slope = torch.randn(len(ratio), 1, generator=generator) * scatter
    apart = bands - bands.mean(dim=1, keepdim=True)
    return (ratio[:, None] * torch.exp(slope * apart))[..., None, None]
