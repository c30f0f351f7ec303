"""Posterior sampling: a prior denoiser conditioned on data, and an integrator that knows nothing of data."""

from galbatch.sampler.posterior import sample_posterior

__all__ = ["sample_posterior"]
