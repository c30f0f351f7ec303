"""The door for priors: any object with ``denoise(x, sigma)`` becomes a ``Denoiser``, once.

An object without a ``spec`` is searched for the fields of a ``PriorSpec``, and then its ``card`` (an object
or a mapping); what is nowhere has the meaning that ``PriorSpec`` gives it when left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import torch

from galbatch.errors import ConfigError
from galbatch.interfaces import FLUX_CONVENTIONS, Denoiser, PriorSpec


@dataclass(frozen=True, eq=False)
class WrappedPrior:
    """A prior of a user behind the interface."""

    prior: Any
    spec: PriorSpec

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, *bands: torch.Tensor) -> torch.Tensor:
        """As the prior does."""
        return self.prior.denoise(x, sigma, *bands)

    def cross_correlation(self, log_wavelengths: np.ndarray, k: np.ndarray) -> np.ndarray:
        """As the prior does."""
        return np.asarray(self.prior.cross_correlation(log_wavelengths, k))


def as_denoiser(prior: Any) -> Denoiser:
    """A prior with its spec: as it is when it has one, wrapped when it has not.

    Raises ``ConfigError`` for an object without ``denoise`` or with a flux convention that is not known.
    """
    if not callable(getattr(prior, "denoise", None)):
        raise ConfigError(
            f"the prior is {type(prior).__name__}: it must have a method denoise(x, sigma) that returns the "
            "mean image; give such an object, or the path of a model folder to load_prior."
        )
    own = getattr(prior, "spec", None)
    known = isinstance(own, PriorSpec)
    denoiser = cast(Denoiser, prior if known else WrappedPrior(prior, _spec(prior)))
    if denoiser.spec.flux_convention not in FLUX_CONVENTIONS:
        raise ConfigError(
            f"the prior's flux_convention is {denoiser.spec.flux_convention!r}: this version knows "
            f"{', '.join(FLUX_CONVENTIONS)}."
        )
    return denoiser


def _spec(prior: Any) -> PriorSpec:
    kind, found = type(prior), {}
    for place in (getattr(prior, "card", None), prior):
        for f in fields(PriorSpec):
            value = place.get(f.name) if isinstance(place, Mapping) else getattr(place, f.name, None)
            if value is not None:
                found[f.name] = value
    spec = PriorSpec(**found)
    return replace(
        spec,
        target_fwhm_pix=float(spec.target_fwhm_pix),
        sigma_min=float(spec.sigma_min),
        sigma_max=float(spec.sigma_max),
        margin_pix=int(spec.margin_pix),
        multiple_of=int(spec.multiple_of),
        name=str(spec.name or f"{kind.__module__}.{kind.__qualname__}"),
        sha256=str(spec.sha256),
    )


@dataclass
class DrawsDenoiser:
    """A prior seen as D(x, sigma) on draws (b, k, c, H, W) with sigma (b,). ``bands`` (c,): log wavelengths
    of bands that a joint prior sees together."""

    prior: Denoiser
    bands: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        b, k = x.shape[:2]
        named = () if self.bands is None else (self.bands,)
        d = self.prior.denoise(x.flatten(0, 1), sigma.repeat_interleave(k), *named)
        return d.unflatten(0, (b, k)).to(x.dtype)
