"""Batched statistics of galaxy images, their flags, and their summaries over posterior draws."""

from galbatch.morphology.ahead import compile_kernels
from galbatch.morphology.flags import (
    MORPH_FLAG_DESCRIPTIONS,
    MorphFlag,
    flag_names,
    sersic_severity,
    severity,
)
from galbatch.morphology.measure import measure
from galbatch.morphology.plugins import Statistic, StatisticInput, all_quantities
from galbatch.morphology.posterior import measure_posterior
from galbatch.morphology.quantities import QUANTITIES, Quantity
from galbatch.morphology.summary import column_description, summarise

__all__ = [
    "MORPH_FLAG_DESCRIPTIONS",
    "QUANTITIES",
    "MorphFlag",
    "Quantity",
    "Statistic",
    "StatisticInput",
    "all_quantities",
    "column_description",
    "compile_kernels",
    "flag_names",
    "measure",
    "measure_posterior",
    "sersic_severity",
    "severity",
    "summarise",
]
