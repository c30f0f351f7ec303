"""Gaussian fields on a torus: a prior whose denoiser, covariance and posterior are known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from galbatch.forward import forward_model, steps_of
from galbatch.types import Observation

ACF = np.outer([0.1, 0.45, 1, 0.45, 0.1], [0.1, 0.45, 1, 0.45, 0.1])


class GaussianField:
    """A stationary field on an n x n torus: exact denoiser, exact covariance, no card."""

    target_fwhm_pix, flux_convention = 0.0, "none"

    def __init__(self, n: int, sd: float = 0.5, mean: float = 0.3):
        f = np.fft.fftfreq(n) * n
        power = (f[:, None] ** 2 + f[None, :] ** 2 + 2.0) ** -2.0
        power *= sd**2 / power.mean()
        self.n, self.mean = n, mean
        self.power = torch.from_numpy(power[:, : n // 2 + 1].astype(np.float32))
        kernel, i = np.fft.ifft2(power).real, np.arange(n)
        dy = (i[:, None, None, None] - i[None, None, :, None]) % n
        dx = (i[None, :, None, None] - i[None, None, None, :]) % n
        self.one_band = kernel[dy, dx].reshape(n * n, n * n)

    def covariance(self, wavelengths=(1.0,)) -> np.ndarray:
        """(c d, c d) of the pixels of c bands; bands of one field know nothing of each other."""
        return np.kron(self.cross_correlation(np.log(wavelengths)), self.one_band)

    def cross_correlation(self, bands, k=0.0):
        return np.eye(len(bands))

    def denoise(self, x, sigma):
        gain = self.power / (self.power + sigma[:, None, None, None] ** 2)
        return self.mean + torch.fft.irfft2(torch.fft.rfft2(x - self.mean) * gain, s=x.shape[-2:])


class JointField(GaussianField):
    """The same spectrum in all bands, which are correlated by their wavelengths."""

    channels, joint, reach = 1, 8, 3.0

    def cross_correlation(self, bands, k=0.0):
        return np.exp(-np.abs(bands[:, None] - bands) / self.reach) * np.ones((*np.shape(k), 1, 1))

    def denoise(self, x, sigma, bands=None):
        if bands is None:
            return super().denoise(x, sigma)
        values, vectors = torch.linalg.eigh(torch.from_numpy(self.cross_correlation(bands.numpy())).float())
        z = torch.einsum("ji,bjyx->biyx", vectors.to(torch.complex64), torch.fft.rfft2(x - self.mean))
        p = values[:, None, None] * self.power
        z = z * (p / (p + sigma[:, None, None, None] ** 2))
        z = torch.einsum("ij,bjyx->biyx", vectors.to(torch.complex64), z)
        return self.mean + torch.fft.irfft2(z, s=x.shape[-2:])


def gaussian_psf(width: float, ratio: float = 0.8, side: int = 11) -> np.ndarray:
    y, x = np.indices((side, side)) - side // 2
    psf = np.exp(-0.5 * (y**2 / width**2 + x**2 / (ratio * width) ** 2))
    return psf / psf.sum()


def simulate(prior, rng, noise, psfs, acf=None, sources=2, wavelengths=(1.0,), oversample=1):
    """Observation of draws of the prior in bands of the given ``noise`` and ``psfs``, uneven and with a mask,
    and the truth (sources, c, n, n). ``acf``: (2 r + 1, 2 r + 1)."""
    n, c, h = prior.n, len(noise), prior.n // oversample
    ramp = np.exp(0.5 * np.sin(np.linspace(0, 3, h))[:, None] + 0.3 * np.cos(np.linspace(0, 5, h)))
    sigma = np.broadcast_to(np.array(noise)[:, None, None] * ramp, (sources, c, h, h))
    mask = rng.random(sigma.shape) < 0.08
    truth = np.linalg.cholesky(prior.covariance(wavelengths)) @ rng.standard_normal((c * n * n, sources))
    truth = (prior.mean + truth.T).reshape(sources, c, n, n)
    acf = None if acf is None else np.repeat(acf[None], c, 0)
    blank = Observation(np.zeros(sigma.shape), sigma, np.stack(psfs), mask, 0.03, 0.03 / oversample, acf)
    model = forward_model(blank, oversample)[1]
    clean = model.apply(torch.from_numpy(truth[:, None].astype(np.float32)))[:, 0].numpy()
    normal = lambda *shape: torch.from_numpy(rng.standard_normal((sources, 1, *shape)).astype(np.float32))  # noqa: E731
    # a masked pixel holds no number that could leak
    return replace(
        blank, data=np.where(mask, np.nan, clean + model.noise.sample(normal)[:, 0].numpy())
    ), truth


def noise_correlation(acf, h: int) -> np.ndarray:
    """(h h, h h) of the pixels of a stamp, from an autocorrelation (1, 2 r + 1, 2 r + 1) or None."""
    if acf is None:
        return np.eye(h * h)
    i, r = np.arange(h * h), acf.shape[-1] // 2
    dy, dx = i[:, None] // h - i // h, i[:, None] % h - i % h
    near = (abs(dy) <= r) & (abs(dx) <= r)
    return np.where(near, acf[0][np.clip(dy, -r, r) + r, np.clip(dx, -r, r) + r], 0)


def exact_posterior(prior, observations, source, wavelengths=(1.0,), oversample=1):
    """Mean and covariance over pixels of all bands by dense linear algebra, operators as matrices."""
    n, d, c = prior.n, prior.n**2, len(wavelengths)
    rows, noises, data = [], [], []
    for obs, step in zip(observations, steps_of(observations, oversample), strict=True):
        own = {name: getattr(obs, name) for name in ("data", "sigma", "mask", "psf", "shift_pix")}
        one = replace(obs, **{name: v if v is None else v[source][None] for name, v in own.items()})
        bands, h = one.data.shape[1], one.data.shape[2]
        unit = torch.eye(d).reshape(1, d, 1, n, n).expand(1, d, bands, n, n)
        seen = forward_model(one, step)[1].apply(unit)[0].double().numpy()  # (d, c, h, h)
        correlation = noise_correlation(obs.noise_acf, h)
        for band in range(bands):
            good, s = one.valid[0, band].ravel(), one.sigma[0, band].ravel().astype(float)
            a = np.zeros((good.sum(), c * d))
            a[:, len(rows) * d : (len(rows) + 1) * d] = seen[:, band].reshape(d, -1).T[good]
            rows.append(a)
            noises.append((s[:, None] * correlation * s)[np.ix_(good, good)])
            data.append(one.data[0, band].ravel()[good])
    a, noise, y = np.concatenate(rows), block_diag(*noises), np.concatenate(data)
    covariance = prior.covariance(wavelengths)
    gain = covariance @ a.T @ np.linalg.inv(a @ covariance @ a.T + noise)
    mean = prior.mean + gain @ (y - a @ np.full(c * d, prior.mean))
    return mean, covariance - gain @ a @ covariance


def whitened(draws, mean, covariance) -> np.ndarray:
    """(d, k) of draws (k, c, n, n): standard normal if they are of the law."""
    return np.linalg.solve(np.linalg.cholesky(covariance), (draws.reshape(len(draws), -1) - mean).T)


def check_draws(draws, mean, covariance, narrow=0.04) -> None:
    """Draws (k, c, n, n) are those of the law: whitened, standard normal, without correlations; so are the
    light of every band and the difference of any two. ``narrow``: how far the variance may be off."""
    k, c, pixels = len(draws), draws.shape[1], draws[0, 0].size
    white, flat = whitened(draws, mean, covariance), draws.reshape(k, -1)
    d = len(white)
    excess = k * (white.mean(1) ** 2).mean() - 1
    assert excess < 0.15 + 4 * np.sqrt(2 / d), f"mean off by {excess:.2f} of its Monte Carlo variance"
    assert (white**2).mean() == pytest.approx(1, abs=narrow + 4 * np.sqrt(2 / (k * d)))
    assert np.sqrt(((np.cov(white) - np.eye(d)) ** 2).mean()) < 1.25 * np.sqrt(1 / k)
    for weights in (*np.eye(c), *(np.eye(c)[i] - np.eye(c)[j] for i in range(c) for j in range(i))):
        w = np.repeat(weights, pixels)
        z = (flat @ w - mean @ w) / np.sqrt(w @ covariance @ w)
        assert abs(z.mean()) < 4 / np.sqrt(k)
        assert z.std() == pytest.approx(1, abs=0.05 + 3 * np.sqrt(0.5 / k))
