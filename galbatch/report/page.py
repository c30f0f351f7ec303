"""The HTML page of a run: one self-contained file that opens without a network, made of a ``RunSummary``:
plain values, so that drawing knows nothing of files.

Its behaviour is in ``templates``: ``data.js`` unpacks the numbers, ``charts.js`` draws and brushes,
``gallery.js`` and ``table.js`` list, ``report.js`` holds the selection that all of them share.

Numbers are small in it: float32 of few digits, their bytes sorted by significance, deflated, in base64.
Percentiles and values on the pixels are kept as differences from the median of their statistic, so that an
error bar keeps its own digits.
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numcodecs import BitRound

import galbatch
from galbatch.flags import FLAGS
from galbatch.report.view import LABELS
from galbatch.store.selection import GRADES

QUANTITIES = ("mag_ab", "r_half", "gini", "m20", "concentration", "asymmetry", "ellipticity", "sersic_n")
STATUSES = ("ok", "flagged", "failed")
# columns of a band, the percentiles of a statistic beside each other
STEMS = tuple(f"{q}_{stat}" for q in QUANTITIES for stat in ("p50", "p16", "p84", "obs"))
STEMS += ("chi2", "chi2_p", "prior_driven_frac")


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

    def coverage(self) -> list[Coverage]:
        """``calibration`` with what is to be expected of so few truths, and a verdict in words."""
        from scipy.stats import binom

        found = []
        for quantity, band, inside, of in self.calibration:
            low, high = (int(x) for x in binom.interval(0.95, of, 0.6827))
            verdict = "too few" if inside < low else "more than expected" if inside > high else "as expected"
            found.append(Coverage(LABELS[quantity][0], band, inside, of, low, high, verdict))
        return found

    @property
    def balanced(self) -> bool:
        """True when ok + flagged + failed are all sources of the run."""
        return sum(self.counts.get(s, 0) for s in STATUSES) == self.counts.get("sources", 0)


MIDDLE, REST = 17, 11  # mantissa bits kept: of medians (1 in 10^5), of all else (1 in 4000)


def pack_columns(columns: dict[str, np.ndarray]) -> tuple[list[list[str]], str]:
    """((name, name of the column that it is a difference from, or '') of each column, all as text).

    Every column is (n,) floats; NaN stays NaN."""
    names, planes = [], []
    for name, values in columns.items():
        base = re.sub("_(p16|p84|obs)_", "_p50_", name)
        base = base if base != name and base in columns else ""
        values = np.asarray(values, np.float64)
        if base:
            values = values - _rounded(columns[base], MIDDLE).astype(np.float64)
        kept = _rounded(values, MIDDLE if "_p50_" in name else REST)
        planes.append(kept.astype("<f4").view(np.uint8).reshape(-1, 4).T.tobytes())
        names.append([name, base])
    return names, _deflated(b"".join(planes))


def pack_json(data: object) -> str:
    """JSON-able data as text. Raises ``ValueError`` for NaN, which no browser reads."""
    return _deflated(json.dumps(data, separators=(",", ":"), allow_nan=False).encode())


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """float32 with only so many bits of mantissa, to the nearest."""
    kept = np.asarray(BitRound(bits).encode(np.asarray(values, np.float32))).view(np.float32)
    return np.where(np.isfinite(kept), kept, np.float32(np.nan))


def _deflated(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()


SCRIPTS = ("data.js", "charts.js", "gallery.js", "table.js", "report.js")


def render_page(summary: RunSummary) -> str:
    """The page of ``summary`` as HTML text."""
    from jinja2 import Environment

    pages = {band: pack_columns(_of_band(summary, band)) for band in summary.bands}
    data = page_data(summary) | {"pages": {band: names for band, (names, _) in pages.items()}}
    template = Environment(autoescape=True).from_string(_asset("report.html"))
    return template.render(
        summary=summary,
        grades=list(enumerate(GRADES)),
        levels=("note", "caution", "do not use"),
        coverage=summary.coverage(),
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),  # stays in it
        sources=pack_json(_sources(summary)),
        pages={band: text for band, (_, text) in pages.items()},
        strips={band: "\n".join(strip or "" for strip in summary.strips.get(band, ())) for band in pages},
        css=_asset("report.css"),
        js="\n".join(_asset(name) for name in SCRIPTS),
        version=galbatch.__version__,
    )


def page_data(summary: RunSummary) -> dict:
    """What the page's script needs beside the numbers, JSON-able."""
    return {
        "title": summary.title,
        "bands": list(summary.bands),
        "panels": list(summary.panels),
        "grades": list(GRADES),
        "flag_names": [
            [flag.name, int(flag).bit_length() - 1, int(about.level)] for flag, about in FLAGS.items()
        ],
        "flag_text": {
            flag.name: f"{about.meaning} ({about.level.name.lower()}): {about.remedy}."
            for flag, about in FLAGS.items()
        },
        "quantities": [
            [q, " ".join(filter(None, (LABELS[q][0], LABELS[q][1] and f"[{LABELS[q][1]}]")))]
            for q in QUANTITIES
        ],
    }


def _sources(summary: RunSummary) -> dict[str, list]:
    return {
        "ids": [str(i) for i in summary.source_id],
        "status": [str(s) for s in summary.status],
        "flags": [int(f) for f in summary.flags],
        "quality": [int(q) for q in summary.quality],
        "ra": [round(x, 7) if math.isfinite(x) else None for x in map(float, summary.ra)],
        "dec": [round(x, 7) if math.isfinite(x) else None for x in map(float, summary.dec)],
    }


def _of_band(summary: RunSummary, band: str) -> dict:
    names = [f"{stem}_{band}" for stem in (*STEMS, "quality")]
    return {name: summary.columns[name] for name in names if name in summary.columns}


def _asset(name: str) -> str:
    return files("galbatch.report").joinpath("templates", name).read_text(encoding="utf-8")
