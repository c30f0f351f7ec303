"""What a page shows of a run, as plain values: gathered once, so that drawing knows nothing of files."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from galbatch.errors import InputError
from galbatch.flags import FLAGS

PLANES: dict[str, tuple[str, str]] = {
    "Gini-M20": ("m20", "gini"),
    "Concentration-asymmetry": ("concentration", "asymmetry"),
    "Size-magnitude": ("mag_ab", "r_half"),
}
QUANTITIES = ("mag_ab", "r_half", "gini", "m20", "concentration", "asymmetry", "ellipticity", "sersic_n")
STATUSES = ("ok", "flagged", "failed")


@dataclass(frozen=True)
class RunSummary:
    """A run as the page shows it.

    ``source_id``, ``status``, ``flags`` (n,): the sources shown; ``columns``: (n,) floats by catalogue name,
    e.g. ``gini_p50_f200w``; ``counts``: sources by status over the whole run; ``stages``: seconds by stage;
    ``facts``, ``rates``: (label, value) pairs of text; ``strips``: base64 WebP per source (or None) by band;
    ``panels``: titles of a strip's panels; ``note``: what is not shown, empty when all is; ``calibration``:
    (quantity, band, share of truths inside the 68% interval, number of truths); ``grades``: sources of the
    whole run of quality 0, 1 and 2, by band, '' for all bands together.
    """

    title: str
    bands: tuple[str, ...]
    source_id: np.ndarray
    status: np.ndarray
    flags: np.ndarray
    columns: dict[str, np.ndarray]
    counts: dict[str, int]
    stages: dict[str, float] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()
    rates: tuple[tuple[str, str], ...] = ()
    failures: tuple[dict[str, str], ...] = ()
    strips: dict[str, list[str | None]] = field(default_factory=dict)
    panels: tuple[str, ...] = ()
    note: str = ""
    calibration: tuple[tuple[str, str, float, int], ...] = ()
    grades: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.source_id)
        for name, values in {
            "status": self.status,
            "flags": self.flags,
            **self.columns,
            **self.strips,
        }.items():
            if len(values) != n:
                raise InputError(
                    f"RunSummary: {name} has {len(values)} rows, source_id {n}: they must agree."
                )

    def column(self, stem: str, band: str) -> np.ndarray:
        """(n,) float values of ``{stem}_{band}``; NaN where the run has no such column."""
        values = self.columns.get(f"{stem}_{band}")
        return np.full(len(self.source_id), np.nan) if values is None else np.asarray(values, dtype=float)

    def flag_counts(self) -> list[tuple[str, str, str, int]]:
        """(name, level, meaning, sources) of every flag that occurs, the worst and most frequent first."""
        found = [
            (about.level, flag.name, about.meaning, int(np.sum(self.flags & int(flag) != 0)))
            for flag, about in FLAGS.items()
        ]
        rows = sorted((row for row in found if row[3]), key=lambda row: (-row[0], -row[3]))
        return [(name, level.name.lower(), meaning, count) for level, name, meaning, count in rows]

    @property
    def balanced(self) -> bool:
        """True when ok + flagged + failed are all sources of the run."""
        return sum(self.counts.get(s, 0) for s in STATUSES) == self.counts.get("sources", 0)
