"""What data say of PSFs: with which of those that draws have does no galaxy make the data, and do the bands
of one galaxy agree about their widths?

A band whose PSF is wider than it is said to be still has a posterior that fits: a galaxy that is smoother in
this band than in the others. So the data of each band are held against what the other bands show. With m_o
the posterior means of the others and A the operator of the band,

    y = sum_o a_o A G(s^2) m_o + noise,

where G convolves with a Gaussian of variance s^2 along each axis (sharpens, where that is negative) and the
a_o are free, is fitted by least squares for a range of s^2. Galaxies differ from band to band, and more
freely than by a convolution: a PSF is doubted only where an s^2 accounts for more than half of what the other
bands do not explain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from galbatch.forward import target_transfer
from galbatch.sampler.diagnostics import footprint_of, sharper_than_resolution

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.interfaces import Likelihood
    from galbatch.sampler.draw import Call, Drawn, Problem

# Of the square of the PSF's width: what is tried for s^2; 0.1 is 5% of the width
SHARES = np.arange(-5, 16) / 10
SIGNIFICANT = 25.0  # of chi2: five standard deviations
_RIDGE = 1e-6
# of the peak: a draw as much sharper than its resolution is made again with another PSF (BROKEN_SHARE)
REDRAWN_SHARE = 0.1
UNLIKE = 6.0  # standard deviations of chi2
REDRAW_STAGE, TRIES = 3 << 20, 3  # first random stage of draws with another PSF, and how often


def psf_doubted(
    model: Likelihood, data: Tensor, mean: Tensor, fwhm_pix: float, source: Tensor | None = None
) -> np.ndarray:
    """(b, c) bool: bands that look like the others seen with another PSF than theirs.

    ``data`` (b, 1, c, h, w), ``mean`` (b, c, H, W) of draws at a resolution of ``fwhm_pix``, ``source``
    (b, 1, c, h, w) bool: only there; False in bands without pixels.
    """
    weight = model.noise.weight if source is None else model.noise.weight * source
    best, gained, left = best_width(model, data, mean, fwhm_pix, weight)
    pixels = (weight > 0).sum((-1, -2))[:, 0].cpu().numpy()
    unexplained = left - pixels
    return (best != 0) & (gained > np.maximum(SIGNIFICANT * model.noise.inflation, unexplained))


def best_width(
    model: Likelihood, data: Tensor, mean: Tensor, fwhm_pix: float, weight: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(b, c) each: the best s^2 in squares of the PSF's width, by how much chi2 falls to it from s^2 = 0, and
    chi2 there, of pixels of ``weight`` 1 / sigma^2 as if their noise were white."""
    c = mean.shape[1]
    k2 = _squared_frequency(model.fine, mean.device)
    width = _squared_width(model.otf_fine, fwhm_pix, model.fine)
    others = [torch.fft.rfft2(torch.nan_to_num(mean).roll(-j, 1)[:, None]) for j in range(1, c)]
    chi2 = []
    for share in SHARES.tolist():
        blur = torch.exp((-0.5 * share) * width * k2).clamp_max(1e3)
        seen = torch.stack([model.apply(torch.fft.irfft2(o * blur, s=model.fine)) for o in others], -1)
        a, y = (seen * weight.sqrt()[..., None]).flatten(-3, -2).double(), (data * weight.sqrt()).flatten(-2)
        normal, right = a.mT @ a, a.mT @ y[..., None].double()
        ridge = _RIDGE * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp_min(1e-30)
        normal = normal + ridge * torch.eye(c - 1, dtype=a.dtype, device=a.device)
        rest = y[..., None] - a @ torch.linalg.solve(normal, right)
        chi2.append(rest.square().sum((-1, -2))[:, 0].cpu().numpy())
    table = np.stack(chi2)
    lowest = table.argmin(0)
    left = np.take_along_axis(table, lowest[None], 0)[0]
    return SHARES[lowest], table[np.abs(SHARES).argmin()] - left, left


