"""What a page shows of a run, as plain values: gathered once, so that drawing knows nothing of files. And how
measured quantities are named and written: labels, units, and digits that the error bar allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from galbatch.errors import InputError

LABELS: dict[str, tuple[str, str]] = {
    "mag_ab": ("magnitude", "AB"),
    "flux_njy": ("flux", "nJy"),
    "r_half": ("r half light", "arcsec"),
    "r_petro": ("r Petrosian", "arcsec"),
    "ellipticity": ("ellipticity", ""),
    "concentration": ("concentration C", ""),
    "asymmetry": ("asymmetry A", ""),
    "gini": ("Gini", ""),
    "m20": ("M20", ""),
    "sersic_n": ("Sersic n", ""),
}


def with_error(p16: float, p50: float, p84: float) -> tuple[str, str, str]:
    """(value, plus, minus) as text, rounded to two digits of the larger error; '-' where not finite."""
    if not all(map(math.isfinite, (p16, p50, p84))):
        return (plain(p50), "", "")
    plus, minus = p84 - p50, p50 - p16
    errors = [e for e in (plus, minus) if e > 0]
    digits = _digits(max(errors)) if errors else 3
    value, up, down = (f"{round(v, digits):.{max(digits, 0)}f}" for v in (p50, plus, minus))
    return value, up, down


def plain(value: float, like: float = math.nan) -> str:
    """A number alone, with the digits of an error of size ``like``, else four significant ones."""
    if not math.isfinite(value):
        return "-"
    if math.isfinite(like) and like > 0:
        digits = _digits(like)
        return f"{round(value, digits):.{max(digits, 0)}f}"
    return f"{value:.4g}"


def _digits(error: float) -> int:
    return min(4, 1 - math.floor(math.log10(error)))


QUANTITIES = ("mag_ab", "r_half", "gini", "m20", "concentration", "asymmetry", "ellipticity", "sersic_n")
STATUSES = ("ok", "flagged", "failed")


class Reason(NamedTuple):
    """A flag that occurs: its name, its level (what a source with it can be at best), what it means and what
    to do, and how many sources have it; ``alone``: of how many it alone decides the grade."""

    name: str
    level: int
    meaning: str
    remedy: str
    sources: int
    alone: int


class Coverage(NamedTuple):
    """Truths of a mock field inside the 68% intervals of a statistic: how many of how many, between which
    numbers they lie 95 times in 100 if intervals are right, and what that says."""

    quantity: str
    band: str
    inside: int
    of: int
    low: int
    high: int
    verdict: str


@dataclass(frozen=True)
class RunSummary:
    """A run as the page shows it.

    ``source_id``, ``ra``, ``dec`` (deg), ``status``, ``flags``, ``quality`` (n,): the sources shown;
    ``columns``: (n,) floats by catalogue name, e.g. ``gini_p50_f200w``; ``counts``: sources by status over
    the whole run; ``grades``: of the whole run, of quality 0, 1 and 2, by band, '' for all bands together;
    ``reasons``: flags of the whole run, the gravest first; ``warnings``: lines of the preflight;
    ``provenance``: (what, text by band); ``stages``: seconds by stage; ``facts``, ``rates``: (label, value)
    pairs of text; ``strips``: base64 WebP per source (or None) by band; ``panels``: titles of a strip's
    panels; ``note``: what is not shown, empty when all is; ``calibration``: (quantity, band, truths inside
    the 68% interval, truths).
    """

    title: str
    bands: tuple[str, ...]
    source_id: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    status: np.ndarray
    flags: np.ndarray
    quality: np.ndarray
    columns: dict[str, np.ndarray]
    counts: dict[str, int]
    grades: dict[str, tuple[int, ...]]
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()
    provenance: tuple[tuple[str, dict[str, str]], ...] = ()
    stages: dict[str, float] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()
    rates: tuple[tuple[str, str], ...] = ()
    failures: tuple[dict[str, str], ...] = ()
    strips: dict[str, list[str | None]] = field(default_factory=dict)
    panels: tuple[str, ...] = ()
    note: str = ""
    calibration: tuple[tuple[str, str, int, int], ...] = ()

    def __post_init__(self) -> None:
        n = len(self.source_id)
        own = {name: getattr(self, name) for name in ("ra", "dec", "status", "flags", "quality")}
        for name, values in (own | self.columns | self.strips).items():
            if len(values) != n:
                raise InputError(
                    f"RunSummary: {name} has {len(values)} rows, source_id {n}: they must agree."
                )

    def coverage(self) -> list[Coverage]:
        """``calibration`` with what is to be expected of so few truths, and a verdict in words."""
        from scipy.stats import binom

        found = []
        for quantity, band, inside, of in self.calibration:
            low, high = (int(x) for x in binom.interval(0.95, of, 0.6827))
            verdict = (
                "as expected"
                if low <= inside <= high
                else "too few"
                if inside < low
                else "more than expected"
            )
            found.append(Coverage(LABELS[quantity][0], band, inside, of, low, high, verdict))
        return found

    @property
    def balanced(self) -> bool:
        """True when ok + flagged + failed are all sources of the run."""
        return sum(self.counts.get(s, 0) for s in STATUSES) == self.counts.get("sources", 0)
