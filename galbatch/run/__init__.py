"""A run over a whole catalogue: plan, cluster, workers, resume. The only part that knows Dask.

Each name is imported on first use: ``status``, ``verify`` and ``repair`` load neither torch nor Dask.
"""

from galbatch.lazy import lazy

_HOMES = {
    "preview": "galbatch.run.start",
    "process": "galbatch.run.start",
    "repair": "galbatch.run.inspect",
    "resume": "galbatch.run.start",
    "status": "galbatch.run.inspect",
    "verify": "galbatch.run.inspect",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
