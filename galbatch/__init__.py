"""galbatch: posterior samples of deconvolved galaxy images, and morphology with error bars, for whole
surveys.

The public API; each name is imported on first use, so that ``import galbatch`` loads neither torch nor Dask.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "Observation": "galbatch.types",
    "Posterior": "galbatch.types",
    "Flag": "galbatch.types",
    "load_prior": "galbatch.prior",
    "sample_posterior": "galbatch.sampler",
    "measure": "galbatch.morphology",
    "process": "galbatch.run",
    "open_run": "galbatch.store",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'galbatch' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
