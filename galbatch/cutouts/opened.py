"""A survey opened: where sources lie, stamps of batches of them, what its files are and what is wrong with
them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from galbatch.cutouts.check.preflight import check_survey
from galbatch.cutouts.raw import place
from galbatch.cutouts.stamps import cut_batch
from galbatch.cutouts.survey.config import SurveyConfig
from galbatch.cutouts.survey.files import SurveyFiles
from galbatch.cutouts.survey.read import load_survey
from galbatch.types import Finding, Flag, StampBatch


@dataclass(frozen=True)
class Located:
    """Of (n,) sources: name of the tile in the finest band, x and y there (pixels from 0), flags (n,)
    int64."""

    tile: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flags: np.ndarray


def open_survey(
    config: SurveyConfig | str | Path, measured: dict | None = None, pins: dict[str, Any] | None = None
) -> Survey:
    """A survey from its configuration (or the path of its file); nothing is read yet.

    ``measured`` and ``pins``: from ``Survey.measured`` and ``Survey.pins`` of an earlier run.
    """
    if not isinstance(config, SurveyConfig):
        config = load_survey(config)
    return Survey(config, measured, pins)


class Survey(SurveyFiles):
    """The files of a survey, and what is made of them."""

    def locate(
        self,
        ra: ArrayLike,
        dec: ArrayLike,
        tile: ArrayLike | None = None,
        x: ArrayLike | None = None,
        y: ArrayLike | None = None,
    ) -> Located:
        """Tile, pixel and pre-screen flags of (n,) sources: ra and dec in deg, or x and y in pixels of tile
        ``tile``.

        They refer to the finest band, or to the next that covers the source. OFF_IMAGE where no
        tile of any band holds the position (or it is not a position at all).
        """
        rows = {
            k: np.asarray(v)
            for k, v in {"ra": ra, "dec": dec, "tile": tile, "x": x, "y": y}.items()
            if v is not None
        }
        geometry = self.geometry()
        order = sorted(geometry, key=lambda b: (b != self.finest(), geometry[b].scale_arcsec))
        best = place(self, order[0], rows).first()
        for band in order[1:]:
            left = np.nonzero(best.inside <= 0)[0]
            if not len(left):
                break
            found = place(self, band, {k: v[left] for k, v in rows.items()}).first()
            for name in ("tile", "x", "y", "inside"):
                getattr(best, name)[left] = getattr(found, name)
        flags = np.where(best.inside > 0, 0, int(Flag.OFF_IMAGE)).astype(np.int64)
        return Located(best.tile, best.x, best.y, flags)

    def cut(self, sources: dict[str, np.ndarray], stamp_pix: int) -> StampBatch:
        """Stamps of a batch in every band. ``sources``: columns (n,) source_id, ra, dec (or x, y with pixel
        columns), and where they exist tile, psf_index, segmap_id, psf_x, psf_y. Never raises for a source:
        flags and failures."""
        return cut_batch(self, sources, stamp_pix)

    def check(self, columns: list[str] | None = None) -> list[Finding]:
        """What is wrong, or worth knowing, before a run. ``columns``: names of the catalogue's columns."""
        return check_survey(self, columns)
