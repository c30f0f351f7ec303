"""A run over a whole catalogue: plan, cluster, workers, resume. The only part that knows Dask.

Each name is imported on first use: ``status``, ``verify`` and ``repair`` load neither torch nor Dask.
"""

from galbatch.lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__, inspect="repair status verify", start="preview process resume")
