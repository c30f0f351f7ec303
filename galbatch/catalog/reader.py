"""Catalogues in Parquet (streamed; also folders of it, as HATS), FITS, ECSV, VOTable and CSV, as one thing:
``Catalog``. Columns under usual names (RA, ALPHA_J2000, NUMBER, id, ...) are known as ra, dec, source_id.

Rows keep their order. Nothing goes through floats on its way. Pass-through columns stay in Arrow, in the
types of ``galbatch.catalog.passing``, with units and descriptions where the file has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.catalog.columns import OPTIONAL, REQUIRED, check_types, read_as, to_numpy
from galbatch.catalog.folder import ParquetFolder
from galbatch.catalog.from_astropy import column_metadata, read_astropy, read_csv
from galbatch.catalog.passing import passage, plain_column, plain_field
from galbatch.errors import InputError

BATCH_ROWS = 65536
_ASTROPY = {
    ".fits": "fits",
    ".fit": "fits",
    ".ecsv": "ascii.ecsv",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
}


def open_catalog(path: str | Path, pixel_columns: bool = False) -> Catalog:
    """Open a catalogue by the ending of its name; only its schema is read (all of it, if it is not Parquet).

    Raises ``InputError`` for a missing, unreadable or wrongly typed catalogue.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise InputError(f"Catalogue {path} does not exist. Check the path.")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"Catalogue {path} is not a regular file.")
    suffix = path.suffix.lower() if path.suffix.lower() != ".gz" else Path(path.stem).suffix.lower()
    try:
        if path.is_dir():
            catalog: Catalog = _Folder(path)
        elif suffix in (".parquet", ".pq", ".parq"):
            catalog = _Parquet(path)
        elif suffix in _ASTROPY:
            catalog = _InMemory(path, read_astropy(path, _ASTROPY[suffix]))
        elif suffix == ".csv":
            catalog = _InMemory(path, read_csv(path))
        else:
            raise InputError(
                f"Catalogue {path}: the ending {path.suffix!r} is not known. Use .parquet, .fits, .ecsv, "
                ".vot, .xml or .csv."
            )
        check_types(str(path), catalog.file_schema, pixel_columns)
    except InputError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".rstrip(".")
        raise InputError(
            f"Catalogue {path} cannot be read as a table: {text}. Give a table of sources, in the format "
            "that its ending says."
        ) from error
    return catalog


