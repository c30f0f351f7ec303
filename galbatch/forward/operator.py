"""The pixel operator A = D (h * .): fine image to detector pixels, its adjoint, and the normal operator.

The fine grid of unknowns covers the stamp and a margin of sky on each side. Convolutions run on a zero-padded
Fourier grid large enough that no lag between an unknown and a data pixel wraps around: they are linear.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from galbatch.forward.noise import noise_model, resampled_variance
from galbatch.forward.psf import TransferCache, over_target
from galbatch.forward.psf_error import PsfErrorNoise
from galbatch.interfaces import NoiseModel
from galbatch.types import Observation

_CACHE = TransferCache()


@dataclass(frozen=True)
class ForwardModel:
    """Linear operator from fine images (b, k, c, H, W) to detector pixels (b, k, c, h, w), and the noise.

    ``otf`` (b, 1, c, M, L // 2 + 1) and ``otf_fine`` (b, 1, c, H, W // 2 + 1) on the padded and the fine
    grid, the padded one ``grid`` = (M, L); ``margin`` fine pixels of unknown sky before the stamp in y and x;
    ``fine`` = (H, W) with both margins. ``shift`` like ``otf_fine``: what moves an image into a stamp that
    begins elsewhere, as it is part of ``otf``; None: nowhere else. ``target_fwhm_pix``: of the Gaussian PSF
    that images have, by whose transfer function ``otf`` is divided.
    """

    otf: torch.Tensor
    otf_fine: torch.Tensor
    noise: NoiseModel
    oversample: int
    margin: int
    fine: tuple[int, int]
    stamp: tuple[int, int]
    grid: tuple[int, int]
    shift: torch.Tensor | None = None
    target_fwhm_pix: float = 0.0

    def take(self, rows: np.ndarray) -> ForwardModel:
        """Of these sources."""
        otf, fine = self.otf[rows], self.otf_fine[rows]
        shift = None if self.shift is None else self.shift[rows]
        return replace(self, otf=otf, otf_fine=fine, noise=self.noise.take(rows), shift=shift)

    def with_psfs(self, found: Tensor) -> ForwardModel:
        """For draws that have a PSF each, ``found`` (b, k, c, m) standard deviations of the modes of its
        errors off the given one, or the given one where that is exact."""
        noise = self.noise
        if not isinstance(noise, PsfErrorNoise):
            many = (-1, found.shape[1], -1, -1, -1)
            return replace(self, otf=self.otf.expand(many), otf_fine=self.otf_fine.expand(many))
        otf, fine = (
            t * noise.transfers(found, self.psf_transfer(t, grid), grid)
            for t, grid in ((self.otf, self.grid), (self.otf_fine, self.fine))
        )
        return replace(self, otf=otf, otf_fine=fine, noise=noise.base)

    def psf_transfer(self, otf: Tensor, grid: tuple[int, int]) -> Tensor:
        """Absolute values of the transfer function of the PSF itself, of unit flux, from ``otf`` on its
        grid."""
        found = otf.abs() / torch.from_numpy(over_target(self.target_fwhm_pix, grid)).to(otf.device)
        return found / found[..., :1, :1]

    def mean_weight(self) -> torch.Tensor:
        """(b, 1, c, 1, 1): mean of 1 / sigma^2 over the stamp, masked pixels zero."""
        return self.noise.weight.mean((-1, -2), keepdim=True)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """A x."""
        n, m = self.oversample, self.margin
        h, w = self.stamp
        z = torch.fft.ifft(self._spectrum(x) * self.otf, dim=-2)[..., m : m + n * h, :]
        z = torch.fft.irfft(z, self.grid[1])[..., m : m + n * w]
        return z if n == 1 else z.unflatten(-2, (h, n)).unflatten(-1, (w, n)).sum((-1, -3))

    def _spectrum(self, x: Tensor) -> Tensor:
        """Half spectrum on the padded grid: a transform of the rows that there are, then of the columns."""
        return torch.fft.fft(torch.fft.rfft(x, self.grid[1]), self.grid[0], dim=-2)

    def from_detector(self, u: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Each detector pixel's value (..., h, w) in its fine pixels, on a grid that begins with the margin;
        zero outside."""
        n, m = self.oversample, self.margin
        h, w = self.stamp
        if n > 1:
            u = u.repeat_interleave(n, -1).repeat_interleave(n, -2)
        z = u.new_zeros((*u.shape[:-2], *grid))
        z[..., m : m + n * h, m : m + n * w] = u
        return z

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """A^T u."""
        z = self._spectrum(self.from_detector(u, self.fine)) * self.otf.conj()
        z = torch.fft.ifft(z, dim=-2)[..., : self.fine[0], :]
        return torch.fft.irfft(z, self.grid[1])[..., : self.fine[1]]

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """A^T N^-1 A x."""
        return self.adjoint(self.noise.precision(self.apply(x)))

    def quick_normal(self, x: torch.Tensor) -> torch.Tensor:
        """A^T N^-1 A x with the quick inverse of correlated noise: a preconditioner, never the likelihood."""
        return self.adjoint(self.noise.quick_precision(self.apply(x)))

    def crop(self, x: torch.Tensor) -> torch.Tensor:
        """The part (..., oversample h, oversample w) of fine images (b, ..., H, W) that the stamp covers."""
        n, m = self.oversample, self.margin
        if self.shift is not None:
            shift = self.shift if x.ndim == 5 else self.shift[:, 0]
            x = torch.fft.irfft2(torch.fft.rfft2(x) * shift, s=self.fine)
        return x[..., m : m + n * self.stamp[0], m : m + n * self.stamp[1]]

    def circulant_precision(self) -> torch.Tensor:
        """(b, 1, c, H, W // 2 + 1): spectrum on the fine grid of the stationary part of A^T N^-1 A, as if
        every pixel had the mean precision of the stamp (masked pixels count zero)."""
        return self.stationary_precision(
            *(part.mean((-1, -2), keepdim=True) for part in self.noise.precisions)
        )

    def stationary_precision(self, correlated: torch.Tensor, white: torch.Tensor) -> torch.Tensor:
        """The spectrum of A^T N^-1 A if every pixel had these precisions (b, 1, c, 1, 1): |h|^2 with the
        pixel sum, times the precision, of the correlated part over the noise power."""
        power = self.otf_fine.abs() ** 2
        n = self.oversample
        fy, fx = np.fft.fftfreq(self.fine[0]), np.fft.rfftfreq(self.fine[1])
        if n > 1:
            box = (_dirichlet(fy, n)[:, None] * _dirichlet(fx, n)[None, :]) ** 2
            power = power * torch.as_tensor(box, dtype=power.dtype, device=power.device)
        correlated = self.noise.coloured(correlated, fy * n, fx * n)
        return power * (correlated + white) * n**2  # D^T D averages n^4 squared sums over n^2 phases


def shift_transfer(shift: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(..., M, L // 2 + 1) complex64: what brings to a pixel what lies ``shift`` (..., 2) pixels beyond it
    along y and x; real at the Nyquist frequency."""
    out = []
    for axis, f in enumerate((np.fft.fftfreq(grid[0]), np.fft.rfftfreq(grid[1]))):
        phase = np.exp(2j * np.pi * f * shift[..., axis, None])
        out.append(np.where(np.abs(f) == 0.5, phase.real, phase))
    return (out[0][..., :, None] * out[1][..., None, :]).astype(np.complex64)


def kernel_hit_rate() -> float:
    """Share of the kernels that this process had ready when they were asked for; 0 before the first."""
    return _CACHE.hits / max(1, _CACHE.hits + _CACHE.misses)


def _dirichlet(f: np.ndarray, n: int) -> np.ndarray:
    """Transfer of the mean over n fine pixels at frequency f (cycles per fine pixel)."""
    return np.sinc(n * f) / np.sinc(f)


def _sigma(obs: Observation) -> tuple[np.ndarray, np.ndarray | None]:
    """(b, c, h, w) sigma of valid pixels as the noise model has it, and the fraction of it that is correlated
    from pixel to pixel; None where all of it is."""
    if obs.noise_acf is None:
        return obs.sigma, None
    valid = obs.valid
    variance = np.where(valid, obs.sigma, 0).astype(np.float64) ** 2
    white = 0.0 if obs.sigma_white is None else np.where(valid, np.minimum(obs.sigma_white**2, variance), 0)
    correlated = resampled_variance(variance - white, valid, obs.noise_acf)
    sigma = np.sqrt(correlated + white)
    if obs.sigma_white is None:
        return sigma, None
    return sigma, np.sqrt(correlated / np.maximum(sigma**2, 1e-30)).astype(np.float32)


def forward_model(
    obs: Observation,
    oversample: int = 1,
    margin: int = 0,
    multiple_of: int = 1,
    target_fwhm_pix: float = 0.0,
    scale: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    cache: TransferCache | None = None,
) -> tuple[torch.Tensor, ForwardModel]:
    """Data (b, 1, c, h, w) with masked pixels zero, and the forward model of an observation.

    ``scale`` (b, c): data and sigma are divided by it. ``margin`` in fine pixels; the fine grid is rounded up
    to ``multiple_of``. The zero in a masked pixel of the data never enters: its weight is zero.
    """
    b, c, h, w = obs.data.shape
    unit = np.ones((b, c), np.float32) if scale is None else np.asarray(scale, np.float32)
    unit = unit[:, None, :, None, None]
    valid = obs.valid[:, None]
    data = np.where(valid, obs.data[:, None] / unit, 0).astype(np.float32)
    sigma, fraction = _sigma(obs)
    weight = np.where(valid, (unit / np.where(valid, sigma[:, None], 1)) ** 2, 0).astype(np.float32)
    psf_scale = obs.psf_scale_arcsec or obs.pixel_scale_arcsec
    fine_scale = obs.pixel_scale_arcsec / oversample
    fine = tuple(-(-(n * oversample + 2 * margin) // multiple_of) * multiple_of for n in (h, w))
    reach = int(np.ceil((obs.psf.shape[-1] - 1) / 2 * psf_scale / fine_scale)) + 1
    shift = np.zeros((b, c, 2)) if obs.shift_pix is None else obs.shift_pix * float(oversample)
    reach += int(np.ceil(np.abs(shift).max(initial=0)))
    # from an unknown to a data pixel it is at most n - margin - 1: one period more than that and the reach
    grid = tuple(next_fast_len(n + max(min(reach, n - 1) - margin, 0), real=True) for n in fine)
    psf = obs.psf.reshape(b * c, *obs.psf.shape[2:])
    otf, otf_fine = (
        (cache or _CACHE).get(psf, psf_scale, fine_scale, g, target_fwhm_pix, device).unflatten(0, (b, 1, c))
        for g in (grid, fine)
    )
    part = None if fraction is None else torch.from_numpy(fraction[:, None]).to(device)
    noise = noise_model(torch.from_numpy(weight).to(device), obs.noise_acf, part)
    moved = None
    if shift.any():
        own, moved = (torch.from_numpy(shift_transfer(shift[:, None], g)).to(device) for g in (grid, fine))
        otf = otf * own
    model = ForwardModel(otf, otf_fine, noise, oversample, margin, fine, (h, w), grid, moved, target_fwhm_pix)
    return torch.from_numpy(data).to(device), model
