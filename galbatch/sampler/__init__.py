"""Posterior sampling: a prior denoiser conditioned on data, and an integrator that knows nothing of data."""

from galbatch.sampler.posterior import sample_posterior, sources_at_once

__all__ = ["sample_posterior", "sources_at_once"]
