"""Power spectra of the prior and of what its denoiser leaves, on the grid of a stamp.

``p(k)`` = mean |FFT(x0 - mean)|^2 / npix and ``v(k; sigma)`` = mean |FFT(x0 - D(x0 + sigma e))|^2 / npix. A
model card has both as radial tables, and v over the square of its ``envelope`` too. For a prior without a
card they are measured from its own unconditional draws, on the grid asked for. They only precondition
solves, start the sampler and set its schedule: the posterior does not depend on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from galbatch.prior.spectra import envelope
from galbatch.sampler.integrate import log_levels, sde_dpmpp_2m
from galbatch.sampler.prior import CountedDenoiser, prior_field

MEASURED_DRAWS = 48
MEASURED_LEVELS = 24
LOCAL_GAIN = 0.2  # log-likelihood a pixel (times two) by which an envelope must describe residuals better


@dataclass(frozen=True)
class Spectra:
    """``prior`` (c, H, W // 2 + 1), ``residual`` (n, c, H, W // 2 + 1) at ``sigma`` (n,), ``max_sd``,
    ``mean`` (c, H, W), ``local``: the residual over its envelope, like ``residual``, or None."""

    prior: torch.Tensor
    sigma: torch.Tensor
    residual: torch.Tensor
    max_sd: float
    mean: torch.Tensor
    local: torch.Tensor | None = None

    def residual_at(self, sigma: torch.Tensor) -> torch.Tensor:
        """(b, 1, c, H, W // 2 + 1) at sigma (b,): log-log interpolation, at most sigma^2."""
        return self._at(sigma, self.residual)

    def covariance_at(self, sigma: torch.Tensor, denoised: torch.Tensor, factor: float = 1.0):
        """v (b, 1 or k, c, H, W // 2 + 1) and w (b, k, c, H, W) with a mean square of one, or None: the mean
        covariance w v w of x0 given x_sigma, times ``factor``, where the denoiser gives ``denoised``."""
        if self.local is None:
            return self._at(sigma, self.residual, factor), None
        w = envelope(denoised)
        height = w.square().mean((-1, -2), keepdim=True)
        return self._at(sigma, self.local, factor * height), w / height.sqrt()

    def _at(self, sigma: torch.Tensor, powers: torch.Tensor, height=1.0) -> torch.Tensor:
        position = torch.log(sigma.clamp(float(self.sigma[0]), float(self.sigma[-1])) / self.sigma[0])
        step = torch.log(self.sigma[1] / self.sigma[0])
        low = (position / step).floor().clamp(0, len(self.sigma) - 2).long()
        w = (position / step - low)[:, None, None, None]
        table = powers.log()
        power = height * torch.exp((1 - w) * table[low] + w * table[low + 1])[:, None]
        return torch.minimum(power, sigma[:, None, None, None, None] ** 2)


def card_spectra(prior, channels: int, shape: tuple[int, int], device) -> Spectra | None:
    """The tables of the prior's card on a grid, or None when it has none."""
    spectrum, residual = prior_field(prior, "spectrum"), prior_field(prior, "residual_spectrum")
    if spectrum is None or residual is None:
        return None
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    k = np.hypot(fy[:, None], fx[None, :])

    def on_grid(radii, power):
        power = np.maximum(np.asarray(power, float), 1e-12)
        return np.exp(np.interp(k, np.asarray(radii, float), np.log(power)))

    p = on_grid(spectrum["k"], spectrum["power"])
    sigma = np.asarray(residual["sigma"], float)
    even = np.geomspace(sigma[0], sigma[-1], len(sigma))

    def tensor(a):
        return torch.as_tensor(np.ascontiguousarray(a), dtype=torch.float32, device=device)

    ones = torch.ones(channels, 1, 1, device=device)

    def on_levels(table):
        logs = np.log(np.stack([on_grid(table["k"], row) for row in table["power"]]))
        place = np.interp(np.log(even), np.log(np.asarray(table["sigma"], float)), np.arange(len(logs)))
        low = np.minimum(place.astype(int), len(logs) - 2)
        w = (place - low)[:, None, None]
        return tensor(np.exp((1 - w) * logs[low] + w * logs[low + 1]))[:, None] * ones

    local = prior_field(prior, "local_spectrum")
    return Spectra(
        tensor(p) * ones,
        tensor(even),
        on_levels(residual),
        float(prior_field(prior, "max_sd") or math.sqrt(p.max())),
        torch.zeros(channels, *shape, device=device),
        on_levels(local) if local else None,
    )


@torch.no_grad()
def measure_spectra(prior, channels: int, shape: tuple[int, int], device="cpu", seed: int = 0) -> Spectra:
    """Spectra from the prior's own unconditional draws (``MEASURED_DRAWS`` of them, stochastic second
    order); local ones where an envelope pays, as it does for light in one place."""
    gen = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=gen).to(device)

    low, high = float(prior_field(prior, "sigma_min")), float(prior_field(prior, "sigma_max"))
    denoise = CountedDenoiser(prior)
    levels = log_levels(torch.full((1,), high), torch.full((1,), low), 40).to(device)
    size = (1, MEASURED_DRAWS, channels, *shape)
    x0 = sde_dpmpp_2m(denoise, high * normal(*size), levels, lambda: normal(*size))
    mean = x0.mean((0, 1))
    npix = shape[0] * shape[1]

    def power(residual):
        p = (torch.fft.rfft2(residual).abs() ** 2 / npix).mean((0, 1))
        p = torch.fft.fftshift(p, dim=-2)[None]  # smooth: a mean over a few neighbours
        p = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(p, (1, 1, 1, 1), mode="reflect"), 3, 1)[0]
        return torch.fft.ifftshift(p, dim=-2).clamp_min(1e-12)

    p = power((x0 - mean) * math.sqrt(MEASURED_DRAWS / (MEASURED_DRAWS - 1)))
    max_sd = math.sqrt(float((torch.fft.rfft2(x0 - mean).abs() ** 2 / npix).mean((0, 1)).max()))
    sigma = torch.exp(
        torch.linspace(math.log(max(low, 1e-4 * max_sd)), math.log(2 * max_sd), MEASURED_LEVELS)
    )
    rows, local, gain = [], [], []
    for s in sigma:
        d = denoise(x0 + float(s) * normal(*size), s.reshape(1).to(device))
        w = envelope(d)
        left, flat = x0 - d, (x0 - d) / w
        rows.append(power(left))
        local.append(power(flat))
        gain.append(left.square().mean().log() - flat.square().mean().log() - 2 * w.log().mean())
    located = float(torch.stack(gain).mean()) > LOCAL_GAIN
    return Spectra(
        p, sigma.to(device), torch.stack(rows), max_sd, mean, torch.stack(local) if located else None
    )
