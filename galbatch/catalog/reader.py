"""Catalogues in Parquet (streamed; also folders of it, as HATS), FITS, ECSV, VOTable and CSV, as one thing:
``Catalog``. Columns under usual names (RA, ALPHA_J2000, NUMBER, id, ...) are known as ra, dec, source_id.

Rows keep their order. Nothing goes through floats on its way. Pass-through columns stay in Arrow, in the
types of ``galbatch.catalog.passing``, with units and descriptions where the file has them.

A HATS catalogue (Hierarchical Adaptive Tiling Scheme, IVOA note 2025) has one partition per HEALPix pixel,
``dataset/Norder=K/Dir=D/Npix=P.parquet`` or a folder ``Npix=P`` of files; a collection names its catalogue in
``collection.properties``. Margins, indices and thumbnails repeat rows of the catalogue and are not read. A
path may be one of a bucket: its methods are those of ``Path``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.catalog.columns import OPTIONAL, REQUIRED, check_types, read_as, to_numpy
from galbatch.catalog.from_astropy import column_metadata, read_astropy, read_csv
from galbatch.catalog.passing import passage, plain_column, plain_field
from galbatch.display import html_table
from galbatch.errors import InputError

INDEX, INDEX_ORDER = "_healpix_29", 29
_PARTITION = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)(?:\.parquet|/[^_.][^/]*\.parquet)")
COLLECTION = "collection.properties"


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
    path = (path if isinstance(path, Path) else Path(path)).absolute()
    if not path.exists():
        raise InputError(f"Catalogue {path} does not exist. Check the path.")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"Catalogue {path} is not a regular file.")
    suffix = path.suffix.lower() if path.suffix.lower() != ".gz" else Path(path.stem).suffix.lower()
    try:
        if path.is_dir() or suffix in (".parquet", ".pq", ".parq"):
            catalog: Catalog = _Parquet(path)
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
        remedy = "Give a table of sources, in the format that its ending says."
        if isinstance(error, UnicodeDecodeError):
            remedy = "Save it as UTF-8."
        elif suffix == ".csv":
            remedy = "Each line needs as many values as the first line has names, parted by commas."
        raise InputError(f"Catalogue {path} cannot be read as a table: {text}. {remedy}") from error
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

    def __repr__(self) -> str:
        return f"<galbatch catalogue {self.path.name}: {self.n_rows:,} sources, {len(self.columns)} columns>"

    def _repr_html_(self) -> str:
        rows = {"file": str(self.path), "sources": f"{self.n_rows:,}", "columns": ", ".join(self.columns)}
        return html_table("Catalogue", rows)

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


class _Parquet(Catalog):
    """A Parquet file, or those of a folder, streamed one after the other: HATS in the order of the sky, any
    other in the order of names."""

    def __init__(self, path: Path) -> None:
        self._files = parquet_files(path) if path.is_dir() else [path]
        self.by_sky = path.is_dir() and "Norder=" in str(self._files[0])
        rows = sum(pq.read_metadata(_bytes(file)).num_rows for file in self._files)
        super().__init__(path, pq.read_schema(_bytes(self._files[0])), rows)

    def _tables(self, columns: list[str], size: int) -> Iterator[pa.Table]:
        """Each file of a folder in the order of its ``_healpix_29``."""
        schema = pq.read_schema(_bytes(self._files[0]))
        wanted = pa.schema([schema.field(name) for name in columns])
        for path in self._files:
            # not pre_buffer: it keeps all that was read, 200 MB of two columns of 10^7 rows
            with pq.ParquetFile(_bytes(path), page_checksum_verification=True, pre_buffer=False) as file:
                if lacking := sorted(set(columns) - set(file.schema_arrow.names)):
                    raise InputError(
                        f"{path} has no column {', '.join(lacking)}, {self._files[0].name} has. Write the "
                        "catalogue again, all files with the same columns."
                    )
                for table in _in_order(file, columns, size, by_index=path != self.path):
                    yield table.select(columns).cast(wanted)


class _InMemory(Catalog):
    """A table that was read whole."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self._table = table
        super().__init__(path, table.schema, table.num_rows)

    def _tables(self, columns: list[str], size: int) -> Iterator[pa.Table]:
        table = self._table.select(columns)
        for first in range(0, table.num_rows, size):
            yield table.slice(first, size)


def _bytes(path: Path) -> Any:
    """What pyarrow reads a file from: an object in a bucket is no local file."""
    return path.open("rb") if "://" in str(path) else path


def _in_order(file: pq.ParquetFile, columns: list[str], size: int, by_index: bool) -> Iterator[pa.Table]:
    """A file as it lies; ``by_index``: one whose rows are not in the order of the sky is held whole and
    sorted."""
    if by_index and INDEX in file.schema_arrow.names:
        index = file.read([INDEX], use_threads=False)[INDEX].to_numpy()
        if (index[1:] < index[:-1]).any():
            order = pa.array(np.argsort(index, kind="stable"))
            table = file.read(columns, use_threads=False).take(order)
            yield from (table.slice(first, size) for first in range(0, len(table), size))
            return
    for batch in file.iter_batches(batch_size=size, columns=columns, use_threads=False):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def parquet_files(path: Path) -> list[Path]:
    """The files of a catalogue folder in the order in which their rows count."""
    root = primary(path)
    dataset = root / "dataset" if (root / "dataset").is_dir() else root
    found = sorted(p for p in dataset.rglob("*.parquet") if not p.name.startswith(("_", ".")))
    placed = {p: m for p in found if (m := _PARTITION.fullmatch(p.relative_to(dataset).as_posix()))}
    if placed:
        _refuse_missing(root, {(int(m[1]), int(m[2])) for m in placed.values()})
        return sorted(placed, key=lambda p: (_start(int(placed[p][1]), int(placed[p][2])), p.name))
    if not found:
        raise InputError(f"Catalogue folder {path} holds no Parquet file.")
    return found


def primary(path: Path) -> Path:
    """The catalogue of a HATS collection; ``path`` itself where it is none."""
    if not (path / COLLECTION).is_file():
        return path
    lines = (path / COLLECTION).read_text(encoding="utf-8").splitlines()
    fields = {k.strip(): v.strip() for k, mark, v in (line.partition("=") for line in lines) if mark}
    name = fields.get("hats_primary_table_url", "")
    if not name or not (path / name).is_dir():
        raise InputError(
            f"{path / COLLECTION}: its catalogue is hats_primary_table_url = {name!r}, and there is no such "
            "folder in the collection. Copy it there, or name the folder of the catalogue."
        )
    return path / name


def _start(order: int, pixel: int) -> int:
    """First index of order 29 of a partition."""
    return pixel << 2 * (INDEX_ORDER - order)


def _refuse_missing(root: Path, found: set[tuple[int, int]]) -> None:
    """Raise ``InputError`` where a partition that ``partition_info.csv`` lists has no file."""
    info = root / "partition_info.csv"
    if not info.is_file():
        return
    lines = info.read_text(encoding="utf-8").splitlines()
    listed = [(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(lines)]
    if lost := [pair for pair in listed if pair not in found]:
        raise InputError(
            f"Catalogue {root}: {len(lost)} of its {len(listed)} partitions have no file, first "
            f"Norder={lost[0][0]}, Npix={lost[0][1]}. Copy the catalogue again."
        )
