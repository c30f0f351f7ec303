"""Stamps of a batch out of the survey of this process; a read that fails is tried again."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np

from galbatch.cutouts import cut_fitting
from galbatch.store import StoreLayout
from galbatch.types import Flag, StampBatch

CUT = "cut:"  # prefix, in the plan, of catalogue columns that say how a source is cut
WAITS_S = (0.2, 1.0, 4.0)
BUDGET_S = 60.0  # of waiting in vain in one process: a file that is gone for good may not stop every batch
# An error that says one of these does not pass by itself.
LASTING = ("changed during the run", "ends before", "is not a regular file", "needs the extra packages")


class Cutter:
    """Stamps of the rows of a plan, as ``cut_fitting`` returns them; all of one size where the layout has no
    ``sides``. Where a read fails that may succeed later (a network file system that hiccups, an EIO), the
    batch is cut again, up to three times within some seconds; the result is that of the last cut, the same as
    if it had been the first."""

    def __init__(self, survey: Any, layout: StoreLayout) -> None:
        self.survey, self.sides = survey, layout.sides or (layout.stamp_pix,)
        self.scale_arcsec = min(layout.pixel_scale_arcsec)
        self._in_vain = 0.0

    def __call__(self, columns: dict) -> list[tuple[np.ndarray, StampBatch]]:
        sources = {name: columns[name] for name in ("source_id", "ra", "dec")}
        sources |= {n.removeprefix(CUT): v for n, v in columns.items() if n.startswith(CUT)}
        return cut_fitting(self._cut, sources, self.sides, self.scale_arcsec)

    def _cut(self, sources: dict[str, np.ndarray], side: int) -> StampBatch:
        stamps, waited = self.survey.cut(sources, side), 0.0
        for wait in WAITS_S:
            if not may_pass(stamps) or self._in_vain > BUDGET_S:
                break
            wait *= random.uniform(0.75, 1.25)  # so that many workers do not come back at once
            time.sleep(wait)
            waited += wait
            if hasattr(self.survey, "forget_failures"):
                self.survey.forget_failures()
            stamps = self.survey.cut(sources, side)
        self._in_vain = self._in_vain + waited if may_pass(stamps) else 0.0
        return stamps


def may_pass(stamps: StampBatch) -> bool:
    """Whether a source of the batch could not be read, in any band, for a reason that may pass."""
    for n, flags in enumerate(stamps.flags):
        said = str(stamps.failures[n].message) if n in stamps.failures else ""
        if flags & Flag.READ_ERROR and not any(words in said for words in LASTING):
            return True
    return False
