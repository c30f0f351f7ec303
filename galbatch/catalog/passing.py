"""What a column of any Arrow type becomes on its way in: the one table that decides.

What galbatch writes holds only types that Parquet, VOTable, astropy, TOPCAT and LSDB all have: booleans,
integers, floats, text, and lists of floats of one length. Every other type becomes text that says the same to
the last digit, or is refused by name before anything is computed. Missing values stay missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_

Convert = Callable[[pa.ChunkedArray], pa.ChunkedArray]


@dataclass(frozen=True)
class Passage:
    """``kind``: type in the product, None where there is no way; ``how``: what becomes of the values, for a
    person, '' where nothing does; ``convert``: does it; ``unit``: that the new type has lost."""

    kind: pa.DataType | None
    how: str = ""
    convert: Convert = lambda column: column
    unit: str = ""


def passage(kind: pa.DataType) -> Passage:
    """The way of a column of type ``kind``: the first row of ``_WAYS`` that fits."""
    return next(way(kind) for fits, way in _WAYS if fits(kind))


def plain_field(field: pa.Field) -> pa.Field:
    """The field of the product: type, and of its metadata unit, UCD and description."""
    way = passage(field.type)
    meta = {k: v for k, v in (field.metadata or {}).items() if k in (b"unit", b"ucd", b"description")}
    if way.unit:
        meta[b"unit"] = way.unit.encode()
    return pa.field(field.name, way.kind or field.type, metadata=meta or None)


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of a column in the product. Raises ``ArrowException`` for values that its type should not
    have."""
    way = passage(column.type)
    return way.convert(column) if column.num_chunks else pa.chunked_array([], way.kind)


def _cast(target: pa.DataType, how: str = "") -> Callable[[pa.DataType], Passage]:
    return lambda kind: Passage(target, how, lambda column: column.cast(target))


def _unpacked(inner: Callable, unpack: Callable[[pa.Array], pa.Array]) -> Callable[[pa.DataType], Passage]:
    """A type that only stores another one in its own way: that of ``inner(kind)``, chunk by chunk."""

    def way(kind: pa.DataType) -> Passage:
        under = inner(kind)
        then = passage(under)

        def convert(column: pa.ChunkedArray) -> pa.ChunkedArray:
            return then.convert(pa.chunked_array([unpack(chunk) for chunk in column.chunks], under))

        return Passage(then.kind, then.how, convert, then.unit)

    return way


def _timestamp(kind: pa.TimestampType) -> Passage:
    naive, zone = pa.timestamp(kind.unit), "Z" if kind.tz else ""

    def convert(column: pa.ChunkedArray) -> pa.ChunkedArray:
        text = column.cast(pa.int64()).cast(naive).cast(pa.string())
        text = pc.replace_substring_regex(text, r"^(-?\d+-\d\d-\d\d) ", r"\1T")
        return pc.binary_join_element_wise(text, zone, "") if zone else text

    return Passage(pa.string(), f"text (ISO 8601{', UTC' if zone else ''})", convert)


def _duration(kind: pa.DurationType) -> Passage:
    return Passage(
        pa.int64(), f"integers in {kind.unit}", lambda column: column.cast(pa.int64()), unit=kind.unit
    )


def _floats(kind: pa.DataType) -> Passage:
    """Lists of floats of one length: a missing float or list becomes NaN."""
    wide = pa.float64() if is_.is_float64(kind.value_type) else pa.float32()
    target = pa.list_(wide, kind.list_size)

    def convert(column: pa.ChunkedArray) -> pa.ChunkedArray:
        missing = pa.scalar([float("nan")] * kind.list_size, target)
        chunks = [pc.if_else(chunk.is_valid(), chunk.cast(target), missing) for chunk in column.chunks]
        flat = [pc.fill_null(chunk.flatten(), float("nan")) for chunk in chunks]
        return pa.chunked_array([pa.FixedSizeListArray.from_arrays(f, kind.list_size) for f in flat], target)

    return Passage(target, "" if target == kind else f"lists of {wide}", convert)


def _through_python(write: Callable, how: str) -> Callable[[pa.DataType], Passage]:
    def convert(column: pa.ChunkedArray) -> pa.ChunkedArray:
        texts = [None if v is None else write(v) for v in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])

    return lambda kind: Passage(pa.string(), how, convert)


def _plain_value(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _is_list_of_floats(kind: pa.DataType) -> bool:
    return is_.is_fixed_size_list(kind) and is_.is_floating(kind.value_type) and kind.list_size > 0


def _is_nested(kind: pa.DataType) -> bool:
    """Lists and structs that Python holds without loss: its times end at the microsecond."""
    nested = _any(is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_struct, is_.is_map)(kind)
    inside = [kind.field(k).type for k in range(kind.num_fields)] if nested else []
    return nested and all(not i.num_fields or _is_nested(i) for i in inside) and pa.time64("ns") not in inside


def _any(*tests: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    return lambda kind: any(test(kind) for test in tests)


_JSON = partial(json.dumps, ensure_ascii=False, default=_plain_value)
_DATE, _TIME, _EXACT = "text (YYYY-MM-DD)", "text (HH:MM:SS)", "text, all digits kept"
_WAYS: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], Passage]]] = [
    (_any(is_.is_boolean, is_.is_integer, is_.is_float32, is_.is_float64, is_.is_string), Passage),
    (_any(is_.is_large_string, is_.is_string_view), _cast(pa.string())),
    (is_.is_float16, _cast(pa.float32())),
    (is_.is_null, _cast(pa.string(), "text, missing in every row")),
    (is_.is_dictionary, _unpacked(lambda kind: kind.value_type, lambda chunk: chunk.dictionary_decode())),
    (is_.is_run_end_encoded, _unpacked(lambda kind: kind.value_type, pc.run_end_decode)),
    (
        lambda kind: isinstance(kind, pa.BaseExtensionType),
        _unpacked(lambda kind: kind.storage_type, lambda chunk: chunk.storage),
    ),
    (is_.is_date32, _cast(pa.string(), _DATE)),
    (is_.is_date64, lambda kind: Passage(pa.string(), _DATE, lambda c: c.cast(pa.date32()).cast("string"))),
    (is_.is_time, _cast(pa.string(), _TIME)),
    (is_.is_timestamp, _timestamp),
    (is_.is_duration, _duration),
    (is_.is_decimal, _cast(pa.string(), _EXACT)),
    (
        _any(is_.is_binary, is_.is_large_binary, is_.is_binary_view, is_.is_fixed_size_binary),
        _through_python(bytes.hex, "text (hexadecimal)"),
    ),
    (_is_list_of_floats, _floats),
    (
        _is_nested,
        _through_python(_JSON, "text (JSON)"),
    ),
    (lambda kind: True, lambda kind: Passage(None)),
]
