"""Findings of a preflight for a reader: what was found many times is said once, with a count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from galbatch.types import Finding

_NAMED = 3
_ORDER = {"error": 0, "warn": 1, "info": 2}


def said_once(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, the gravest first, one for all of one level, code and remedy: errors and warnings over
    all bands and tiles, notes over the tiles of a band."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.level, f.code, "" if f.level != "info" else _band(f), f.remedy), []).append(f)
    return sorted(map(_together, groups.values()), key=lambda f: _ORDER[f.level])


def _band(finding: Finding) -> str:
    return finding.subject.split(", tile")[0]


def _together(group: list[Finding]) -> Finding:
    first, bands = group[0], list(dict.fromkeys(map(_band, group)))
    if len(group) == 1:
        return first
    if len({f.line for f in group}) == 1:
        return replace(first, what=f"{first.what} ({len(group)} times)")
    if len(bands) == 1:
        what = f"{len(group)} tiles; {first.subject.split(', ')[-1]}: {first.what}"
        return replace(first, subject=bands[0], what=what)
    more = f" and {len(bands) - _NAMED} more" if len(bands) > _NAMED else ""
    subject = ", ".join(bands[:_NAMED]) + more
    return replace(first, subject=subject, what=f"{len(group)} times, first {first.subject}: {first.what}")
