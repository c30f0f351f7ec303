"""How many evaluations are spent at which noise levels, per mode and source.

``rho``, the noise level of the data as seen from the image: twice the largest sigma at which tilting the
input of the denoiser is right to first order, V Q <= 0.22 with V = sigma^2 J the covariance of x0 given
x_sigma (``TILT_FACTOR`` times its mean spectrum, at most sigma^2) and Q = A^T N^-1 A. Modes that the prior
excludes do not count, however well they are measured. Guided levels run log-uniformly from ``START`` times
the largest standard deviation of a mode of the prior to rho / 2, tail levels from there to ``Mode.last``
rho. The number of guided levels follows from the ratio of two of them: a faint source needs fewer than a
bright one. Tails are the cheapest with which the spread of Gaussian modes, of any width between the last
level and the prior's, is right to about 5% (default) and 1%; what fewer levels cost: docs/decisions/0032.

A Gaussian prior could start at its largest deviation. A galaxy is one place of the stamp that is bright:
its light is seen through noise far above the deviation of any one Fourier mode, and what the first level
takes for Gaussian stays too smooth (decision 0007).

A bright source, whose noise lies below every level that the denoiser knows, has no tail: its guided levels
end at the lowest one, with a draw from the Gaussian that is left there (``guidance.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from galbatch.prior.integrate import LAST_DENOISING, coefficients, log_levels
from galbatch.sampler.solve import EARLY, FLOAT_FLOOR
from galbatch.sampler.spectra import Spectra

TILT_LIMIT = 0.22
TILT_FACTOR = 5.0
LAST_LEVEL = 0.03
START = 4.0


@dataclass(frozen=True)
class Mode:
    """Guided steps, of 1 + ``products`` evaluations, at levels at most ``ratio`` apart (between ``fewest``
    and ``most`` of them), and ``tail`` steps of one evaluation, the last at ``last`` rho.
    ``rerun``: repeat the draws that the chi2 gate flags. A change asks for other calibrations
    (``prior.folder.STEPS``)."""

    ratio: float
    fewest: int
    most: int
    tail: int
    products: int = 1
    last: float = LAST_LEVEL
    iterations: int = 250
    rerun: bool = False

    def guided(self, rho: float, max_sd: float) -> int:
        """Number of guided steps for a source of noise level ``rho``."""
        span = START * max_sd / min(0.5 * rho, max_sd / 4)
        steps = math.ceil(math.log(span) / math.log(self.ratio) - 1e-6)
        return min(max(steps, self.fewest), self.most)


MODES = {
    "fast": Mode(ratio=5.0, fewest=2, most=6, tail=2, last=0.08),
    "default": Mode(ratio=3.0, fewest=3, most=7, tail=4),
    "accurate": Mode(ratio=1.8, fewest=8, most=16, tail=7, products=2, rerun=True),
    "rerun": Mode(ratio=1.5, fewest=12, most=24, tail=8, products=3),
}


class Kind(Enum):
    """What the posterior denoiser does at a level: moment matching; a tilt of the input; or a draw from the
    Gaussian that is left."""

    MATCHED = "matched"
    TILTED = "tilted"
    DRAWN = "drawn"


@dataclass(frozen=True)
class Level:
    """One level of a batch, whose sources end together and begin when it is their turn.

    ``numbers`` (6, b): sigma, the share of its first residual where a solve ends, and the ``coefficients`` of
    the integrator. ``own`` (b,): which of its own levels it is for a source; negative before the first.
    """

    kind: Kind
    last: bool
    numbers: torch.Tensor
    own: torch.Tensor


def schedule(
    mode: Mode, guided: Sequence[int], rho: torch.Tensor, max_sd: float, sigma_min: float, bright: bool
) -> list[Level]:
    """The levels of sources with noise levels ``rho`` (b,) and as many ``guided`` levels each. Solves are
    rough in the first half of them, because the next levels put their error right."""
    device, rho, most = rho.device, rho.cpu(), max(guided)
    columns = [
        levels_of(mode, g, r[None], max_sd, sigma_min, bright)[:, 0] for g, r in zip(guided, rho, strict=True)
    ]
    sigma = torch.stack(
        [torch.cat([c[:1].expand(most - g), c]) for g, c in zip(guided, columns, strict=True)], 1
    )
    number = torch.tensor(guided)
    own = torch.arange(len(sigma))[:, None] - (most - number)
    relative = torch.where(2 * (own + 1) < number, EARLY, FLOAT_FLOOR)
    steps = coefficients(sigma, last=1.0 if bright else LAST_DENOISING)
    numbers = torch.cat([sigma[:, None], relative[:, None], steps], 1).to(device)
    own, end = own.to(device), len(sigma) - 1
    kinds = [Kind.MATCHED] * most + [Kind.TILTED] * (end - most) + [Kind.DRAWN if bright else Kind.TILTED]
    return [Level(kinds[i], i == end, numbers[i], own[i]) for i in range(end + 1)]


def evaluations(mode: Mode, guided: int, bright: bool) -> int:
    """Of the network, per draw of a source."""
    return guided * (1 + mode.products) + (1 if bright else mode.tail)


def noise_level(spectra: Spectra, precision: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``rho`` (b,) for the stationary part ``precision`` (b, 1, c, H, W // 2 + 1) of A^T N^-1 A, and whether
    the source is bright: no level is low enough."""
    low, high = spectra.sigma[:1], torch.full_like(spectra.sigma[:1], spectra.max_sd)
    sigma = log_levels(torch.minimum(low, high / 8), high / 2, 96)[:, 0]
    wide = sigma[:, None, None, None]
    covariance = torch.minimum(TILT_FACTOR * spectra.residual_at(sigma)[:, 0], wide**2)
    strength = torch.stack([(covariance * q).amax((-1, -2, -3)) for q in precision[:, 0]])
    allowed = (strength <= TILT_LIMIT).cumprod(1).sum(1)
    return 2 * sigma[allowed.clamp_min(1) - 1], allowed == 0


def levels_of(
    mode: Mode, guided: int, rho: torch.Tensor, max_sd: float, sigma_min: float, bright: bool = False
) -> torch.Tensor:
    """(guided + tail, b) noise levels for sources with noise levels ``rho`` (b,); (guided + 1, b) for bright
    ones."""
    high = torch.full_like(rho, START * max_sd)
    switch = torch.clamp(0.5 * rho, max=max_sd / 4)
    if bright:
        return log_levels(high, switch, guided + 1)
    low = torch.minimum(torch.clamp(mode.last * rho, min=sigma_min), switch / 2)
    return torch.cat([log_levels(high, switch, guided + 1)[:-1], log_levels(switch, low, mode.tail)])
