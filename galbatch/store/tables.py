"""A table of a run as astropy has it, and what its columns mean, in the forms that readers understand, as its
Parquet footer says it.

Read without two losses of astropy's own reader: a missing integer makes floats of its whole column, a missing
text becomes the word None.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.columns import Column
from galbatch.store.place import local_copy

if TYPE_CHECKING:
    from astropy.table import QTable


def read_table(path: Path) -> QTable:
    """``read_local`` of a folder or a bucket."""
    with local_copy(path) as copy:
        return read_local(copy)


def read_local(path: Path) -> QTable:
    """The table in a Parquet file of a run. Missing texts, integers and truth values are masked; missing
    floats are NaN. Columns with a unit are quantities, of floats as all of them, printed with six digits."""
    from astropy.table import MaskedColumn, QTable

    table = QTable.read(path, format="parquet")
    with pq.ParquetFile(path) as file:
        values = file.read(columns=[f.name for f in file.schema_arrow if f.nullable and _is_exact(f.type)])
    for name in values.column_names:
        if values[name].null_count:
            about = table[name].info
            table[name] = MaskedColumn(
                _filled(values[name]),
                mask=values[name].is_null().to_numpy(),
                unit=about.unit,
                description=about.description,
                meta=about.meta,
            )
    for name in table.colnames:
        if table[name].dtype == np.float32:  # printed with the digits that they have
            table[name].info.format = ".6g"
    return table


def _is_exact(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _filled(column: pa.ChunkedArray) -> np.ndarray:
    """The values of a column, 0 or '' where they are missing."""
    words = is_text(column.type)
    values = column.fill_null("" if words else pa.scalar(0).cast(column.type)).to_numpy()
    return values.astype(str) if words else values


def table_metadata(
    names: Iterable[str], dtypes: dict[str, str], info: dict[str, Column], lengths: dict[str, int]
) -> dict[str, str]:
    """Key-value metadata of a Parquet footer: astropy's ``table_meta_yaml`` and VOParquet 1.0.

    ``dtypes``: numpy type string by column ('(16,)float32' for lists), 'str' for text;
    ``lengths``: longest text by text column.
    """
    from astropy.table import Table  # slow to import, and only a finished run needs it
    from astropy.table.meta import get_yaml_from_table

    table = Table()
    for name in names:
        about = info.get(name, Column())
        kind = f"U{max(1, lengths.get(name, 1))}" if dtypes[name] == "str" else dtypes[name]
        table[name] = np.zeros(0, kind)
        table[name].unit = about.unit or None
        table[name].description = about.description or None
        if about.ucd:
            table[name].meta["ucd"] = about.ucd
    result = {f"table::len::{name}": str(max(1, n)) for name, n in lengths.items()}
    result["table_meta_yaml"] = "\n".join(get_yaml_from_table(table))
    result["IVOA.VOTable-Parquet.version"] = "1.0"
    result["IVOA.VOTable-Parquet.content"] = _votable(names, dtypes, info)
    return result


_VO_TYPES = {
    "str": "unicodeChar",
    "bool": "boolean",
    "uint8": "unsignedByte",
    "int8": "short",
    "int16": "short",
    "uint16": "int",
    "int32": "int",
    "uint32": "long",
    "int64": "long",
    "uint64": "long",
    "float16": "float",
    "float32": "float",
    "float64": "double",
}


def _votable(names: Iterable[str], dtypes: dict[str, str], info: dict[str, Column]) -> str:
    from astropy.io.votable.tree import Field, Resource, TableElement, VOTableFile

    document = VOTableFile()
    resource = Resource()
    document.resources.append(resource)
    element = TableElement(document)
    resource.tables.append(element)
    for number, name in enumerate(names):
        about = info.get(name, Column())
        size, _, base = dtypes[name].rpartition(",)")
        kind = _VO_TYPES.get(base, "unicodeChar")
        field = Field(
            document,
            name=name,
            ID=f"col{number}",
            datatype=kind,
            ucd=about.ucd or None,
            unit=about.unit or None,
            arraysize="*" if kind == "unicodeChar" else size.lstrip("(") or None,
        )
        field.description = about.description or None
        element.fields.append(field)
    out = io.BytesIO()
    document.to_xml(out)
    return out.getvalue().decode()


def dtype_name(kind: pa.DataType) -> str:
    """A type of Arrow as numpy names it."""
    if pa.types.is_fixed_size_list(kind):
        return f"({kind.list_size},){dtype_name(kind.value_type)}"
    if is_text(kind):
        return "str"
    try:
        return np.dtype(kind.to_pandas_dtype()).name
    except (NotImplementedError, TypeError):
        return "object"


def is_text(kind: pa.DataType) -> bool:
    """Is it text?"""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
