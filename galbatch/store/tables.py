"""A table of a run as astropy has it, and what its columns mean, in the forms that readers understand, as its
Parquet footer says it.

Read without two losses of astropy's own reader: a missing integer makes floats of its whole column, a missing
text becomes the word None.

Also the catalogue as a VOTable (BINARY2), streamed row group by row group: for tools that do not read
Parquet. Its fields are those of the VOTable document in the footer of ``catalog.parquet``; what follows is
one row after the other, big-endian, behind bits that say which cells are empty. Texts have one width.
"""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.columns import Column
from galbatch.errors import RunError
from galbatch.store.paths import RunPaths, local_copy, opened

if TYPE_CHECKING:
    from astropy.table import QTable


def read_table(path: Path) -> QTable:
    """The table in a Parquet file of a run. Missing texts, integers and truth values are masked; missing
    floats are NaN. Columns with a unit are quantities, of floats as all of them, printed with six digits."""
    from astropy.table import MaskedColumn, QTable

    with local_copy(path) as copy, pq.ParquetFile(copy) as file:
        table = QTable.read(copy, format="parquet")
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


# Type of a VOTable and its bytes in BINARY2, by type of numpy; all else is text.
_VO_TYPES = {
    "bool": ("boolean", "S1"),
    "uint8": ("unsignedByte", "u1"),
    **dict.fromkeys(("int8", "int16"), ("short", ">i2")),
    **dict.fromkeys(("uint16", "int32"), ("int", ">i4")),
    **dict.fromkeys(("uint32", "int64", "uint64"), ("long", ">i8")),
    **dict.fromkeys(("float16", "float32"), ("float", ">f4")),
    "float64": ("double", ">f8"),
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
        kind, _ = _VO_TYPES.get(base, ("unicodeChar", ""))
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
    return "str" if is_text(kind) else np.dtype(kind.to_pandas_dtype()).name


def is_text(kind: pa.DataType) -> bool:
    """Is it text?"""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


_FOOTER = b"IVOA.VOTable-Parquet.content"
_TYPES = dict(_VO_TYPES.values())
_ROWS = 8_192
_LINE = 3 << 14  # bytes that are encoded at once: a multiple of three


def write_votable(paths: RunPaths, out: Path) -> int:
    """Write the catalogue of a run as a VOTable; returns its rows. Memory is bounded by a row group.

    Raises ``RunError`` when the catalogue is not there or has no VOTable document in its footer.
    """
    paths.need(paths.catalog)
    with pq.ParquetFile(opened(paths.catalog), pre_buffer=False) as file, open(out, "wb") as target:
        head, kind = _header(file)
        start, end = head.rsplit(b"</TABLE>", 1)
        target.write(start + b'<DATA><BINARY2><STREAM encoding="base64">\n')
        rest = b""
        for table in _tables(file):
            rest = _encode(target, rest + _rows(table, kind))
        target.write(base64.b64encode(rest) + b"\n</STREAM></BINARY2></DATA></TABLE>" + end)
        return file.metadata.num_rows


def _tables(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.Table]:
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=columns)
        for start in range(0, table.num_rows, _ROWS):
            yield table.slice(start, _ROWS)


def _header(file: pq.ParquetFile) -> tuple[bytes, np.dtype]:
    """The document without data, and the type of a row."""
    content = (file.schema_arrow.metadata or {}).get(_FOOTER)
    if content is None:
        raise RunError(
            "catalog.parquet has no VOTable in its footer, so it was not written by galbatch. Take the one "
            "that the run wrote: `galbatch resume` makes it again."
        )
    if space := re.search(rb'xmlns="([^"]+)"', content):
        ET.register_namespace("", space[1].decode())
    document = ET.fromstring(content)
    fields = [e for e in document.iter() if e.tag.endswith("}FIELD")]
    beyond = _beyond_long(file)
    for field in fields:
        if field.get("name") in beyond:
            field.set("datatype", "unicodeChar")
    widths = _widths(file, [f.attrib["name"] for f in fields if f.get("datatype") == "unicodeChar"])
    kinds: list[tuple] = [("empty", "u1", ((len(fields) + 7) // 8,))]
    for number, field in enumerate(fields):
        field.attrib.pop("ID", None)  # astropy would name the column so
        if field.get("datatype") == "unicodeChar":
            field.set("arraysize", str(widths[field.attrib["name"]]))
            kinds.append((f"c{number}", f"S{2 * widths[field.attrib['name']]}"))
        else:
            size = field.get("arraysize")
            shape = (int(size),) if size else ()
            kinds.append((f"c{number}", _TYPES[field.attrib["datatype"]], shape))
    return ET.tostring(document, "UTF-8", xml_declaration=True), np.dtype(kinds)


def _beyond_long(file: pq.ParquetFile) -> set[str]:
    """Columns of unsigned integers with values beyond 2^63 - 1, for which a VOTable has no type: they are
    written as text."""
    names = [field.name for field in file.schema_arrow if pa.types.is_uint64(field.type)]
    found: set[str] = set()
    for table in _tables(file, names) if names else ():
        found |= {name for name in names if (pc.max(table[name]).as_py() or 0) >= 2**63}
    return found


def _widths(file: pq.ParquetFile, names: list[str]) -> dict[str, int]:
    """The longest text of every column, in 16-bit units."""
    widths = dict.fromkeys(names, 1)
    for table in _tables(file, names) if names else ():
        for name in names:
            texts = pc.unique(table[name].cast(pa.string())).to_pylist()
            widths[name] = max(widths[name], *(len(t.encode("utf-16-be")) // 2 for t in texts if t), 1)
    return widths


def _rows(table: pa.Table, kind: np.dtype) -> bytes:
    """The rows of a table as BINARY2 has them."""
    rows = np.zeros(table.num_rows, kind)
    empty = np.zeros((table.num_rows, table.num_columns), bool)
    for number, column in enumerate(table.columns):
        place = kind[f"c{number}"]
        if column.null_count:
            empty[:, number] = column.is_null().to_numpy()
        rows[f"c{number}"] = _cells(column, place)
    rows["empty"] = np.packbits(empty, axis=1)
    return rows.tobytes()


def _cells(column: pa.ChunkedArray, place: np.dtype) -> np.ndarray:
    if pa.types.is_boolean(column.type):
        return np.where(column.fill_null(False).to_numpy(), b"T", b"F")
    if place.kind == "S":
        texts = column.cast(pa.string()).to_pylist()  # large integers too
        return np.array([t.encode("utf-16-be") if t else b"" for t in texts], place)
    if place.subdtype is not None:
        flat = column.combine_chunks()
        return (
            flat.values.slice(flat.offset * place.shape[0], len(flat) * place.shape[0])
            .to_numpy(zero_copy_only=False)
            .reshape(len(flat), -1)
        )
    if column.null_count and not pa.types.is_floating(column.type):
        column = column.fill_null(0)
    return column.to_numpy()


def _encode(target: IO[bytes], data: bytes) -> bytes:
    """Write what makes whole lines; returns the rest."""
    whole = len(data) // _LINE * _LINE
    for start in range(0, whole, _LINE):
        target.write(base64.b64encode(memoryview(data)[start : start + _LINE]) + b"\n")
    return data[whole:]
