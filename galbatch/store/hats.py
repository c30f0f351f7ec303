"""The catalogue as a HATS collection of HEALPix partitions (Hierarchical Adaptive Tiling Scheme, IVOA note
2025), which LSDB and hats open. Written from ``catalog.parquet``; needs nothing but Parquet.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.errors import RunError
from galbatch.store.paths import RunPaths

INDEX, INDEX_ORDER = "_healpix_29", 29
MAX_ORDER, ROWS_PER_PARTITION = 10, 1_000_000


def write_hats(paths: RunPaths, out: Path, rows_per_partition: int = ROWS_PER_PARTITION) -> int:
    """Write the catalogue of a finished run as a HATS folder; returns the number of partitions.

    Raises ``RunError`` when the run has no catalogue, or ``out`` exists and is not a HATS folder.
    """
    if not paths.catalogue.exists():
        raise RunError(
            f"{paths.catalogue}: not written yet. Finish the run with `galbatch resume {paths.root}`."
        )
    out = Path(out)
    if out.exists() and not (out / "hats.properties").exists():
        raise RunError(f"{out} exists and is not a HATS folder: name another with --out.")
    shutil.rmtree(out, ignore_errors=True)
    table = pq.read_table(paths.catalogue).sort_by(INDEX)
    index = table[INDEX].to_numpy()
    partitions = _partitions(index, rows_per_partition)
    metadata = []
    for order, pixel, rows in partitions:
        _write_partition(out, table.take(pa.array(rows)), order, pixel, metadata)
    schema = table.schema.remove_metadata()
    pq.write_metadata(schema, out / "dataset" / "_common_metadata")
    pq.write_metadata(schema, out / "dataset" / "_metadata", metadata_collector=metadata)
    lines = ["Norder,Npix,Dir,num_rows"]
    lines += [f"{order},{pixel},{_dir(pixel)},{len(rows)}" for order, pixel, rows in partitions]
    (out / "partition_info.csv").write_text("\n".join(lines) + "\n")
    (out / "hats.properties").write_text(_properties(out.name, table, partitions))
    return len(partitions)


def _partitions(index: np.ndarray, limit: int) -> list[tuple[int, int, np.ndarray]]:
    """(order, pixel, rows): pixels are split until none has more than ``limit`` rows."""
    done, open_pixels = [], [(0, pixel, np.flatnonzero(index >> 58 == pixel)) for pixel in range(12)]
    while open_pixels:
        order, pixel, rows = open_pixels.pop()
        if not len(rows):
            continue
        if len(rows) <= limit or order == MAX_ORDER:
            done.append((order, pixel, rows))
            continue
        finer = index[rows] >> 2 * (INDEX_ORDER - order - 1)
        open_pixels += [(order + 1, child, rows[finer == child]) for child in range(4 * pixel, 4 * pixel + 4)]
    return sorted(done, key=lambda p: p[1] << 2 * (INDEX_ORDER - p[0]))


def _dir(pixel: int) -> int:
    return pixel // 10_000 * 10_000


def _write_partition(out: Path, table: pa.Table, order: int, pixel: int, collected: list) -> None:
    folder = out / "dataset" / f"Norder={order}" / f"Dir={_dir(pixel)}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"Npix={pixel}.parquet"
    found: list = []
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd", metadata_collector=found)
    found[-1].set_file_path(str(path.relative_to(out / "dataset")))
    collected += found


def _properties(name: str, table: pa.Table, partitions) -> str:
    fields = {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": table.num_rows,
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": INDEX,
        "hats_col_healpix_order": INDEX_ORDER,
        "hats_max_rows": max(len(rows) for *_, rows in partitions),
        "hats_order": max(order for order, *_ in partitions),
        "hats_builder": "galbatch",
        "hats_version": "v0.1",
        "hats_estsize": table.nbytes // 1024,
    }
    return "".join(f"{key}={value}\n" for key, value in fields.items())
