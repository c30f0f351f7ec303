"""Batched statistics of galaxy images, their flags, and their summaries over posterior draws.

Names are imported on first use: the flags load no compiled kernels.
"""

from galbatch.lazy import lazy

_HOMES = {
    "compile_kernels": "galbatch.morphology.ahead",
    "MORPH_FLAG_DESCRIPTIONS": "galbatch.morphology.flags",
    "MorphFlag": "galbatch.morphology.flags",
    "flag_names": "galbatch.morphology.flags",
    "sersic_severity": "galbatch.morphology.flags",
    "severity": "galbatch.morphology.flags",
    "measure": "galbatch.morphology.images",
    "Statistic": "galbatch.morphology.plugins",
    "StatisticInput": "galbatch.morphology.plugins",
    "all_quantities": "galbatch.morphology.plugins",
    "measure_posterior": "galbatch.morphology.posterior",
    "OwnLight": "galbatch.morphology.separate",
    "own_light": "galbatch.morphology.separate",
    "QUANTITIES": "galbatch.columns",
    "summarise": "galbatch.morphology.summary",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
