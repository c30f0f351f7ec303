"""The catalogue as a VOTable (BINARY2), streamed row group by row group: for tools that do not read Parquet.

The fields are those of the VOTable document in the footer of ``catalog.parquet``; what follows is one row
after the other, big-endian, behind bits that say which cells are empty. Texts have one width a column.
"""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.store.paths import RunPaths
from galbatch.store.place import opened

_FOOTER = b"IVOA.VOTable-Parquet.content"
_TYPES = {
    "boolean": "S1",
    "unsignedByte": "u1",
    "short": ">i2",
    "int": ">i4",
    "long": ">i8",
    "float": ">f4",
    "double": ">f8",
}
_ROWS = 8_192
_LINE = 3 << 14  # bytes that are encoded at once: a multiple of three


def write_votable(paths: RunPaths, out: Path) -> int:
    """Write the catalogue of a run as a VOTable; returns its rows. Memory is bounded by a row group.

    Raises ``RunError`` when the catalogue is not there or has no VOTable document in its footer.
    """
    if not paths.catalogue.exists():
        raise RunError(
            f"{paths.catalogue}: not written yet. Finish the run with `galbatch resume {paths.root}`."
        )
    with pq.ParquetFile(opened(paths.catalogue), pre_buffer=False) as file, open(out, "wb") as target:
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
            texts = pc.unique(_words(table[name])).to_pylist()
            widths[name] = max(widths[name], *(len(t.encode("utf-16-be")) // 2 for t in texts if t), 1)
    return widths


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts of a column; of one that is neither text nor number, its values written out."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        values = [None if v is None else json.dumps(v, default=str) for v in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.string())])


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
        return np.array([t.encode("utf-16-be") if t else b"" for t in _words(column).to_pylist()], place)
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
