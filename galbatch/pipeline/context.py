"""What a process holds for the batches of a run, and the clock of a batch."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from galbatch.interfaces import Denoiser
from galbatch.store import BatchResult, PlanBatch, StoreLayout
from galbatch.types import StampBatch

Cut = Callable[[dict[str, np.ndarray]], list[tuple[np.ndarray, StampBatch]]]


@dataclass(frozen=True)
class Earlier:
    """What an earlier run has of some sources in some of the bands, with stamps of one size."""

    bands: tuple[str, ...]
    result: BatchResult

    def put_into(
        self, layout: StoreLayout, arrays: dict[str, np.ndarray], columns: dict[str, np.ndarray]
    ) -> set[int]:
        """Put what was drawn and measured into arrays of ``layout`` and columns; returns the numbers of the
        bands."""
        found, numbers = self.result, [layout.bands.index(band) for band in self.bands]
        dims = {spec.name: spec.dims for spec in layout.every_array()}
        for name in ("samples", "mean", "std", "prior_driven", "model", "chi2"):
            axis = dims[name].index("band")
            arrays[name].swapaxes(0, axis)[numbers] = found.arrays[name].swapaxes(0, axis)
        ends = tuple(f"_{band}" for band in self.bands)
        for name, values in found.columns.items():
            if name.endswith(ends) or name in ("n_draws_ok", "n_evaluations"):
                columns[name] = values
        return set(numbers)


Piece = tuple[np.ndarray, StampBatch, Earlier | None]  # places among the rows, stamps, what is known of them
Reuse = Callable[
    [PlanBatch, list[Piece]], tuple[list[Piece], list[tuple[np.ndarray, BatchResult]], Counter[str]]
]


@dataclass
class Context:
    """What a process needs for every batch, made once: survey, prior, layout of the store and sampling
    settings.

    ``cut(columns)`` cuts the stamps of plan rows: (places among the rows, stamps) of each size. ``at_once``:
    sources sampled together (None: the sampler's choice); it is halved when memory runs out, and stays so.
    ``measure_threads``: threads for the statistics of a batch. ``reuse``: takes sources over from an earlier
    run (``run/reuse.py``): what is left of the pieces cut, (places, results) of the others, and counts.
    Several threads may work on batches of one
    context: stamps are cut and draws are made by one at a time, so that one thread reads ahead and another
    measures and writes while the device is at work.
    """

    cut: Cut
    prior: Denoiser
    layout: StoreLayout
    mode: str = "default"
    seed: int = 0
    at_once: int | None = None
    measure_threads: int = 1
    reading: threading.Lock = field(default_factory=threading.Lock)
    sampling: threading.Lock = field(default_factory=threading.Lock)
    counters: dict[str, float] = field(default_factory=dict)
    reuse: Reuse | None = None

    @property
    def calibration(self) -> dict[str, Any]:
        """The prior's table for the mode, of bands together where they are; {} without one."""
        return self.prior.spec.calibration_of(self.mode, self.layout.together)


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Any:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
