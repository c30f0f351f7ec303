"""What a peer is given: one galaxy, and galbatch's network where it uses one.

A posterior sampler sees the problem in the units of the prior and whitened, y = A x + e with e ~ N(0, I);
its images are (k, 1, H, W) on galbatch's fine grid with its margin of unknown sky. A tool with a prior of its
own takes the observation (``obs``) and the blur between the target PSF and the data (``narrow_psf``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from galbatch.forward import ForwardModel, forward_model, smoothed_peak_scale
from galbatch.sampler.prior import as_denoiser
from galbatch.types import Observation

UNKNOWN = 1e8  # variance of a pixel without data, over that of the sky
START = 4.0  # first noise level, in units of the prior's largest standard deviation


class _CountBackward(torch.autograd.Function):
    """Identity that counts the vector-Jacobian products which pass it."""

    @staticmethod
    def forward(x, counts):
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.counts = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        ctx.counts["vjp"] += 1
        return grad, None


class Network(torch.nn.Module):
    """The prior's network, differentiable where a peer asks for it, compiled where not. Counts what it is
    asked for."""

    def __init__(self, prior):
        super().__init__()
        self.prior, self.counts = prior, {"forward": 0, "vjp": 0}

    def forward(self, x, sigma):
        """x (k, 1, H, W), sigma () or (k,) -> E[x0 | x], same shape."""
        self.counts["forward"] += 1
        sigma = torch.as_tensor(sigma, dtype=torch.float32).reshape(-1).expand(len(x))
        if (torch.is_grad_enabled() and x.requires_grad) or torch._C._functorch.is_gradtrackingtensor(x):
            return _CountBackward.apply(self.prior.model(x, self.prior._mapped(sigma)), self.counts)
        return self.prior.denoise(x, sigma).clone()

    @property
    def evaluations(self) -> int:
        """Forward passes and vector-Jacobian products, each counted as one (a product costs about two)."""
        return self.counts["forward"] + self.counts["vjp"]


@dataclass
class Problem:
    """One galaxy. ``y`` (D,) whitened data; ``gain``: mean of the whitening weights, 1 / noise in the prior's
    units; ``reach``: largest absolute pixel of the truth, for peers that clip."""

    obs: Observation
    network: Network
    model: ForwardModel
    weight: torch.Tensor
    y: torch.Tensor
    gain: float
    scale: float
    sigma_max: float
    sigma_min: float
    reach: float = 1.0

    @classmethod
    def of(cls, prior, obs: Observation) -> Problem:
        """From one source in one band with white noise."""
        spec = as_denoiser(prior).spec
        scale = smoothed_peak_scale(obs) if spec.flux_convention == "smoothed_peak" else np.ones((1, 1))
        sizes = spec.margin_pix, spec.multiple_of, spec.target_fwhm_pix
        data, model = forward_model(obs, 1, *sizes, scale)
        weight = model.noise.weight[0, 0].sqrt()
        gain = float(weight[weight > 0].mean())
        low, high = max(0.1 / gain, spec.sigma_min), START * spec.max_sd
        return cls(
            obs,
            Network(prior),
            model,
            weight,
            (data[0, 0] * weight).flatten(),
            gain,
            float(scale[0, 0]),
            high,
            low,
        )

    @property
    def grid(self):
        return self.model.fine

    def forward(self, x):
        """(k, 1, H, W) -> (k, D)."""
        return (self.model.apply(x[None])[0] * self.weight).flatten(1)

    def adjoint(self, u):
        """(k, D) -> (k, 1, H, W)."""
        return self.model.adjoint((u.unflatten(1, self.weight.shape) * self.weight)[None])[0]

    def images(self, x):
        """Stamps (k, h, w) in the unit of the data."""
        return self.model.crop(x)[:, 0].detach().double().numpy() * self.scale

    def narrow_psf(self) -> np.ndarray:
        """The PSF without the target PSF that is in it already, (h - 1, w - 1), centred, for stamps of even
        sides."""
        point = torch.zeros(1, 1, 1, *self.grid)
        h, w = self.weight.shape[-2:]
        point[..., self.model.margin + h // 2, self.model.margin + w // 2] = 1
        return self.model.apply(point)[0, 0, 0, 1:, 1:].double().numpy()

    def stamp(self, border: int) -> tuple[np.ndarray, np.ndarray]:
        """Data and variances (h + 2 border, w + 2 border); where nothing is known the data are zero and the
        variances infinite for all that matters."""
        known = self.obs.valid[0, 0]
        data = np.where(known, self.obs.data[0, 0], 0).astype(float)
        unknown = UNKNOWN * float(np.median(self.obs.sigma)) ** 2
        variance = np.where(known, self.obs.sigma[0, 0].astype(float) ** 2, unknown)
        return np.pad(data, border), np.pad(variance, border, constant_values=unknown)
