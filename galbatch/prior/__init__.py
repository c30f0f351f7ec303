"""The prior: what galaxies look like, learned from simulations, as a denoiser."""

from galbatch.prior.compile import choose_precision
from galbatch.prior.model import Prior, choose_device, load_prior

__all__ = ["Prior", "choose_device", "choose_precision", "load_prior"]
