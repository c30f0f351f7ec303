"""Sources found: by id on the source axis of the store, in a catalogue by their quality (who is good, who is
worst, how many there are of each) and by their distance from a position on the sky.

Ids are looked up in the plan, row group after row group, so that a few sources of a large run cost neither
the memory nor the names of all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.errors import InputError, RunError
from galbatch.flags import Level, names_of
from galbatch.store.paths import opened

_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)


def find_sources(plan: Path, ids: Iterable[str] | None = None) -> dict[str, int]:
    """Row in the plan by id as text: of the sources of these ids and of those whose ids differ from them in
    the capitals of ASCII letters only; of all sources where ``ids`` is None.

    Raises ``RunError`` when the plan cannot be read.
    """
    found: dict[str, int] = {}
    try:
        with pq.ParquetFile(opened(plan), pre_buffer=False) as file:
            kind = file.schema_arrow.field("source_id").type
            wanted = None if ids is None else _wanted(ids, kind)
            for first, column in _row_groups(file, wanted):
                rows = np.arange(len(column)) if wanted is None else _rows(column, wanted)
                names = column.take(pa.array(rows)).to_pylist()
                found |= {str(name): first + row for name, row in zip(names, rows.tolist(), strict=True)}
    except (OSError, pa.ArrowException) as err:
        raise RunError(
            f"{plan}: cannot be read ({err}). `galbatch resume {plan.parent}` makes it again."
        ) from err
    return found


def row_group(metadata: pq.FileMetaData, row: int) -> tuple[int, int]:
    """The row group of a Parquet file that holds a row, and its first row. Raises ``IndexError``."""
    first = 0
    for group in range(metadata.num_row_groups):
        stop = first + metadata.row_group(group).num_rows
        if first <= row < stop:
            return group, first
        first = stop
    raise IndexError(f"row {row} of {first}")


def read_row(table: Path, row: int) -> dict[str, Any]:
    """The values of one row of a Parquet file by column; its row group alone is read."""
    with pq.ParquetFile(opened(table), pre_buffer=False) as file:
        group, first = row_group(file.metadata, row)
        return file.read_row_group(group, use_threads=False).slice(row - first, 1).to_pylist()[0]


def _wanted(ids: Iterable[str], kind: pa.DataType) -> pa.Array:
    """Ids in the type of the plan: texts without capitals, or those that are integers."""
    if not pa.types.is_integer(kind):
        return pc.ascii_lower(pa.array(ids, kind))
    return pa.array([int(text) for text in ids if _INTEGER.fullmatch(text) and abs(int(text)) < 2**63], kind)


def _row_groups(file: pq.ParquetFile, wanted: pa.Array | None) -> Iterator[tuple[int, pa.ChunkedArray]]:
    """First row and ids of every row group but those that, as their footer says, hold none of the integers
    ``wanted``."""
    first, column = 0, file.schema_arrow.names.index("source_id")
    for number in range(file.num_row_groups):
        about = file.metadata.row_group(number)
        ends = about.column(column).statistics
        if wanted is None or not _is_without(wanted, ends):
            yield first, file.read_row_group(number, columns=["source_id"])["source_id"]
        first += about.num_rows


def _is_without(wanted: pa.Array, ends: pq.Statistics | None) -> bool:
    if not pa.types.is_integer(wanted.type) or ends is None or not ends.has_min_max:
        return False
    values = wanted.to_numpy()
    return not np.any((values >= ends.min) & (values <= ends.max))


def _rows(column: pa.ChunkedArray, wanted: pa.Array) -> np.ndarray:
    same = column if pa.types.is_integer(wanted.type) else pc.ascii_lower(column)
    return np.flatnonzero(pc.is_in(same, wanted).to_numpy())


GRADES = ("good", "caution", "do not use")


def quality_column(table: Any, band: str | None = None) -> np.ndarray:
    """(n,) int8 quality of the rows of a catalogue in a band, or of the sources (None)."""
    return np.asarray(table["quality" if band is None else f"quality_{band}"]).astype(np.int8)


def plain_column(table: Any, name: str) -> np.ndarray:
    """(n,) floats of a column, without its unit."""
    return np.asarray(getattr(table[name], "value", table[name]), float)


def flux_snr(table: Any, band: str) -> np.ndarray:
    """(n,) flux over half of its 68% interval; NaN where not measured."""
    low, middle, high = (plain_column(table, f"flux_njy_{p}_{band}") for p in ("p16", "p50", "p84"))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(high > low, 2 * middle / (high - low), np.nan)


def chosen(
    table: Any, bands: tuple[str, ...], quality: int = 0, band: str | None = None, snr: float | None = None
) -> np.ndarray:
    """(n,) bool: quality at most ``quality`` in ``band`` (None: of the source), and, with ``snr``, a flux at
    least so many times its error there (None: in one band at least). Raises ``InputError`` for a quality that
    there is not."""
    if quality not in tuple(Level):
        raise InputError(f"quality = {quality!r}: it must be 0 (good), 1 (caution too) or 2 (all).")
    status = np.asarray(table["status"]).astype(str)
    keep = (quality_column(table, band) <= quality) & (status != "failed")
    if snr is not None:
        seen = [flux_snr(table, b) for b in (bands if band is None else (band,))]
        keep &= np.any([np.nan_to_num(s) >= snr for s in seen], axis=0)
    return keep


def worst_first(table: Any, bands: tuple[str, ...]) -> np.ndarray:
    """Rows of the sources that did not fail, the worst first: by quality, flags of its level, and how far
    their chi2 is from one."""
    flags = np.asarray(table["flags"]).astype(np.int64)
    serious = [len(names_of(int(f), Level.BAD)) * 100 + len(names_of(int(f), Level.CAUTION)) for f in flags]
    off = np.zeros(len(flags))
    for band in bands:
        with np.errstate(invalid="ignore", divide="ignore"):
            distance = np.abs(np.log(np.asarray(table[f"chi2_{band}"], float)))
        off = np.fmax(off, np.where(np.isfinite(distance), distance, 0))
    order = np.lexsort((-off, -np.array(serious, int), -quality_column(table).astype(int)))
    return order[np.asarray(table["status"]).astype(str)[order] != "failed"]


def grade_counts(table: Any, bands: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Sources good, caution and not to be used, failed ones among these, of all bands together ('') and of
    each band."""
    found = {band: quality_column(table, band or None) for band in ("", *bands)}
    return {band: tuple(int(np.sum(q == level)) for level in Level) for band, q in found.items()}


def separation_arcsec(table: Any, coord: Any) -> np.ndarray:
    """(n,) great-circle distances of the rows of a catalogue from ``coord``, NaN for rows without a position.
    Raises ``InputError`` when ``coord`` is no single ``SkyCoord``."""
    from astropy.coordinates import SkyCoord

    if not isinstance(coord, SkyCoord) or not coord.isscalar:
        raise InputError(
            f"{coord!r} is not one position: give a SkyCoord, e.g. SkyCoord(150.1, 2.2, unit='deg')."
        )
    ra, dec = (plain_column(table, name) for name in ("ra", "dec"))
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    known = SkyCoord(np.where(good, ra, 0.0), np.where(good, dec, 0.0), unit="deg")
    return np.where(good, known.separation(coord).arcsec, np.nan)
