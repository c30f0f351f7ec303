"""What the sampler asks of a prior: ``denoise(x, sigma)`` and a few fields, with the meaning of those left
out.

Fields are looked for on the prior itself and then on its ``card`` (an object or a mapping).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

_DEFAULTS: dict[str, Any] = {
    "channels": None,  # None: any number of bands, seen together
    "target_fwhm_pix": 0.0,
    "flux_convention": "data",  # the unit of the data; "smoothed_peak": over the scale of forward/scale.py
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "margin_pix": 0,
    "multiple_of": 1,
    "max_sd": None,
    "spectrum": None,
    "residual_spectrum": None,
    "device": "cpu",
}


def prior_field(prior, name: str):
    """A field of a prior or of its card, or what it means when it is left out."""
    for place in (prior, getattr(prior, "card", None)):
        if isinstance(place, Mapping):
            value = place.get(name)
        else:
            value = getattr(place, name, None)
        if value is not None:
            return value
    return _DEFAULTS[name]


@dataclass
class CountedDenoiser:
    """A prior seen as D(x, sigma) on (b, k, c, H, W) with sigma (b,), counting the evaluations of each
    draw."""

    prior: Any
    evaluations: int = 0

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        b, k = x.shape[:2]
        self.evaluations += 1
        return (
            self.prior.denoise(x.flatten(0, 1), sigma.repeat_interleave(k)).unflatten(0, (b, k)).to(x.dtype)
        )
