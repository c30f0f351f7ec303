"""The run folder on disk: the one place that knows Zarr and the layout of a run.

Names are imported on first use: a status loads no tables of astropy.
"""

from galbatch.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    bucket="BucketPath take_traffic",
    catalog="merge_catalog",
    checksums="Checksums DamagedBatch begin_checksums difference digest_file end_checksums read_checksums "
    "rebuild_checksums record_file reopen_checksums template_files",
    folder="Marker band_name clear file_names holds_results is_empty is_ours mark one_line open_export "
    "read_marker remove replaces",
    hats="write_hats",
    layout="MASK_EXCLUDED MASK_NEIGHBOUR STATUS StoreLayout",
    ledger="batches_to_retry catalog_flags check_accounting progress read_failures read_summary "
    "write_summary",
    manifest="check_manifest differences dump_toml fingerprint hash_json layout_differences read_manifest "
    "restore_manifest versions write_manifest",
    parts="BatchResult commit_batch damaged_parts read_attempt read_note read_part",
    paths="RunPaths is_own_name move_in opened place_of write_atomic",
    plan="PlanBatch PlanWriter iter_plan plan_batch plan_rows",
    posterior="create_store",
    reader="Run open_run",
    sky="healpix_nested",
    tables="write_votable",
    verify="Verdict verify_store",
)
