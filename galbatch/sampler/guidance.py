"""The posterior denoiser E[x0 | x_sigma, y]: a prior denoiser and a likelihood, and again a denoiser.

``V = sigma^2 J`` is the covariance of x0 given x_sigma (Tweedie; J the Jacobian of the denoiser),
``Q = A^T N^-1 A``. With a Gaussian p(x0 | x_sigma) of that covariance, E[x0 | x_sigma, y] = D + V w with
(I + Q V) w = A^T N^-1 (y - A D): moment matching (Rozet et al. 2024). Solved with products by V (finite
differences of plain evaluations), preconditioned by a solve that needs no network: V as W v W, v its mean
spectrum and W an envelope that follows the brightness, because what the denoiser leaves of a galaxy lies
where the galaxy is (docs/decisions/0010). The same solve corrects what is left.
Below the noise level a first-order tilt of the input is enough. For a bright source there is no level below
it, and the last call draws from the Gaussian p(x0 | x_sigma, y) with W v W for a covariance.

Compact light that an image leaves in the data: the matched filter of the smallest feature a prior knows,
a point at its resolution.

With the gradient of the log-likelihood, g = A^T N^-1 (y - A x), a feature of shape b at a place has the
amplitude b.g / b.Qb, Q = A^T N^-1 A, and the significance b.g / sqrt(b.Qb), of variance one where x is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from galbatch.forward import target_transfer
from galbatch.interfaces import Likelihood
from galbatch.sampler.random import Normals
from galbatch.sampler.schedule import Kind
from galbatch.sampler.solve import BOUND, BOUND_ROUGH, FLOAT_FLOOR, ROUGH, ROUGH_JOINT, Solver
from galbatch.sampler.spectra import Covariance, Spectra, coloured, parseval

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.sampler.prior import DrawsDenoiser


# Rms of a finite difference step, in units of sigma: a smaller one drowns in the rounding of a network in
# bfloat16, a larger one leaves the straight part of the denoiser (docs/decisions/0009).
DIFFERENCE_STEP = 0.1
ENVELOPE_PIX = 5  # side of the box that the brightness of an envelope is the mean of
ENVELOPE_FLOOR = 0.02  # of the brightest: light may be found where none is seen yet
ENVELOPE_POWER = 0.75  # of the brightness: with the root of it, cores of few pixels are spread too far
FOUND_SN = 5.0  # significance from which the data alone say that there is light


def _wide(sigma: Tensor) -> Tensor:
    return sigma[:, None, None, None, None]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-1, -2, -3), keepdim=True)


def jacobian_product(denoise: DrawsDenoiser, x: Tensor, sigma: Tensor, d: Tensor, u: Tensor) -> Tensor:
    """J u for the Jacobian J of the denoiser at x (where it is d), by a finite difference: one evaluation."""
    step = (
        DIFFERENCE_STEP * _wide(sigma) / u.square().mean((-1, -2, -3), keepdim=True).sqrt().clamp_min(1e-30)
    )
    return (denoise(x + step * u, sigma) - d) / step


def conjugate_residuals(
    r: Tensor,
    covariance: Callable[..., Any],
    q: Callable[..., Any],
    precondition: Callable[..., Any],
    products: int,
) -> tuple[Tensor, Tensor]:
    """V w and what is left, r - (I + Q V) w, after ``products`` steps of generalised conjugate residuals on
    (I + Q V) w = r.

    From w = 0, minimising the preconditioned residual, of each band over its first: a V far from the
    preconditioner slows it and cannot make it diverge, and a bright band does not hide a faint one.
    """
    if not products:
        return torch.zeros_like(r), r
    residual = precondition(r)
    first = residual.square().mean((-1, -2), keepdim=True)
    weight = torch.ones_like(first) if r.shape[2] == 1 else torch.where(first > 0, 1 / first, 0)
    vw = torch.zeros_like(r)
    done: list[tuple] = []
    for _ in range(products):
        u = residual
        vu = covariance(u)
        qu = u + q(vu)
        pu = precondition(qu)
        for u2, vu2, qu2, pu2 in done:
            beta = _dot(weight * pu, pu2) / _dot(weight * pu2, pu2).clamp_min(1e-30)
            u, vu, qu, pu = u - beta * u2, vu - beta * vu2, qu - beta * qu2, pu - beta * pu2
        a = _dot(weight * residual, pu) / _dot(weight * pu, pu).clamp_min(1e-30)
        vw, r, residual = vw + a * vu, r - a * qu, residual - a * pu
        done.append((u, vu, qu, pu))
    return vw, r


LEAST_COVERAGE = 0.5  # of the pixels under a feature: a place that is masked or off the stamp says nothing


class CompactFilter:
    """For one observation. ``fwhm_pix``: of the feature, in fine pixels."""

    def __init__(self, model: Likelihood, fwhm_pix: float) -> None:
        self.shape = model.fine
        device, sums = model.otf_fine.device, parseval(model.fine, model.otf_fine.device)
        self.transfer = torch.as_tensor(
            target_transfer(fwhm_pix, self.shape), dtype=torch.float32, device=device
        )
        self.height = float((self.transfer * sums).sum())
        information = (model.circulant_precision() * self.transfer.square() * sums).sum(
            (-1, -2), keepdim=True
        )
        # b.Qb follows the weights under the feature as the telescope sees it: exact for white noise
        seen_as = torch.fft.irfft2(model.otf_fine * self.transfer, s=self.shape).square()
        seen_as = torch.fft.rfft2(seen_as / seen_as.sum((-1, -2), keepdim=True)).conj()

        def under(image: Tensor) -> Tensor:
            """Mean (b, 1, c, H, W) of a detector image under a feature at each place."""
            spectrum = torch.fft.rfft2(model.from_detector(image, self.shape))
            return torch.fft.irfft2(spectrum * seen_as, s=self.shape)

        weight = model.noise.weight
        self.seen = under((weight > 0).to(weight.dtype)) > LEAST_COVERAGE
        weight = under(weight / model.mean_weight().clamp_min(1e-30))
        self.information = (information * weight.clamp_min(1e-9)).clamp_min(1e-30)  # a band without pixels

    def __call__(self, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Significance and height (b, k, c, H, W) from ``gradient``, of the same shape."""
        matched = torch.fft.irfft2(torch.fft.rfft2(gradient) * self.transfer, s=self.shape)
        matched = matched.where(self.seen, 0)
        return matched / self.information.sqrt(), matched / self.information * self.height


