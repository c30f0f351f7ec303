"""galbatch: posterior samples of deconvolved galaxy images, and morphology with error bars, for whole
surveys.

The public API; each name is imported on first use, so that ``import galbatch`` loads neither torch nor Dask.
"""

from galbatch.lazy import lazy

__version__ = "0.1.0"

_HOMES = {
    "Observation": "galbatch.types",
    "Posterior": "galbatch.types",
    "Flag": "galbatch.types",
    "load_prior": "galbatch.prior",
    "sample_posterior": "galbatch.sampler",
    "measure": "galbatch.morphology",
    "process": "galbatch.run",
    "open_run": "galbatch.store",
}
__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = lazy(__name__, _HOMES)
