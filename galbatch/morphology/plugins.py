"""A user's own statistics, found by entry point.

A package that is installed beside galbatch offers a ``Statistic`` under the entry point group
``galbatch.statistics``:

    [project.entry-points."galbatch.statistics"]
    peak = "my_package:peak"

    peak = Statistic("peak", "nJy", "phot.flux.density;stat.max", "brightest pixel", lambda s:
    s.images.max((1, 2)))

and ``statistics.parquet`` has its columns ``peak_raw16_f200w`` ... ``peak_obs_f200w``, like those of the
built-in quantities."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

import numpy as np

from galbatch.columns import QUANTITIES, Column
from galbatch.errors import ConfigError

GROUP = "galbatch.statistics"


@dataclass(frozen=True)
class StatisticInput:
    """What a statistic gets: ``images`` (n, H, W) as given to ``measure``, the ``segmap`` (n, H, W; 1 the
    source) and ``mask`` (n, H, W; True excludes) of each, the noise ``sigma`` (n, H, W; NaN unknown),
    ``pixel_scale_arcsec``, and the structured array (n,) of the built-in ``quantities``. All are read-only
    views."""

    images: np.ndarray
    segmap: np.ndarray
    mask: np.ndarray
    sigma: np.ndarray
    pixel_scale_arcsec: float
    quantities: np.ndarray


@dataclass(frozen=True)
class Statistic:
    """A batched statistic: ``function(StatisticInput) -> (n,)`` floats, NaN where not measurable, and its
    column."""

    name: str
    unit: str
    ucd: str
    description: str
    function: Callable[[StatisticInput], np.ndarray]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name) or self.name in QUANTITIES or self.name == "flags":
            raise ConfigError(
                f"statistic '{self.name}' cannot be a column: use lower case letters, digits and _, "
                "and no name of a built-in quantity."
            )


@cache
def installed_statistics() -> tuple[Statistic, ...]:
    """The statistics of installed packages, in order of name.

    Raises ``ConfigError`` where one does not load, is not a ``Statistic``, or shares its name with another.
    """
    found: dict[str, Statistic] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        try:
            statistic = point.load()
        except Exception as error:
            raise ConfigError(
                f"the statistic '{point.name}' ({point.value}) of group {GROUP} does not load: {error}. "
                "Repair or uninstall that package."
            ) from error
        if not isinstance(statistic, Statistic):
            raise ConfigError(
                f"the entry point '{point.name}' ({point.value}) of group {GROUP} is a "
                f"{type(statistic).__name__}: it must be a galbatch.morphology.Statistic."
            )
        if statistic.name in found:
            raise ConfigError(
                f"two installed statistics are named '{statistic.name}': uninstall one of them."
            )
        found[statistic.name] = statistic
    return tuple(found.values())


def all_quantities() -> dict[str, Column]:
    """``QUANTITIES`` and, after them, the installed statistics."""
    extra = {s.name: Column(s.unit, s.ucd, s.description) for s in installed_statistics()}
    return {**QUANTITIES, **extra}


def evaluate(statistic: Statistic, inputs: StatisticInput) -> np.ndarray:
    """(n,) values of one statistic.

    Raises ``ConfigError`` where the function fails or returns another shape, so that a run stops before it is
    long.
    """
    n = len(inputs.images)
    try:
        values = np.asarray(statistic.function(inputs), dtype=np.float64)
    except Exception as error:
        raise ConfigError(
            f"the statistic '{statistic.name}' failed on {n} images of shape "
            f"{inputs.images.shape[1:]}: {error!r}. Repair or uninstall its package."
        ) from error
    if values.shape != (n,):
        raise ConfigError(
            f"the statistic '{statistic.name}' returned shape {values.shape} for {n} images: "
            "it must return one number per image."
        )
    return values
