"""The prior: what galaxies look like, learned from simulations, as a denoiser."""

from galbatch.prior.model import Prior, load_prior

__all__ = ["Prior", "load_prior"]
