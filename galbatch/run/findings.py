"""What a preflight says to a reader: its findings, what was found many times said once; those on the names of
the product's columns, settled before anything is computed; and which model it is, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from galbatch.catalog.columns import product_names, renamed
from galbatch.columns import Column
from galbatch.config import RunSettings
from galbatch.interfaces import Denoiser
from galbatch.pipeline.measurement import column_info
from galbatch.types import Finding

_NAMED = 3
ORDER = {"error": 0, "warn": 1, "info": 2}


def said_once(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, the gravest first, one for all of one level, code and remedy: errors and warnings over
    all bands and tiles, notes over the tiles of a band."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.level, f.code, "" if f.level != "info" else _band(f), f.remedy), []).append(f)
    return sorted(map(_together, groups.values()), key=lambda f: ORDER[f.level])


def _band(finding: Finding) -> str:
    return finding.subject.split(", tile")[0]


def _together(group: list[Finding]) -> Finding:
    first, bands = group[0], list(dict.fromkeys(map(_band, group)))
    if len(group) == 1:
        return first
    if len({f.line for f in group}) == 1:
        return replace(first, what=f"{first.what} ({len(group)} times)")
    if len(bands) == 1:
        if ", tile" not in first.subject:
            return replace(first, what="; ".join(f.what for f in group))
        what = f"{len(group)} tiles; {first.subject.split(', ')[-1]}: {first.what}"
        return replace(first, subject=bands[0], what=what)
    more = f" and {len(bands) - _NAMED} more" if len(bands) > _NAMED else ""
    subject = ", ".join(bands[:_NAMED]) + more
    return replace(first, subject=subject, what=f"{len(group)} times, first {first.subject}: {first.what}")


READ_AS = "read_as"  # the finding on columns with usual names, which a run says too


def passing_names(catalog: Any, bands: tuple[str, ...]) -> dict[str, str]:
    """Name in the product by name in the catalogue, of all columns that pass through."""
    return product_names(catalog.columns, column_info(tuple(bands), draw_columns=True))


def column_info_of(manifest: dict[str, Any]) -> dict[str, Column]:
    """Every column of a run's tables: those of the catalogue that pass through, and its own."""
    passing = {name: Column(**about) for name, about in manifest.get("columns", {}).items()}
    layout = manifest["layout"]
    return passing | column_info(tuple(layout["bands"]), layout["draw_columns"])


def check_columns(catalog: Any, bands: tuple[str, ...]) -> list[Finding]:
    """Columns of the catalogue that are renamed, and bands that would share a column of the product."""
    of_band: dict[str, str] = {}
    findings = renamed(passing_names(catalog, bands), catalog.path.name)
    if catalog.read_as:
        said = ", ".join(f"{own} is read as {known}" for own, known in catalog.read_as.items())
        findings.append(Finding("info", READ_AS, catalog.path.name, said, "Nothing to do if that is right."))
    for band in bands:
        mine = {name.lower() for name in column_info((band,), draw_columns=True) if name.endswith(f"_{band}")}
        shared = sorted(mine & of_band.keys())
        if shared:
            other = of_band[shared[0]]
            what = f"bands {other!r} and {band!r} would share the column {shared[0]}"
            remedy = "Rename one of them in the survey file."
            findings.append(Finding("error", "band_names", f"{other}, {band}", what, remedy))
        of_band |= dict.fromkeys(mine, band)
    pairs = [f"color_{one}_{two}".lower() for one, two in pairwise(bands)]
    for name in sorted({pair for pair in pairs if pairs.count(pair) > 1}):
        what = f"two pairs of bands would share the column {name}_p50"
        findings.append(Finding("error", "band_names", name, what, "Rename a band, or change their order."))
    return findings


def said_of_model(
    asked: str, settings: RunSettings, prior: Denoiser, going_on: bool, together: int = 1
) -> Iterator[str]:
    """Lines on the model of a run: which and why, and whether its intervals are calibrated. ``asked``: as the
    user named it, before it was settled. ``together``: bands sampled together."""
    name = prior.spec.name
    why = "" if asked != "auto" else ", with which the run began" if going_on else _reason(settings.model)
    yield f"model: {name}{why}"
    if not prior.spec.calibration_of(settings.mode, together):
        of, joint = (f" of {together} bands together", " --joint") if together > 1 else ("", "")
        command = f"galbatch model calibrate {settings.model} --mode {settings.mode}{joint}"
        remedy = "" if settings.model == "object" else f" Make it: {command}"
        if f"{settings.mode} joint" in prior.spec.calibration and together > 1:
            remedy = " Take fewer bands at once, or --separate."
        yield (
            f"model {name} has no calibration for mode {settings.mode}{of}: intervals are those of the "
            f"draws, and no source is better than quality 1 (UNCALIBRATED).{remedy}"
        )


def _reason(name: str) -> str:
    if name == "base":
        return ", as this machine has a CUDA card (auto); without one it would be small"
    return ", as this machine computes on its CPU (auto); --model base has better intervals and is slower"
