"""galbatch: posterior samples of deconvolved galaxy images, and morphology with error bars, for whole
surveys.

The public API; each name is imported on first use, so that ``import galbatch`` loads neither torch nor Dask.
"""

from galbatch.lazy import lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy(
    __name__,
    morphology="measure",
    prior="load_prior",
    run="process",
    sampler="sample_posterior",
    store="open_run",
    types="Flag Observation Posterior",
)
__all__ += ["__version__"]
