"""Denoisers without a network, which a prior must beat: the best linear one, and wavelets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def wiener_denoiser(spectrum: dict, size: int, mean: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Best linear denoiser of a field of that spectrum and mean: p / (p + sigma^2) per mode."""
    f = np.fft.fftfreq(size)
    k = np.hypot(f[:, None], f[None, :])
    power = np.exp(np.interp(k, spectrum["k"], np.log(np.maximum(spectrum["power"], 1e-12))))
    power_t = torch.from_numpy(power.astype(np.float32))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        gain = power_t / (power_t + sigma.reshape(-1, 1, 1, 1) ** 2)
        return mean + torch.fft.ifft2(torch.fft.fft2(x - mean) * gain).real

    return denoise


def wavelet_denoiser() -> Callable[[Tensor, Tensor], Tensor] | None:
    """BayesShrink wavelets of scikit-image told the true sigma; None where it is not installed."""
    try:
        import pywt  # noqa: F401 - scikit-image needs it and says so late
        from skimage.restoration import denoise_wavelet
    except ImportError:
        return None

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        planes = [
            denoise_wavelet(
                image[0].numpy(),
                sigma=float(s),
                method="BayesShrink",
                mode="soft",
                wavelet="sym4",
                rescale_sigma=False,
            )
            for image, s in zip(x, sigma, strict=True)
        ]
        return torch.from_numpy(np.stack(planes)[:, None].astype(np.float32))

    return denoise
