"""The columns of a catalogue that galbatch knows, their types, and how they leave Arrow without losing a
digit.

``source_id`` is an integer (64 bits, kept exactly) or a string; ``ra`` and ``dec`` are degrees, ICRS.
Positions may be pixels instead (``x``, ``y``). Everything else passes through.

Of those that pass through none is lost, and none is mistaken for one of the package's own. Ids of sources are
each there, plain, of a length that every format holds, and no two alike (streamed)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_

from galbatch.catalog.passing import passage
from galbatch.display import first_few
from galbatch.errors import InputError
from galbatch.types import Finding

REQUIRED = ("source_id", "ra", "dec")
OPTIONAL = ("stamp_arcsec", "redshift", "tile", "psf_index", "segmap_id", "x", "y", "psf_x", "psf_y")
_FLOATS = ("ra", "dec", "stamp_arcsec", "redshift", "x", "y", "psf_x", "psf_y")
_INTEGERS = ("psf_index", "segmap_id")


SEXAGESIMAL = (
    " in degrees. If it holds hours, minutes and seconds, convert it: astropy.coordinates.SkyCoord(ra, dec, "
    'unit=("hourangle", "deg")).'
)


def check_types(path: str, schema: pa.Schema, pixel_columns: bool = False) -> None:
    """Raise ``InputError`` when a column is missing or of a type that would lose information."""
    needed = ("source_id", "x", "y") if pixel_columns else REQUIRED
    names = schema.names
    missing = [c for c in needed if c not in names]
    if missing:
        close = {m: [n for n in names if n.lower() in USUAL.get(m, (m,))] for m in missing}
        advice = [f"rename one of {', '.join(v)} to {m}" if v else f"add {m}" for m, v in close.items()]
        raise InputError(
            f"{path} has no column {', '.join(missing)}. It has: {', '.join(names[:30]) or '(none)'}. "
            f"{_shape_of(names) or 'To do: ' + ', '.join(advice)}."
        )
    doubles = sorted({n for n in names if names.count(n) > 1})
    if doubles:
        raise InputError(f"{path} has more than one column named {', '.join(doubles)}. Rename them.")
    check_id_type(path, schema.field("source_id").type)
    stuck = [f"{f.name!r} ({f.type})" for f in schema if passage(f.type).kind is None]
    if stuck:
        raise InputError(
            f"{path}: {', '.join(stuck)}: no table that galbatch writes has such columns. Drop them, or "
            "store them as numbers or text."
        )
    for name in (n for n in (*_FLOATS, *_INTEGERS) if n in names):
        kind = schema.field(name).type
        if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise InputError(
                f"{path}: column {name} is of type {kind}: it must hold numbers"
                f"{SEXAGESIMAL if name in ('ra', 'dec') else ', as float64.'}"
            )


def _shape_of(names: list[str]) -> str:
    """What to do about a text file that is no table with names; '' if it is one."""
    if len(names) == 1 and len(names[0].split()) > 1:
        return "To do: part the columns by commas, not by blanks"
    if names and all(re.fullmatch(r"[-+.\deE]+", n) for n in names):
        return "To do: put a first line with the names of the columns, such as id,ra,dec"
    return ""


# The usual names of a column in lower case, the likeliest first.
USUAL = {
    "source_id": ("source_id", "sourceid", "object_id", "objid", "id", "number", "name"),
    "ra": ("ra", "alpha_j2000", "raj2000", "ra_j2000", "ra_icrs", "ra_deg", "radeg", "alphawin_j2000"),
    "dec": (
        "dec",
        "delta_j2000",
        "dej2000",
        "dec_j2000",
        "de_j2000",
        "de_icrs",
        "dec_icrs",
        "dec_deg",
        "decdeg",
        "deltawin_j2000",
    ),
    "x": ("x",),
    "y": ("y",),
}


def read_as(names: list[str]) -> dict[str, str]:
    """{name in the file: name that galbatch knows} of the columns that have a usual name instead of
    ``source_id``, ``ra``, ``dec``, ``x`` or ``y``. Where two columns have the same usual name (``Id`` and
    ``ID``), neither is taken."""
    out = {}
    for known, usual in USUAL.items():
        if known in names:
            continue
        found = next((own for word in usual if (own := [n for n in names if n.lower() == word])), [])
        if len(found) == 1:
            out[found[0]] = known
    return out


def check_id_type(path: str, kind: pa.DataType) -> None:
    """Integers and strings only: a float has lost the digits of ids above 2^53."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        kind = kind.value_type
    if (
        pa.types.is_integer(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    ):
        return
    if pa.types.is_null(kind):
        raise InputError(f"{path}: source_id has no value in any row. Give a catalogue that has sources.")
    why = (
        "integers above 2^53 lose their last digits as floats"
        if pa.types.is_floating(kind)
        else "it is no identifier"
    )
    raise InputError(f"{path}: source_id is of type {kind}: {why}. Store it as a 64-bit integer or a string.")


def to_numpy(path: str, name: str, column: pa.ChunkedArray, first_row: int = 0) -> np.ndarray:
    """One known column of plain type as numpy: ids int64 or object (str); floats float64 with NaN for null;
    indices int64 with -1. ``first_row``: number of the first row in its catalogue, for messages."""
    kind = column.type
    if name == "source_id":
        return ids_to_numpy(path, column, first_row)
    if name in _FLOATS:
        return _float(column)
    if name in _INTEGERS:
        if pa.types.is_floating(kind):
            values = _float(column)
            whole = np.isfinite(values) & (np.floor(values) == values) & (np.abs(values) < 2**53)
            return np.where(whole, values, -1).astype(np.int64)
        return np.asarray(pc.fill_null(column.cast(pa.int64()), -1))
    if name == "tile":
        if pa.types.is_floating(kind):
            raise InputError(
                f"{path}: column tile is of type {kind}: store names of tiles as strings or integers."
            )
        return np.asarray(pc.fill_null(column.cast(pa.string()), "").to_pylist(), dtype=object)
    return column.to_numpy()


def _float(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), float)


