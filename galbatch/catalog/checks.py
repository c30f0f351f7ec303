"""Is a catalogue sound: unique ids, positions that are positions, no two sources in one place. Streamed;
10^7 rows fit in 1 GB."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from galbatch.catalog.reader import Catalog
from galbatch.display import first_few
from galbatch.errors import InputError
from galbatch.types import Finding, Flag

SAME_POSITION_ARCSEC = 0.1
_LISTED = 10
_STRIP_ROWS = 1 << 18
_CAP_DEG = 0.01


@dataclass(frozen=True)
class Validation:
    """``findings`` for a person; ``flags`` (n,) int64: DUPLICATE_ID, DUPLICATE_POSITION."""

    findings: list[Finding] = field(default_factory=list)
    flags: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def validate(catalog: Catalog, pixel_columns: bool = False) -> Validation:
    """Check every row. Findings of level 'error' mean that a run must not start."""
    pair = ("x", "y") if pixel_columns else ("ra", "dec")
    subject = str(catalog.path.name)
    if catalog.n_rows == 0:
        empty = Finding("warn", "empty", subject, "the catalogue has no rows", "The run will be empty.")
        return Validation([empty])
    flags, findings = check_ids(catalog, subject)
    a, b = np.empty(catalog.n_rows), np.empty(catalog.n_rows)
    for start, rows in catalog.batches(list(pair)):
        here = slice(start, start + len(rows[pair[0]]))
        a[here], b[here] = rows[pair[0]], rows[pair[1]]
    if pixel_columns:
        bad = ~(np.isfinite(a) & np.isfinite(b))
        if bad.any():
            findings.append(_rows(bad, subject, "x or y that is not finite"))
        return Validation([*findings, *_types(catalog, subject)], flags)
    more = check_positions(a, b, subject)
    near = close_pairs(a, b, SAME_POSITION_ARCSEC)
    if near.any():
        flags[near] |= Flag.DUPLICATE_POSITION
        what = f"{int(near.sum())} rows lie within {SAME_POSITION_ARCSEC} arcsec of another"
        remedy = "They are flagged DUPLICATE_POSITION."
        more.append(Finding("warn", "duplicate_position", subject, what, remedy))
    return Validation([*findings, *more, *_units(catalog, subject), *_types(catalog, subject)], flags)


def check_ids(catalog: Catalog, subject: str) -> tuple[np.ndarray, list[Finding]]:
    """Flags (n,) int64 with DUPLICATE_ID, and what is wrong with the ids of the whole catalogue."""
    keys, flags = None, np.zeros(catalog.n_rows, np.int64)
    try:
        for start, rows in catalog.batches(["source_id"]):
            part = rows["source_id"]
            if part.dtype == object:  # 64 bits: ten million ids share one once in 400,000 catalogues
                part = np.fromiter(map(hash, part), np.int64, len(part))
            if keys is None:
                keys = np.empty(catalog.n_rows, part.dtype)
            keys[start : start + len(part)] = part
    except InputError as error:
        return flags, [Finding("error", "source_id", subject, str(error), "Correct source_id.")]
    double = np.array([], bool) if keys is None else duplicates(keys)
    if not double.any():
        return flags, []
    flags[double] = int(Flag.DUPLICATE_ID)
    at = np.flatnonzero(double)[:_LISTED]
    ids = catalog.batches(["source_id"])
    listed = [rows["source_id"][k - n] for n, rows in ids for k in at if 0 <= k - n < len(rows["source_id"])]
    what = (
        f"{int(double.sum())} rows share their source_id with another, e.g. {', '.join(map(str, listed))} "
        f"(rows {', '.join(map(str, at))}, counted from 0)"
    )
    return flags, [Finding("error", "duplicate_id", subject, what, "Give every source its own id.")]


def duplicates(keys: np.ndarray) -> np.ndarray:
    """(n,) bool: rows whose key occurs more than once."""
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return np.isin(keys, twice) if len(twice) else np.zeros(len(keys), bool)


def check_positions(ra: np.ndarray, dec: np.ndarray, subject: str) -> list[Finding]:
    """Findings on rows that are no positions, which guess why (radians, hours, swapped columns)."""
    finite = np.isfinite(ra) & np.isfinite(dec)
    bad = ~finite | (np.abs(np.nan_to_num(dec)) > 90) | (np.nan_to_num(ra) < -180) | (np.nan_to_num(ra) > 360)
    findings = []
    if bad.all():
        swapped = finite.any() and np.all(np.abs(ra[finite]) <= 90) and np.all(np.abs(dec[finite]) <= 360)
        hint = "ra and dec look swapped." if swapped else "Give degrees, ICRS."
        what = "no row has a position: ra must be 0 to 360 and dec -90 to 90 deg"
        return [Finding("error", "bad_position", subject, what, hint)]
    if bad.any():
        findings.append(_rows(bad, subject, "ra or dec that is no position"))
    good_ra, good_dec = (ra[~bad], dec[~bad]) if bad.any() else (ra, dec)  # a copy only where it is needed
    if (
        len(good_ra) > 3
        and np.all(np.abs(good_ra) <= 2 * np.pi)
        and np.all(np.abs(good_dec) <= np.pi / 2)
        and (np.ptp(good_ra) > 0.5 or np.ptp(good_dec) > 0.5)
    ):
        first = f"{good_ra[0]:.5f}, {good_dec[0]:.5f}"
        what = f"all ra are within 0 to 2 pi and all dec within +-pi/2 (first: {first})"
        findings.append(Finding("warn", "radians", subject, what, "Make sure that they are degrees."))
    return findings


def close_pairs(ra: np.ndarray, dec: np.ndarray, arcsec: float) -> np.ndarray:
    """(n,) bool: rows with another row within ``arcsec``, by strips of declination that overlap by that
    much."""
    near = np.zeros(len(ra), bool)
    placed = np.isfinite(ra) & (np.abs(dec) <= 90)
    order = np.argsort(np.where(placed, dec, np.inf), kind="stable")[: int(placed.sum())]
    ordered = dec[order]
    for first in range(0, len(order), _STRIP_ROWS):
        edge = ordered[first : first + _STRIP_ROWS][-1] + arcsec / 3600
        rows = order[first : int(np.searchsorted(ordered, edge, side="right"))]
        near[rows] |= _close_in_strip(ra[rows], dec[rows], arcsec)
    return near


def _close_in_strip(ra: np.ndarray, dec: np.ndarray, arcsec: float) -> np.ndarray:
    """Close pairs of a strip: once as it is, where the grid ends (ra = 0) turned by half a circle, and at
    each pole on the plane that touches it."""
    near = _close_on_grid(ra, dec, arcsec)
    to_seam = np.minimum(ra % 360, -ra % 360) * np.cos(np.radians(dec))
    at_seam = np.nonzero(to_seam * 3600 < 4 * arcsec)[0]
    near[at_seam] |= _close_on_grid(ra[at_seam] + 180, dec[at_seam], arcsec)
    for pole in (-1, 1):
        cap = np.nonzero(90 - pole * dec < _CAP_DEG)[0]
        distance, angle = 90 - pole * dec[cap], np.radians(ra[cap])
        near[cap] |= _close_on_grid(180 + distance * np.cos(angle), distance * np.sin(angle), arcsec)
    return near


def _close_on_grid(ra: np.ndarray, dec: np.ndarray, arcsec: float) -> np.ndarray:
    """Four shifted grids with cells twice ``arcsec`` wide: every close pair shares a cell of one of them,
    unless it lies across ra = 0 or a pole."""
    near, cell = np.zeros(len(ra), bool), 2 * arcsec / 3600
    for shift_dec in (0.0, 0.5):
        row = np.floor(dec / cell + shift_dec).astype(np.int64)
        width = np.cos(np.radians(np.clip((row + 0.5 - shift_dec) * cell, -90, 90)))
        for shift_ra in (0.0, 0.5):
            key = row * np.int64(1 << 31) + np.floor((ra % 360) * width / cell + shift_ra).astype(np.int64)
            order = np.argsort(key, kind="stable")
            pair = np.nonzero(key[order][1:] == key[order][:-1])[0]
            p, q = order[pair], order[pair + 1]
            dx = ((ra[p] - ra[q] + 180) % 360 - 180) * np.cos(np.radians(dec[p]))
            hit = np.hypot(dx, dec[p] - dec[q]) * 3600 <= arcsec
            near[p[hit]] = near[q[hit]] = True
    return near


def _rows(bad: np.ndarray, subject: str, what: str) -> Finding:
    rows = np.nonzero(bad)[0]
    listed = ", ".join(map(str, rows[:_LISTED])) + (" ..." if len(rows) > _LISTED else "")
    remedy = "They fail in the run (BAD_POSITION); all others are processed."
    return Finding("warn", "bad_position", subject, f"{len(rows)} rows have {what}: rows {listed}", remedy)


def _types(catalog: Catalog, subject: str) -> list[Finding]:
    """Which columns pass through in another type."""
    changed = [f"{name} ({how})" for name, how in catalog.converted.items()]
    if not changed:
        return []
    what = f"columns that pass through in another type: {first_few(changed)}"
    remedy = "Nothing to do; join the product with the catalogue by source_id where you need the old types."
    return [Finding("info", "column_types", subject, what, remedy)]


def _units(catalog: Catalog, subject: str) -> list[Finding]:
    out = []
    for name in ("ra", "dec"):
        unit = catalog.meta.get(name, {}).get("unit", "deg").strip().lower()
        if unit not in ("deg", "degree", "degrees", ""):
            what = f"column {name} is in {unit!r}"
            out.append(Finding("error", "unit", subject, what, "Convert it to degrees."))
    return out
