"""Power spectra of galaxies and of what a denoiser leaves, and denoisers without a network, which a prior
must beat: the best linear one, and wavelets."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
BATCH = 32


@dataclass(frozen=True)
class RadialBins:
    """``n`` radial bins of the modes of a (size, size) FFT, finest at low k; bin 0 is the total flux
    alone."""

    size: int
    n: int = 24

    def index(self) -> np.ndarray:
        """(size, size) bin of each mode."""
        k = self._k()
        edges = np.linspace(0, 1, self.n) ** 1.5 * (k.max() + 1e-6)
        edges = np.maximum.accumulate(np.maximum(edges, np.arange(self.n) * 1.0 / self.size))
        return np.where(k == 0, 0, np.clip(np.searchsorted(edges, k, side="left"), 1, self.n - 1))

    def centres(self) -> np.ndarray:
        """(n,) mean k of each bin."""
        return self.average(self._k())

    def average(self, power: np.ndarray) -> np.ndarray:
        """(size, size) -> (n,): mean over the modes of each bin."""
        index = self.index().ravel()
        count = np.bincount(index, minlength=self.n)
        total = np.bincount(index, np.asarray(power, dtype=np.float64).ravel(), minlength=self.n)
        return total / np.maximum(count, 1)

    def _k(self) -> np.ndarray:
        f = np.fft.fftfreq(self.size)
        return np.hypot(f[:, None], f[None, :])


def mean_power(images: Tensor) -> np.ndarray:
    """(n, 1, H, W) -> (H, W): mean of |FFT|^2 / n_pix."""
    spectrum = torch.fft.fft2(images[:, 0].double()).abs().square().mean(dim=0)
    return (spectrum / images[0, 0].numel()).cpu().numpy()


def band_correlation(
    stamps: Tensor, bands: Tensor, edges: np.ndarray, bins: RadialBins
) -> tuple[np.ndarray, np.ndarray]:
    """How alike modes of two bands of a galaxy are, about the mean of all stamps (n, c, H, W).

    The mean distance in ln wavelength (m,) and the correlation (m, bins) of the pairs whose distance is
    between successive ``edges`` (m + 1,); ``bands`` (n, c) are log wavelengths.
    """
    modes = torch.fft.fft2((stamps - stamps.mean(dim=(0, 1))).double()).numpy()
    first, second = np.triu_indices(modes.shape[1], 1)
    apart = (bands[:, first] - bands[:, second]).abs().numpy()
    inside = np.zeros((bins.n, modes[0, 0].size))
    inside[bins.index().ravel(), np.arange(modes[0, 0].size)] = 1.0

    def total(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray((a * b.conj()).real.reshape(len(a), -1) @ inside.T)

    own = np.stack([total(modes[:, i], modes[:, i]) for i in range(modes.shape[1])], axis=1)
    cross = np.stack([total(modes[:, i], modes[:, j]) for i, j in zip(first, second, strict=True)], axis=1)
    within = [(apart >= low) & (apart < high) for low, high in itertools.pairwise(edges)]
    within = [w for w in within if w.any()]
    rho = [
        cross[w].sum(axis=0) / np.sqrt(own[:, first][w].sum(axis=0) * own[:, second][w].sum(axis=0))
        for w in within
    ]
    return np.array([apart[w].mean() for w in within]), np.array(rho)


def prior_spectrum(stamps: Tensor, bins: RadialBins) -> tuple[dict[str, list], float]:
    """Spectrum about the mean of the stamps, and the largest standard deviation of a mode."""
    power = bins.average(mean_power(stamps - stamps.mean(dim=0)))
    return {"k": _rounded(bins.centres()), "power": _rounded(power)}, float(np.sqrt(power.max()))


def residual_spectrum(
    denoise: Denoise, stamps: Tensor, sigmas: list[float] | np.ndarray, bins: RadialBins
) -> dict[str, Any]:
    """Spectrum of x0 - D(x0 + sigma e) at each sigma: {"k", "sigma", "power"}."""
    powers = []
    for i, sigma in enumerate(sigmas):
        left = residuals(denoise, stamps, float(sigma), 21 + i)
        powers.append(_rounded(bins.average(mean_power(left))))
    return {"k": _rounded(bins.centres()), "sigma": _rounded(sigmas), "power": powers}


def residuals(denoise: Denoise, stamps: Tensor, sigma: float, seed: int) -> Tensor:
    """x0 - D(x0 + sigma e) for every stamp."""
    noise = torch.randn(stamps.shape, generator=torch.Generator().manual_seed(seed))
    level, parts = torch.full((BATCH,), sigma), zip(stamps.split(BATCH), noise.split(BATCH), strict=True)
    with torch.inference_mode():
        return torch.cat([x - denoise(x + sigma * e, level[: len(x)]) for x, e in parts])


def _rounded(values: list[float] | np.ndarray) -> list[float]:
    return [float(f"{v:.5g}") for v in np.asarray(values, dtype=np.float64)]


def wiener_denoiser(spectrum: dict, size: int, mean: Tensor) -> Denoise:
    """Best linear denoiser of a field of that spectrum and mean: p / (p + sigma^2) per mode."""
    f = np.fft.fftfreq(size)
    k = np.hypot(f[:, None], f[None, :])
    power = np.exp(np.interp(k, spectrum["k"], np.log(np.maximum(spectrum["power"], 1e-12))))
    power_t = torch.from_numpy(power.astype(np.float32))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        gain = power_t / (power_t + sigma.reshape(-1, 1, 1, 1) ** 2)
        return mean + torch.fft.ifft2(torch.fft.fft2(x - mean) * gain).real

    return denoise


def wavelet_denoiser() -> Denoise | None:
    """BayesShrink wavelets of scikit-image told the true sigma; None where it is not installed."""
    try:
        import pywt  # noqa: F401 - scikit-image needs it and says so late
        from skimage.restoration import denoise_wavelet
    except ImportError:
        return None

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        how = {"method": "BayesShrink", "mode": "soft", "wavelet": "sym4", "rescale_sigma": False}
        planes = [denoise_wavelet(i[0].numpy(), sigma=float(s), **how) for i, s in zip(x, sigma, strict=True)]
        return torch.from_numpy(np.stack(planes)[:, None].astype(np.float32))

    return denoise
