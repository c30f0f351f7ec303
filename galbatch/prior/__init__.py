"""The prior: what galaxies look like, learned from simulations, as a denoiser."""

from galbatch.prior.compile import choose_precision
from galbatch.prior.folder import choose_device, choose_model
from galbatch.prior.model import Prior, load_prior

__all__ = ["Prior", "choose_device", "choose_model", "choose_precision", "load_prior"]
