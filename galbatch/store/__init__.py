"""The run folder on disk: the one place that knows Zarr and the layout of a run."""

from galbatch.store.catalogue import merge_catalogue
from galbatch.store.columns import FIXED, STATISTICS, ColumnInfo, statistic_column
from galbatch.store.export_folder import open_export
from galbatch.store.file_names import band_name, file_names, one_line
from galbatch.store.folder import (
    Marker,
    clear,
    holds_results,
    is_empty,
    is_ours,
    mark,
    read_marker,
    remove,
    replaces,
)
from galbatch.store.hats import write_hats
from galbatch.store.healpix import healpix_nested
from galbatch.store.layout import MASK_EXCLUDED, MASK_NEIGHBOUR, STATUS, StoreLayout
from galbatch.store.ledger import check_accounting, progress, verify_store, write_summary
from galbatch.store.manifest import (
    check_manifest,
    differences,
    fingerprint,
    hash_json,
    layout_differences,
    read_manifest,
    restore_manifest,
    versions,
    write_manifest,
)
from galbatch.store.parts import BatchResult, commit_batch, refuse_old_parts, withdraw_damaged
from galbatch.store.paths import RunPaths, is_own_name, write_atomic
from galbatch.store.plan import PlanBatch, PlanWriter, iter_plan, plan_rows
from galbatch.store.posterior import create_store
from galbatch.store.reader import Run, open_run
from galbatch.store.toml import dump_toml

__all__ = [
    "FIXED",
    "MASK_EXCLUDED",
    "MASK_NEIGHBOUR",
    "STATISTICS",
    "STATUS",
    "BatchResult",
    "ColumnInfo",
    "Marker",
    "PlanBatch",
    "PlanWriter",
    "Run",
    "RunPaths",
    "StoreLayout",
    "band_name",
    "check_accounting",
    "check_manifest",
    "clear",
    "commit_batch",
    "create_store",
    "differences",
    "dump_toml",
    "file_names",
    "fingerprint",
    "hash_json",
    "healpix_nested",
    "holds_results",
    "is_empty",
    "is_ours",
    "is_own_name",
    "iter_plan",
    "layout_differences",
    "mark",
    "merge_catalogue",
    "one_line",
    "open_export",
    "open_run",
    "plan_rows",
    "progress",
    "read_manifest",
    "read_marker",
    "refuse_old_parts",
    "remove",
    "replaces",
    "restore_manifest",
    "statistic_column",
    "verify_store",
    "versions",
    "withdraw_damaged",
    "write_atomic",
    "write_hats",
    "write_manifest",
    "write_summary",
]
