"""Batched statistics of galaxy images, their flags, and their summaries over posterior draws.

Names are imported on first use: the flags load no compiled kernels.
"""

from galbatch.columns import QUANTITIES
from galbatch.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    flags="MORPH_FLAG_DESCRIPTIONS MorphFlag flag_names sersic_severity severity",
    images="measure",
    plugins="Statistic StatisticInput all_quantities",
    posterior="compile_kernels measure_posterior summarise",
    separate="OwnLight fitted_neighbours own_light second_source",
)
__all__ += ["QUANTITIES"]