class Catalog:
    """A source list. ``schema``: Arrow schema of all columns, in plain types (those of the file are in
    ``file_schema``); ``read_as``: {name in the file: name here} where they differ; ``n_rows``; ``path``;
    ``meta``: {column: {unit, ucd, description}} as far as the file says; ``by_sky``: its rows are in the
    order of the sky, not in one that somebody chose."""

    by_sky = False

    def __init__(self, path: Path, schema: pa.Schema, n_rows: int) -> None:
        self.path, self.n_rows = path, n_rows
        self.read_as = read_as(schema.names)
        fields = [field.with_name(self.read_as.get(field.name, field.name)) for field in schema]
        self.file_schema = pa.schema(fields, metadata=schema.metadata)
        self.schema = pa.schema([plain_field(f) for f in self.file_schema], metadata=schema.metadata)
        self.meta = column_metadata(self.schema)

    @property
    def columns(self) -> list[str]:
        return self.schema.names

    @property
    def converted(self) -> dict[str, str]:
        """Columns that the product holds in another type: what becomes of each."""
        ways = {f.name: (f.type, passage(f.type).how) for f in self.file_schema}
        return {name: f"{kind}: {how}" for name, (kind, how) in ways.items() if how}

    def _tables(self, columns: list[str], size: int) -> Iterator[pa.Table]:
        raise NotImplementedError

    def tables(self, columns: list[str] | None = None, size: int = BATCH_ROWS) -> Iterator[pa.Table]:
        """Consecutive Arrow tables of at most ``size`` rows, in plain types. Raises ``InputError`` where the
        file turns out damaged."""
        names = list(columns if columns is not None else self.columns)
        schema = pa.schema([self.schema.field(name) for name in names])
        stored, rows = {known: own for own, known in self.read_as.items()}, 0
        try:
            for table in self._tables([stored.get(name, name) for name in names], size):
                rows += len(table)
                yield pa.Table.from_arrays([plain_column(c) for c in table.columns], schema=schema)
            if names and rows != self.n_rows:
                raise ValueError(f"it announces {self.n_rows} rows and holds {rows}. Write it again")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"Catalogue {self.path} cannot be read to its end: {error}.") from error

    def batches(self, columns: list[str] | None = None, size: int = BATCH_ROWS) -> Iterator[tuple[int, dict]]:
        """(first row, {column: numpy (n,)}) of consecutive rows; by default the columns that galbatch
        knows."""
        names = columns or [c for c in (*REQUIRED, *OPTIONAL) if c in self.columns]
        first = 0
        for table in self.tables(names, size):
            yield first, {n: to_numpy(str(self.path), n, table.column(n), first) for n in names}
            first += table.num_rows

    def read(self, columns: list[str] | None = None) -> dict[str, np.ndarray]:
        """All rows of the known (or named) columns as numpy arrays."""
        parts = [rows for _, rows in self.batches(columns)]
        names = parts[0] if parts else columns or [c for c in (*REQUIRED, *OPTIONAL) if c in self.columns]
        return {n: np.concatenate([p[n] for p in parts]) if parts else np.array([]) for n in names}

    def take(self, rows: np.ndarray, columns: list[str] | None = None) -> pa.Table:
        """Arrow table of the given row numbers (n,), in their order."""
        rows = np.asarray(rows, np.int64)
        order = np.argsort(rows, kind="stable")
        parts, first = [], 0
        for table in self.tables(columns):
            low, high = np.searchsorted(rows[order], [first, first + table.num_rows])
            if high > low:
                parts.append(table.take(rows[order][low:high] - first))
            first += table.num_rows
            if high == len(rows):
                break
        if sum(p.num_rows for p in parts) != len(rows):
            raise InputError(
                f"Catalogue {self.path} has {self.n_rows} rows; rows up to {rows.max()} were asked for."
            )
        names = columns if columns is not None else self.columns
        table = pa.concat_tables(parts) if parts else self.schema.empty_table().select(names)
        return table.take(np.argsort(order, kind="stable"))


class _Parquet(Catalog):
    """Streamed from disk."""

    def __init__(self, path: Path) -> None:
        # not pre_buffer: it keeps all that was read, 200 MB of two columns of 10^7 rows
        self._file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
        super().__init__(path, self._file.schema_arrow, self._file.metadata.num_rows)

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return type(self), (self.path,)

    def _tables(self, columns: list[str], size: int) -> Iterator[pa.Table]:
        for batch in self._file.iter_batches(batch_size=size, columns=columns, use_threads=False):
            if batch.num_rows:
                yield pa.Table.from_batches([batch]).select(columns)


class _Folder(Catalog):
    """A folder of Parquet files, streamed one after the other."""

    def __init__(self, path: Path) -> None:
        self._folder = ParquetFolder(path)
        self.by_sky = self._folder.by_sky
        super().__init__(path, self._folder.schema, self._folder.n_rows)

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return type(self), (self.path,)

    def _tables(self, columns: list[str], size: int) -> Iterator[pa.Table]:
        return self._folder.tables(columns, size)


class _InMemory(Catalog):
    """A table that was read whole."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self._table = table
        super().__init__(path, table.schema, table.num_rows)

    def _tables(self, columns: list[str], size: int) -> Iterator[pa.Table]:
        table = self._table.select(columns)
        for first in range(0, table.num_rows, size):
            yield table.slice(first, size)
