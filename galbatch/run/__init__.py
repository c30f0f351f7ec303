"""A run over a whole catalogue: plan, cluster, workers, resume. The only part that knows Dask.

Each name is imported on first use: ``status``, ``verify`` and ``repair`` load neither torch nor Dask.
"""

from importlib import import_module

_PUBLIC = {
    "process": "galbatch.run.execute",
    "repair": "galbatch.run.inspect",
    "resume": "galbatch.run.execute",
    "status": "galbatch.run.inspect",
    "verify": "galbatch.run.inspect",
}
__all__ = list(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'galbatch.run' has no attribute {name!r}")
