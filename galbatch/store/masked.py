"""A table of a run as astropy has it, without two losses of astropy's own reader: a missing integer makes
floats of its whole column, a missing text becomes the word None."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import MaskedColumn, QTable


def read_table(path: Path) -> QTable:
    """The table in a Parquet file of a run. Missing texts, integers and truth values are masked; missing
    floats are NaN. Columns with a unit are quantities, of floats as all of them."""
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
    return table


def _is_exact(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _filled(column: pa.ChunkedArray) -> np.ndarray:
    """The values of a column, 0 or '' where they are missing."""
    words = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    values = column.fill_null("" if words else pa.scalar(0).cast(column.type)).to_numpy()
    return values.astype(str) if words else values
