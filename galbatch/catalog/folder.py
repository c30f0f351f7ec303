"""Catalogues in a folder of Parquet files: HATS (Hierarchical Adaptive Tiling Scheme, IVOA note 2025) in the
order of the sky, any other in the order of names. One file is open at a time.

A HATS catalogue has one partition per HEALPix pixel, ``dataset/Norder=K/Dir=D/Npix=P.parquet`` or a folder
``Npix=P`` of files; a collection names its catalogue in ``collection.properties``. Margins, indices and
thumbnails repeat rows of the catalogue and are not read.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.errors import InputError

INDEX, INDEX_ORDER = "_healpix_29", 29
_PARTITION = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)(?:\.parquet|/[^_.][^/]*\.parquet)")
COLLECTION = "collection.properties"


class ParquetFolder:
    """The files of a folder as one table: ``files`` in order, ``schema`` that of the first, ``n_rows``;
    ``by_sky``: they are partitions of HATS.

    Raises ``InputError`` where there is no file, or one that the catalogue lists is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = parquet_files(path)
        self.by_sky = "Norder=" in str(self.files[0])
        self.rows = [pq.read_metadata(file).num_rows for file in self.files]
        self.schema = pq.read_schema(self.files[0])

    @property
    def n_rows(self) -> int:
        return sum(self.rows)

    def tables(self, columns: list[str], size: int) -> Iterator[pa.Table]:
        """Consecutive tables of at most ``size`` rows, each partition in the order of its ``_healpix_29``."""
        wanted = pa.schema([self.schema.field(name) for name in columns])
        for path in self.files:
            with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
                if lacking := sorted(set(columns) - set(file.schema_arrow.names)):
                    raise InputError(
                        f"{path} has no column {', '.join(lacking)}, {self.files[0].name} has. Write the "
                        "catalogue again, all files with the same columns."
                    )
                for table in _in_order(file, columns, size):
                    yield table.select(columns).cast(wanted)


def _in_order(file: pq.ParquetFile, columns: list[str], size: int) -> Iterator[pa.Table]:
    """A file as it lies; one whose rows are not in the order of the sky is held whole and sorted."""
    if INDEX in file.schema_arrow.names:
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
    with open(info, newline="", encoding="utf-8") as file:
        listed = [(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(file)]
    if lost := [pair for pair in listed if pair not in found]:
        raise InputError(
            f"Catalogue {root}: {len(lost)} of its {len(listed)} partitions have no file, first "
            f"Norder={lost[0][0]}, Npix={lost[0][1]}. Copy the catalogue again."
        )
