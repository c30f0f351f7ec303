"""What a run that goes on makes whole: files that are not what was written, each from what is sound."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from galbatch.errors import ConfigError, RunError
from galbatch.store import (
    BucketPath,
    Checksums,
    RunPaths,
    StoreLayout,
    create_store,
    damaged_parts,
    difference,
    digest_file,
    dump_toml,
    move_in,
    read_checksums,
    read_manifest,
    rebuild_checksums,
    reopen_checksums,
    template_files,
    write_atomic,
)


def batches_to_redo(paths: RunPaths, redo: Iterable[int], n_batches: int) -> dict[int, str]:
    """Committed batches that are computed again, and why: those of ``redo``, and those whose part or note is
    not what was committed. Raises ``ConfigError`` for a number in ``redo`` that none of the ``n_batches``
    has."""
    if wrong := sorted(b for b in redo if not 0 <= b < n_batches):
        raise ConfigError(f"{paths.root} has batches 0 to {n_batches - 1}, not {wrong[0]}: correct --redo.")
    return {b: "as asked for" for b in sorted(set(redo) & paths.committed())} | damaged_parts(paths)


def set_aside(paths: RunPaths, batches: dict[int, str]) -> list[str]:
    """Take the commits of batches back, and with them the end of the run, so that they are computed again;
    returns a line for each."""
    if batches:
        paths.summary.unlink(missing_ok=True)
    for batch in batches:
        paths.part(batch).unlink(missing_ok=True)
        paths.attempt(batch).unlink(missing_ok=True)
    return [f"batch {batch} is computed again: {why.split('. ')[0]}" for batch, why in batches.items()]


def mend_settings(paths: RunPaths) -> list[str]:
    """Make ``galbatch.toml`` again from the manifest where it is not what was written, before it is read."""
    try:
        sums = read_checksums(paths)
        manifest = read_manifest(paths)
    except RunError:
        return []
    committed = sums.files.get(paths.config.name) if sums else None
    if committed is None or not (what := difference(paths.config, committed)):
        return []
    survey = manifest.get("config", {}).get("survey_resolved", {})
    text = dump_toml({"run": manifest.get("settings", {}), "survey": survey}).encode()
    return _put_back(paths, paths.config.name, what, lambda scratch: write_atomic(scratch.config, text))


def mend(
    paths: RunPaths, layout: StoreLayout, write_plan: Callable[[RunPaths], Any], unchanged: bool = True
) -> list[str]:
    """Make plan and template of the store again where they are not what was written, and open the checksums
    of a run that goes on; returns a line for everything that was done. ``write_plan(paths)`` writes the plan;
    ``unchanged``: from the inputs with which the run began.

    Raises ``RunError`` for a file that cannot be made again as it was.
    """

    def make(scratch: RunPaths) -> None:
        create_store(scratch.posterior, layout)
        if unchanged:
            write_plan(scratch)

    said = _open_checksums(paths, make)
    sums = read_checksums(paths) or Checksums()
    ends = {path.name for path in paths.written_last}
    for name, committed in sums.files.items():
        if name in ends - {paths.metrics.name} or not (what := difference(paths.root / name, committed)):
            continue
        if name.startswith(f"{paths.posterior.name}/"):
            said += _put_back(paths, name, what, lambda scratch: create_store(scratch.posterior, layout))
        elif name == paths.plan.name:
            said += _put_back(paths, name, what, write_plan)
        elif name == paths.config.name:
            said += mend_settings(paths)
        elif name == paths.manifest.name:
            raise _lost(paths, name, what)
        else:  # a report, a log: nothing depends on it
            said.append(f"{paths.root / name}: {what}; it is left as it is")
    reopen_checksums(paths)
    return said


def _open_checksums(paths: RunPaths, make: Callable[[RunPaths], Any]) -> list[str]:
    """Make a lost or damaged ``checksums.json`` again; before it the files that ``make`` makes, where they
    are not as it makes them: nothing says what they were."""
    try:
        if read_checksums(paths) is not None:
            return []
        what = f"{paths.checksums}: missing"
    except RunError as err:
        what = str(err).split(". ", 1)[0]
    said = [f"{what}; made again from the files that are there"]
    with _scratch(paths) as scratch:
        make(scratch)
        for made in filter(Path.exists, [scratch.plan, *template_files(scratch)]):
            name = made.relative_to(scratch.root)
            if difference(paths.root / name, digest_file(made)):
                move_in(made, paths.root / name)
                said.append(f"{paths.root / name}: not as it is made; made again")
    rebuild_checksums(paths)
    return said


@contextmanager
def _scratch(paths: RunPaths) -> Iterator[RunPaths]:
    """A folder in which files of the run are made again."""
    where = None if isinstance(paths.root, BucketPath) else paths.root
    with tempfile.TemporaryDirectory(prefix=".mend-", suffix=".tmp", dir=where) as folder:
        yield RunPaths(Path(folder))


def _put_back(paths: RunPaths, name: str, what: str, make: Callable[[RunPaths], Any]) -> list[str]:
    """Make a file again in a folder of its own, and put it in its place if it is the one that was written."""
    with _scratch(paths) as scratch:
        make(scratch)
        if difference(scratch.root / name, read_checksums(paths).files[name]):
            raise _lost(paths, name, what)
        move_in(scratch.root / name, paths.root / name)
    return [f"{paths.root / name}: {what}; made again as it was"]


def _lost(paths: RunPaths, name: str, what: str) -> RunError:
    return RunError(
        f"{paths.root / name}: {what}, and cannot be made again as it was. Copy it back, or start again with "
        "--overwrite."
    )
