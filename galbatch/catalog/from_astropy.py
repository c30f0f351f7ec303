"""FITS, ECSV, VOTable and CSV files as Arrow tables, read whole: every column, or an error that names it; and
units, UCDs and descriptions of a catalogue's columns, from Arrow field metadata or astropy's
``table_meta_yaml``."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from galbatch.errors import InputError


def read_astropy(path: Path, form: str) -> pa.Table:
    """The table in ``path``; ``form``: astropy's name of the format. Raises ``InputError`` for a column of
    objects that a table cannot hold."""
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(path, format=form, **({"memmap": False} if form == "fits" else {}))
    arrays, fields = [], []
    for name in table.colnames:
        column = table[name]
        try:
            array = _array(column, strip=form == "fits")
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: column {name!r} ({type(column).__name__} of {getattr(column, 'dtype', 'objects')}) "
                f"cannot pass through: {error}. Drop it, or store it as numbers or text."
            ) from error
        about = {k: getattr(column, k, None) for k in ("unit", "description")}
        fields.append(pa.field(name, array.type, metadata={k: str(v) for k, v in about.items() if v} or None))
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def read_csv(path: Path) -> pa.Table:
    """The table in ``path``, its first line the names of the columns (a leading ``#`` is no part of them);
    types are read from the values. Values may be parted by semicolons, tabs or bars in place of commas, and
    may have decimal commas then. Raises ``pyarrow.ArrowInvalid`` for text that is no table."""
    only, trouble = None, None
    for mark in ",;\t|":
        try:
            table = _parted(path, mark)
        except pa.ArrowInvalid as error:
            trouble = trouble or error
            continue
        if table.num_columns > 1:
            break
        only = only or table
    else:
        if trouble is not None:
            raise trouble
        table = only
    return table.rename_columns([name.lstrip("# ").strip() for name in table.column_names])


def _parted(path: Path, mark: str) -> pa.Table:
    """A text table whose values are parted by ``mark``."""
    from pyarrow import csv

    parted = csv.ParseOptions(delimiter=mark)
    table = csv.read_csv(path, parse_options=parted)
    starts = [str(c[0]) for c in table.columns if table.num_rows and pa.types.is_string(c.type)]
    if any(re.fullmatch(r"[-+]?\d+,\d+", value) for value in starts):
        options = csv.ConvertOptions(decimal_point=",")
        return csv.read_csv(path, parse_options=parted, convert_options=options)
    return table


def _array(column: np.ma.MaskedArray | np.ndarray, strip: bool) -> pa.Array:
    """One column. FITS pads text with blanks: ``strip`` takes them off."""
    from astropy.time import Time

    if isinstance(column, Time):
        column = column.isot
    if not isinstance(column, np.ndarray):
        raise TypeError("it is no plain column")
    if column.dtype.kind not in "iufbSUO":
        raise TypeError(f"Arrow has no {column.dtype.name}")
    mask = np.ma.getmaskarray(column) if np.ma.isMaskedArray(column) else None
    values = np.ma.getdata(column) if mask is not None else np.asarray(column)
    if values.dtype.kind in "iufb":
        values = values.astype(values.dtype.newbyteorder("="))
        if values.ndim == 1:
            return pa.array(values, mask=mask)
        if values.dtype.kind == "f":
            flat = (values if mask is None else np.where(mask, np.nan, values)).reshape(len(values), -1)
            if values.ndim == 2:
                return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    rows = column.tolist()
    if mask is not None:
        whole = np.all(mask.reshape(len(mask), -1), axis=1)
        rows = [None if m else v for v, m in zip(rows, whole, strict=True)]
    return pa.array([_text(row, strip) for row in rows])


def _text(value: Any, strip: bool) -> Any:
    """A value, or a list of them, as Arrow takes it."""
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_text(v, strip) for v in value]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return value.rstrip() if strip and isinstance(value, str) else value


MAX_BYTES = 1 << 20  # of the text; astropy writes about 60 bytes a column


def column_metadata(schema: pa.Schema) -> dict[str, dict[str, str]]:
    """{column: {"unit", "ucd", "description"}}, only what is there; metadata that is damaged or longer than
    ``MAX_BYTES`` counts as none."""
    out: dict[str, dict[str, str]] = {}
    for entry in _astropy_entries(schema):
        name, unit = str(entry.get("name")), entry.get("unit")
        said = {"unit": unit.get("unit") if isinstance(unit, dict) else unit}  # with astropy's tag, or plain
        said["description"] = entry.get("description")
        known = {key: text for key, text in said.items() if isinstance(text, str) and text}
        if name in schema.names and known:
            out[name] = known
    for field in schema:
        for key in ("unit", "ucd", "description"):
            value = (field.metadata or {}).get(key.encode())
            if value:
                out.setdefault(field.name, {})[key] = value.decode("utf-8", "replace")
    return out


def _astropy_entries(schema: pa.Schema) -> list[dict]:
    text = (schema.metadata or {}).get(b"table_meta_yaml")
    if not text or len(text) > MAX_BYTES:
        return []
    try:  # as plain texts, lists and tables: no tag is followed, and aliases are neither copied nor merged
        table = yaml.load(text.decode("utf-8"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        return []
    entries = table.get("datatype") if isinstance(table, dict) else None
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