def envelope(image: torch.Tensor) -> torch.Tensor:
    """W of an image (b, k, c, H, W): its smoothed brightness to the power ``ENVELOPE_POWER``, of mean square
    one."""
    b, k = image.shape[:2]
    bright = F.avg_pool2d(
        image.clamp_min(0).flatten(0, 1), ENVELOPE_PIX, 1, ENVELOPE_PIX // 2, count_include_pad=False
    ).unflatten(0, (b, k))
    bright = bright + ENVELOPE_FLOOR * bright.amax((-1, -2), keepdim=True) + 1e-12
    w = bright**ENVELOPE_POWER
    return w * w.square().mean((-1, -2), keepdim=True).rsqrt()


def found_light(compact: CompactFilter, gradient: torch.Tensor) -> torch.Tensor:
    """The brightness (b, k, c, H, W) of what is significant in the gradient of the log-likelihood, over the
    box of an envelope."""
    significance, height = compact(gradient)
    light = height.where(significance > FOUND_SN, 0)
    return F.max_pool2d(light.flatten(0, 1), ENVELOPE_PIX, 1, ENVELOPE_PIX // 2).unflatten(0, light.shape[:2])


def gaussian_draw(
    model: Likelihood,
    data: Tensor,
    solver: Solver,
    mean: Tensor,
    v: Covariance,
    normal: Callable,
    window: Tensor | None = None,
    relative: float = FLOAT_FLOOR,
) -> Tensor:
    """Draws (b, k, c, H, W) given the data of an image with a Gaussian law of ``mean`` and covariance
    W v W, v that of its modes and W the ``window`` (None: one), by Matheron's rule: a draw of the law,
    its data with noise, and the correction by the misfit, solved to ``relative``."""
    grid = model.fine
    e = torch.fft.irfft2(coloured(v, torch.fft.rfft2(normal(data.shape[2], *grid))), s=grid)
    z = mean + (e if window is None else window * e)
    y = model.apply(z) + model.noise.sample(normal)
    score = model.adjoint(model.noise.precision(data - y))
    return z + solver.correction(v, score, window, True, relative)


@dataclass
class PosteriorDenoiser:
    """Call it as D(x, previous, sigma, relative, kind), with what the schedule has for the level and the mean
    that it found at the level before (zero at the first): what the step goes to.

    ``data`` (b, 1, c, h, w); ``products``: Jacobian products a matched step takes; ``compact``: of images
    that are light on a dark sky, whose V has an envelope.
    """

    denoise: DrawsDenoiser
    model: Likelihood
    data: torch.Tensor
    spectra: Spectra
    solver: Solver
    normals: Normals
    products: int = 1
    compact: CompactFilter | None = None

    def __call__(
        self,
        x: torch.Tensor,
        previous: torch.Tensor,
        sigma: torch.Tensor,
        relative: torch.Tensor,
        kind: Kind,
    ) -> torch.Tensor:
        tilt = self._score(previous) if kind is Kind.TILTED else torch.zeros_like(x)
        d = self.denoise(x + _wide(sigma) ** 2 * tilt, sigma)
        if kind is Kind.TILTED:
            return d
        v = self.spectra.left_at(sigma)
        score = self._score(d)
        window = None
        if self.compact is not None:  # what the denoiser sees, or the data did at the last level, or do now
            light = found_light(self.compact, score)
            window = envelope(torch.maximum(torch.maximum(d, light), previous))
        if kind is Kind.DRAWN:
            return gaussian_draw(self.model, self.data, self.solver, d, v, self.normals.draw, window)
        return self._matched(x, d, sigma, v, score, window, _wide(relative))

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        """A^T N^-1 (y - A x), the gradient of the log-likelihood at x."""
        return self.model.adjoint(self.model.noise.precision(self.data - self.model.apply(x)))

    def _matched(
        self,
        x: Tensor,
        d: Tensor,
        sigma: Tensor,
        v: Covariance,
        score: Tensor,
        window: Tensor | None,
        relative: Tensor,
    ) -> Tensor:
        def covariance(u: Tensor) -> Tensor:
            return _wide(sigma) ** 2 * jacobian_product(self.denoise, x, sigma, d, u)

        def direction(r: Tensor) -> Tensor:
            """r - Q c, what the solve leaves of r: it need not be exact."""
            one = r.shape[2] == 1
            rough, bound = (ROUGH, BOUND_ROUGH) if one else (ROUGH_JOINT, BOUND)
            c = self.solver.correction(v, r, window, relative=rough, bound=bound)
            return r - self.model.quick_normal(c)

        vw, r = conjugate_residuals(score, covariance, self.model.normal, direction, self.products)
        self.solver.left = None  # each level puts right what the one before left: the last one counts
        return d + vw + self.solver.correction(v, r, window, relative=relative, bound=BOUND)
