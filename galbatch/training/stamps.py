"""Training stamps: library galaxies as a noise-free telescope with the target PSF would see them, in random
views.

One stamp is a library image at a random rotation, reflection, size, sub-pixel position and offset,
convolved with the Gaussian target PSF and sampled, sometimes with companions or a point source, divided by
its flux scale.

The flux scale is ``smoothed_peak``: on real data the peak of the image smoothed until a point source has a
given FWHM, whatever the PSF, so here the stamp is smoothed to a total FWHM within
``StampConfig.scale_fwhm_pix`` (the upper end for PSFs that are themselves broader) and the maximum over the
central half taken. It is multiplied by exp(scatter), scatter ~ N(0, s^2) and s ~ |N(0, scatter^2)|: the
scale of noisy data scatters, and the prior must not know it better than the sampler does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from galbatch.training.library import N_LEVELS, Library

FWHM_TO_SD = 1 / 2.3548200450309493
Dice = tuple[np.random.Generator, torch.Generator]  # both kinds of random numbers of a seed


@dataclass(frozen=True)
class StampConfig:
    """Laws that the views are drawn from; lengths in stamp pixels.

    ``radius_pix``: half-light radius, log-uniform (scaled with the stamp above 72 px), ``large_fraction``
    of them up to 1.6 times the upper end. ``offset_pix``: rms of the centre along each axis, with
    ``far_fraction`` uniform within ``far_offset_pix``.
    """

    target_fwhm_pix: float = 2.0
    margin_pix: int = 4
    radius_pix: tuple[float, float] = (1.0, 14.0)
    large_fraction: float = 0.05
    offset_pix: float = 1.5
    far_fraction: float = 0.05
    far_offset_pix: float = 6.0
    companion_fraction: float = 0.25
    point_fraction: float = 0.02
    nucleus_fraction: float = 0.04
    scale_fwhm_pix: tuple[float, float] = (6.0, 6.5)
    scatter: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius_pix", tuple(self.radius_pix))
        object.__setattr__(self, "scale_fwhm_pix", tuple(self.scale_fwhm_pix))


class StampSource:
    """Draws stamps from a library on a ``device``: ``draw(n, size, seed)`` is a function of its arguments
    alone, and of the device but for rounding: what is random is drawn on the CPU, a few numbers per stamp."""

    def __init__(
        self, library: Library, config: StampConfig = StampConfig(), device: str | torch.device = "cpu"
    ) -> None:
        self.library, self.config = library, config
        self.to(device)

    def to(self, device: str | torch.device) -> None:
        """Move the library to where stamps are made from now on."""
        self.device = torch.device(device)
        self.levels = [self._there(level) for level in self.library.levels]

    def _there(self, values: np.ndarray | Tensor) -> Tensor:
        return torch.as_tensor(values).to(self.device, non_blocking=True)

    def draw(self, n: int, size: int, seed: tuple[int, ...], scaled: bool = True) -> Tensor:
        """(n, 1, size, size) float32 stamps in units of their flux scale (of unit total flux if not
        ``scaled``)."""
        dice = rng, generator = seeded(seed)
        c = self.config
        point = rng.random(n) < c.point_fraction
        offset = self._offset(n, dice)
        image = self._galaxies(n, size, offset, dice)
        image.index_fill_(0, self._there(np.flatnonzero(point)), 0.0)
        nucleus = np.flatnonzero((rng.random(n) < c.nucleus_fraction) | point)
        ratio = self._there(flux_ratio(len(nucleus), 0.05, 2.0, generator))
        points = self._points(size, offset[nucleus])
        image.index_add_(0, self._there(nucleus), ratio[:, None, None] * points)
        has = np.flatnonzero(rng.random(n) < c.companion_fraction)
        if len(has):
            place = self._companion_offset(len(has), size, generator)
            ratio = self._there(flux_ratio(len(has), 0.03, 1.5, generator))
            others = self._galaxies(len(has), size, place, dice, small=True)
            image.index_add_(0, self._there(has), ratio[:, None, None] * others)
        image = image[:, None]
        return image / self._scale(image, generator) if scaled else image

    def _offset(self, n: int, dice: Dice) -> Tensor:
        """(n, 2) centres of the galaxies."""
        c, (rng, generator) = self.config, dice
        offset = torch.randn(n, 2, generator=generator) * c.offset_pix
        far = torch.from_numpy(rng.random(n) < c.far_fraction)[:, None]
        return torch.where(far, (torch.rand(n, 2, generator=generator) * 2 - 1) * c.far_offset_pix, offset)

    @staticmethod
    def _companion_offset(k: int, size: int, generator: torch.Generator) -> Tensor:
        """(k, 2) places of companions: uniform in distance and angle, some beyond the stamp's edge."""
        distance = torch.empty(k).uniform_(0.12, 1.2, generator=generator) * size / 2
        angle = torch.rand(k, generator=generator) * 2 * math.pi
        return torch.stack([distance * angle.cos(), distance * angle.sin()], dim=1)

    def _points(self, size: int, offset: Tensor) -> Tensor:
        """(k, size, size) point sources of unit flux at the target PSF."""
        sd, offset = self.config.target_fwhm_pix * FWHM_TO_SD, self._there(offset)
        grid = torch.arange(size, device=self.device) - (size - 1) / 2
        profile = torch.exp(-0.5 * ((grid[None, None] - offset[:, :, None]) / sd) ** 2)
        profile = profile / (sd * math.sqrt(2 * math.pi))
        return profile[:, 0, :, None] * profile[:, 1, None, :]

    def _galaxies(self, n: int, size: int, offset: Tensor, dice: Dice, small: bool = False) -> Tensor:
        """(n, size, size) random library galaxies of unit flux at ``offset`` (n, 2) = (y, x) from the
        centre."""
        rng, generator = dice
        index = rng.choice(len(self.library), size=n, p=self.library.probability)
        return self.render(index, self._zoom(index, size, rng, small), offset, size, generator)

    def _zoom(self, index: np.ndarray, size: int, rng: np.random.Generator, small: bool) -> np.ndarray:
        """(n,) library pixels per stamp pixel: a random size, as large as each image allows."""
        lib, c, n = self.library, self.config, len(index)
        low, high = c.radius_pix
        high *= max(1.0, size / 72)
        large = np.where(rng.random(n) < c.large_fraction, 1.6, 1.0)
        top = np.minimum(high * large * (0.5 if small else 1.0), lib.radius[index] / lib.min_zoom[index])
        low = np.minimum(low, 0.7 * top)
        return np.asarray(lib.radius[index] / (low * (top / low) ** rng.random(n)))

    def render(
        self,
        index: np.ndarray,
        zoom: np.ndarray,
        offset: Tensor,
        size: int,
        generator: torch.Generator,
        alike: int = 1,
    ) -> Tensor:
        """(n, size, size) of unit flux: library images ``index`` (n,) reflected and rotated at random,
        zoomed, convolved with the target PSF and sampled. ``zoom`` (n,): library pixels per stamp pixel;
        ``offset`` (n, 2) tensor of stamp pixels (y, x) from the centre; so many images after another are
        turned ``alike``."""
        n, npix = len(index), self.library.npix
        turn = torch.rand(n // alike, generator=generator) * 2 * math.pi
        flip = torch.where(torch.rand(n // alike, generator=generator) < 0.5, -1.0, 1.0)
        turn, flip = (self._there(t.repeat_interleave(alike)) for t in (turn, flip))
        level = np.clip(np.floor(np.log2(zoom)), 0, N_LEVELS - 1).astype(int)
        scale, power = self._there((zoom / 2.0**level).astype(np.float32)), self._there(level)
        canvas = torch.zeros(n, npix, npix, device=self.device)
        for l in np.unique(level):
            side, mine = npix >> l, level == l
            pad = (npix - side) // 2
            images = self.levels[l][self._there(index[mine])].float()
            canvas[self._there(np.flatnonzero(mine)), pad : pad + side, pad : pad + side] = images
        flux = canvas.sum(dim=(1, 2)) / scale**2
        blurred = torch.fft.irfft2(torch.fft.rfft2(canvas) * self._transfer(scale, power), s=(npix, npix))
        centre = 0.5 / 2.0**power + npix / 2 - 0.5
        grid = self._grid(scale, centre, self._there(offset), size, turn, flip)
        out = F.grid_sample(
            blurred[:, None], grid, mode="bicubic", padding_mode="zeros", align_corners=False
        )[:, 0]
        return out / flux[:, None, None]

    def _transfer(self, scale: Tensor, level: Tensor) -> Tensor:
        """Target PSF over the box of the averaged pixels, on the canvas' frequencies."""
        sd = (self.config.target_fwhm_pix * FWHM_TO_SD) * scale
        npix, sides = self.library.npix, []
        for k in (torch.fft.fftfreq(npix, device=self.device), torch.fft.rfftfreq(npix, device=self.device)):
            box = torch.where(level[:, None] > 0, torch.sinc(k)[None], 1.0)
            sides.append(torch.exp(-2 * (math.pi * sd[:, None] * k) ** 2) / box)
        return sides[0][:, :, None] * sides[1][:, None, :]

    def _grid(
        self, scale: Tensor, centre: Tensor, offset: Tensor, size: int, turn: Tensor, flip: Tensor
    ) -> Tensor:
        """(n, size, size, 2) where in the library images the pixels of the stamps are."""
        npix = self.library.npix
        pixel = torch.arange(size, device=self.device) - (size - 1) / 2
        dy = (pixel[None] - offset[:, 0:1])[:, :, None]
        dx = (pixel[None] - offset[:, 1:2])[:, None, :] * flip[:, None, None]
        cos, sin = (turn.cos() * scale)[:, None, None], (turn.sin() * scale)[:, None, None]
        y = centre[:, None, None] + cos * dy + sin * dx
        x = centre[:, None, None] - sin * dy + cos * dx
        return torch.stack([(2 * x + 1) / npix - 1, (2 * y + 1) / npix - 1], dim=-1)

    def _scale(self, image: Tensor, generator: torch.Generator) -> Tensor:
        n, c = len(image), self.config
        low, high = c.scale_fwhm_pix
        fwhm = low * (high / low) ** torch.rand(n, generator=generator)
        peak = smoothed_peak(image, self._there(fwhm), c)
        s = torch.randn(n, generator=generator).abs() * c.scatter
        scatter = torch.exp(s * torch.randn(n, generator=generator))
        return peak * self._there(scatter)[:, None, None, None]


def seeded(seed: tuple[int, ...]) -> Dice:
    """Both kinds of random numbers of a seed."""
    rng = np.random.default_rng(seed)
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


def flux_ratio(k: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(k,) flux ratios, log-uniform."""
    return torch.exp(torch.empty(k).uniform_(math.log(low), math.log(high), generator=generator))


def smoothed_peak(image: Tensor, fwhm_pix: Tensor, config: StampConfig) -> Tensor:
    """(n, 1, 1, 1) noise-free peak of stamps (n, 1, H, W) at the target PSF, smoothed to a total FWHM of
    ``fwhm_pix`` (n,).

    The maximum is over the central half of the stamp proper, without its margin.
    """
    size = image.shape[-1]
    sd = torch.sqrt(fwhm_pix**2 - config.target_fwhm_pix**2) * FWHM_TO_SD
    pad = size + 24
    ky = torch.fft.fftfreq(pad, device=image.device)
    kx = torch.fft.rfftfreq(pad, device=image.device)
    gauss = (
        torch.exp(-2 * (math.pi * sd[:, None] * ky) ** 2)[:, :, None]
        * torch.exp(-2 * (math.pi * sd[:, None] * kx) ** 2)[:, None, :]
    )
    blurred = torch.fft.irfft2(torch.fft.rfft2(image, s=(pad, pad)) * gauss[:, None], s=(pad, pad))[
        ..., :size, :size
    ]
    stamp = size - 2 * config.margin_pix
    low = config.margin_pix + stamp // 4
    return (
        blurred[..., low : low + stamp // 2, low : low + stamp // 2]
        .amax(dim=(2, 3), keepdim=True)
        .clamp_min(1e-8)
    )


def contact_sheet(images: Tensor, path: Path, columns: int = 12) -> None:
    """Grey PNG of (n, 1, H, W) images, each scaled to its peak, asinh stretch."""
    columns = min(columns, len(images))
    n = len(images) // columns * columns
    tiles = images[:n, 0].numpy()
    tiles = np.arcsinh(tiles / tiles.max(axis=(1, 2), keepdims=True) / 0.02) / np.arcsinh(50)
    size = tiles.shape[-1]
    sheet = tiles.reshape(n // columns, columns, size, size).transpose(0, 2, 1, 3).reshape(-1, columns * size)
    Image.fromarray((255 * np.clip(0.05 + 0.95 * sheet, 0, 1)).astype(np.uint8)).save(path)