PREFIX = "input_"


def product_names(names: list[str], own: Iterable[str]) -> dict[str, str]:
    """Name in the product by name in the catalogue, for all columns but those of ``REQUIRED``.

    A name of galbatch's own (``own``) gets the prefix ``input_``; an empty one becomes ``column_N``; control
    characters become underscores. Names are distinct even where capitals do not count, as in VOTables, FITS
    and SQL: the later of two gets a number.
    """
    reserved = {n.lower() for n in (*own, *REQUIRED)}
    asked = {n: _printable(n) or f"column_{k + 1}" for k, n in enumerate(names) if n not in REQUIRED}
    taken = reserved | {n.lower() for n in names}
    given: set[str] = set()
    out = {}
    for name, wish in asked.items():
        while wish.lower() in reserved:
            wish = PREFIX + wish
        if wish != name or wish.lower() in given:
            wish = _free(wish, taken | given)
        given.add(wish.lower())
        out[name] = wish
    return out


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in name)


def _free(wish: str, taken: set[str]) -> str:
    found, number = wish, 2
    while found.lower() in taken:
        found, number = f"{wish}_{number}", number + 1
    return found


def renamed(names: dict[str, str], subject: str) -> list[Finding]:
    """One finding that says which columns have another name in the product; none where all keep theirs."""
    changed = [f"{old!r} to {new}" for old, new in names.items() if old != new]
    if not changed:
        return []
    what = (
        "columns whose names galbatch uses itself, or that formats cannot tell apart, are renamed in the "
        f"product: {first_few(changed)}"
    )
    remedy = "Nothing has to be done; for other names, rename them in the catalogue."
    return [Finding("warn", "column_names", subject, what, remedy)]


LONGEST_ID = 256
_CONTROL = r"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]"  # of the UTF-8 bytes
_LAST = 2**63 - 1


def ids_to_numpy(path: str, column: pa.ChunkedArray, first_row: int = 0) -> np.ndarray:
    """Ids (n,) as int64, or as str in an object array. Raises ``InputError`` with rows (counted from 0) and
    remedy for those that are missing or that no product could hold."""
    for bad, what, remedy in _faults(column):
        rows = np.flatnonzero(np.asarray(pc.fill_null(bad, True)))
        if len(rows):
            raise InputError(
                f"{path}: source_id {what} in {'row' if len(rows) == 1 else f'{len(rows)} rows, e.g. row'} "
                f"{first_row + int(rows[0])} (counted from 0)"
                f"{_shown(column[int(rows[0])].as_py())}. {remedy}"
            )
    if is_.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()))
    return np.asarray(column.to_pylist(), dtype=object)


def _faults(column: pa.ChunkedArray) -> Iterator[tuple[pa.ChunkedArray, str, str]]:
    """(rows bool, what is wrong with them, remedy), one kind after the other."""
    yield pc.is_null(column), "is missing", "Every source needs an id: fill it in, or drop the row."
    if column.type == pa.uint64():
        yield (
            pc.greater(column, pa.scalar(_LAST, pa.uint64())),
            "is above 2^63 - 1",
            "Store the ids as text: they are kept to the last digit.",
        )
    if is_.is_string(column.type):
        yield (
            pc.greater(pc.utf8_length(column), LONGEST_ID),
            f"is longer than {LONGEST_ID} characters",
            "Give the source a shorter id, and keep the long text in another column.",
        )
        yield (
            pc.match_substring_regex(column.cast(pa.binary()), _CONTROL),
            "holds a control character (NUL, newline, tab or the like)",
            "Take it out: it breaks file names, tables and terminals.",
        )


def _shown(value: int | str | None) -> str:
    text = "" if value is None else repr(value)
    return f": {text[:60]}{'...' * (len(text) > 60)}" if text else ""