def _squared_frequency(shape: tuple[int, int], device: torch.device) -> Tensor:
    """(H, W // 2 + 1) square of the angular frequency."""
    y, x = (2 * np.pi * f(n) for f, n in zip((np.fft.fftfreq, np.fft.rfftfreq), shape, strict=True))
    return torch.as_tensor(y[:, None] ** 2 + x**2, dtype=torch.float32, device=device)


def _squared_width(otf: Tensor, fwhm_pix: float, shape: tuple[int, int]) -> Tensor:
    """(b, 1, c, 1, 1) variance along an axis of the Gaussian whose transfer falls to one half where that of
    the PSF does, along x."""
    target = torch.as_tensor(target_transfer(fwhm_pix, shape), dtype=torch.float32, device=otf.device)
    along = (otf * target).abs()[..., 0, :]
    low = (along < 0.5 * along[..., :1]).float()
    first = torch.where(low.any(-1), low.argmax(-1), along.shape[-1] - 1)
    half = 2 * np.pi * first / shape[1]
    return (2 * np.log(2) / half.clamp_min(1e-3) ** 2)[..., None, None]


def broken_draws(x: torch.Tensor, fwhm_pix: float) -> torch.Tensor:
    """(b, k, c) which of the draws (b, k, c, H, W) are sharper than light at this resolution can be, by more
    than ``REDRAWN_SHARE`` of their peak."""
    each = torch.nan_to_num(x).flatten(0, 1)
    found = sharper_than_resolution(each, torch.zeros_like(each), fwhm_pix) > REDRAWN_SHARE
    return found.view(x.shape[:3])


def unlike_draws(model: Likelihood, data: Tensor, seen: Tensor) -> Tensor:
    """(b, k, c) which of the draws, as the telescope would see them with their PSFs (b, k, c, h, w), fit the
    data of the footprint worse than chance and than the best quarter of them, by ``UNLIKE`` standard
    deviations of chi2."""
    noise, footprint = model.noise, footprint_of(model, seen)
    pixels = footprint.sum((-1, -2)).clamp_min(1)
    chi2 = ((data - seen).square() * noise.weight * footprint).sum((-1, -2)) / pixels
    usual = chi2.nanquantile(0.25, 1, keepdim=True).clamp_min(1)
    inflation = torch.as_tensor(noise.inflation, dtype=pixels.dtype, device=pixels.device)
    return chi2 > usual * (1 + UNLIKE * (2 * inflation / pixels).sqrt())


def with_other_psfs(problem: Problem, call: Call, drawn: Drawn) -> tuple[Drawn, np.ndarray]:
    """Draws with those made again that are no image of a galaxy or do not fit in a band, because its PSF is
    one with which no galaxy makes these data: with another PSF in that band. And evaluations per draw."""
    if drawn.psf is None:
        return drawn, np.zeros(len(drawn.x))
    spent, k = np.zeros(len(drawn.x)), drawn.x.shape[1]
    for attempt in range(TRIES):
        bands = broken_draws(problem.model.crop(drawn.x), problem.prior.spec.target_fwhm_pix)
        bands |= unlike_draws(problem.model, problem.data, problem.seen(drawn))
        broken = bands.any(-1)
        rows, draws = (np.flatnonzero(broken.any(axis).cpu().numpy()) for axis in (1, 0))
        if not len(rows):
            break
        stage = REDRAW_STAGE + (attempt << 12)
        places = np.ix_(rows, draws)
        kept = torch.where(bands[places][..., None], torch.nan, drawn.psf[places])
        found, evaluated = problem.take(rows).run(call.mode, draws.tolist(), stage, call, kept)
        spent[rows] += evaluated * broken[rows].float().sum(1).cpu().numpy() / k
        drawn = drawn.where(broken[places], found, places)
    return drawn, spent
