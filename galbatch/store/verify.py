"""Is a run folder sound? Every file is held to its digest, and plan, parts, store and catalogue to each
other."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch.display import first_few
from galbatch.errors import RunError
from galbatch.store.checksums import Checksums, difference, name_in, read_checksums
from galbatch.store.layout import STATUS, StoreLayout
from galbatch.store.ledger import check_accounting
from galbatch.store.parts import BatchRead, read_batch, read_part
from galbatch.store.paths import RunPaths, opened, walk
from galbatch.store.plan import PlanBatch, iter_plan
from galbatch.store.posterior import open_store
from galbatch.store.threads import THREADS, ahead

_SHARD = re.compile(r"(\w+)/c/(0|[1-9]\d*)(/0)*")
_OF_BATCH = re.compile(r"batch-(\d{6,})\.\w+")


@dataclass
class Verdict:
    """What was found in a run folder.

    ``problems``: one line each, with the file, what is wrong, and what mends it; ``notes``: worth knowing and
    no problem; ``redo``: batches to be computed again; ``files`` and ``bytes`` that were held to their
    digests, in ``seconds``.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    redo: list[int] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0


def verify_store(paths: RunPaths) -> Verdict:
    """Read every byte of a run folder and hold it to what was written. Memory does not grow with the run."""
    began, verifier = time.monotonic(), _Verifier(paths)
    with ThreadPoolExecutor(THREADS) as pool:
        verifier.checksums()
        verifier.files(pool)
        try:
            verifier.batches(pool)
            verifier.tables()
        except RunError as err:  # without plan or store there is nothing to compare
            verifier.problem(str(err))
    verifier.strangers()
    verifier.verdict.seconds = time.monotonic() - began
    return verifier.verdict


class _Verifier:
    """One reading of one folder. ``sums``: what ``checksums.json`` says, None where it cannot be read;
    ``damaged``: names of files that are not what it says."""

    def __init__(self, paths: RunPaths) -> None:
        self.paths, self.verdict = paths, Verdict()
        self.sums: Checksums | None = None
        self.damaged: set[str] = set()
        self.totals: Counter = Counter()
        self.n_batches: int | None = None

    def problem(self, line: str) -> None:
        self.verdict.problems.append(line)

    def resume(self, batch: int | None = None) -> str:
        return f"`galbatch resume {self.paths.quoted}{'' if batch is None else f' --redo {batch}'}`"

    def checksums(self) -> None:
        """Open ``checksums.json``."""
        try:
            self.sums = read_checksums(self.paths)
            if self.sums is None:
                self.problem(f"{self.paths.checksums}: missing. {self.resume()} makes it again.")
            else:
                self._count(self.paths.checksums.stat().st_size)
        except RunError as err:
            self.problem(str(err))

    def files(self, pool: Executor) -> None:
        """Hold every file that ``checksums.json`` lists to its digest."""
        if self.sums is None:
            return
        measure = lambda entry: difference(self.paths.root / entry[0], entry[1])  # noqa: E731
        for (name, digest), what in ahead(pool, self.sums.files.items(), measure):
            self._count(digest[0])
            if what:
                self.damaged.add(name)
                self.problem(f"{self.paths.root / name}: {what}. {self._remedy(name)}")
        if not self.sums.finished:
            self.problem(
                f"{self.paths.root}: not ended, so what is written at the end is not guarded. "
                f"{self.resume()} ends it."
            )

    def _count(self, size: int) -> None:
        self.verdict.files += 1
        self.verdict.bytes += size

    def _remedy(self, name: str) -> str:
        paths = self.paths
        if name in (paths.metrics.name, paths.dask_report.name):
            return f"Copy it back; {self.resume()} goes on with it as it is."
        if name.endswith(".html"):
            out = "" if name == paths.report.name else f" --out {paths.root / name}"
            return f"`galbatch report {paths.quoted}{out}` makes it again."
        if name == paths.config.name:
            return f"{self.resume()} makes it again from {paths.manifest.name}."
        if name == paths.manifest.name:
            return (
                f"Copy it back (`galbatch verify {paths.quoted} --repair` does it for a manifest that cannot "
                "be read), or start again with --overwrite."
            )
        return f"{self.resume()} makes it again."

    def batches(self, pool: Executor) -> None:
        """Look at every batch of the plan; where the plan is damaged, at those that are committed. Raises
        ``RunError`` without plan or store."""
        paths, notes, count, n_batches = self.paths, hashlib.sha256(), 0, 0
        unknown = paths.committed()
        whole = paths.plan.name not in self.damaged
        plans = iter_plan(paths.plan) if whole else (PlanBatch(b, {}) for b in sorted(unknown))
        compare = self._comparison() if whole else None
        for plan, read in ahead(pool, plans, lambda plan: read_batch(paths, plan.batch)):
            n_batches += 1
            unknown.discard(plan.batch)
            if read is None:
                self.problem(f"{plan.name}: not committed ({len(plan)} sources). {self.resume()} does it.")
            else:
                count += 1
                notes.update(read.note)
                self._batch(plan, read, compare)
        for batch in sorted(unknown):
            self.problem(f"{paths.part(batch)}: a part that the plan does not know. Delete it.")
        self.n_batches = n_batches if whole else None
        sums = self.sums if self.sums is not None and self.sums.finished else None
        if sums is not None and not self.verdict.redo and sums.notes != [count, notes.hexdigest()]:
            self.problem(
                f"{paths.parts}: the notes of the batches are not those of the end of the run. "
                f"{self.resume()} ends it again."
            )

    def _comparison(self) -> Callable[[PlanBatch], list[str]] | None:
        """What compares plan, part and store; None where the template of the store is damaged."""
        if any(name.startswith(f"{self.paths.posterior.name}/") for name in self.damaged):
            return None
        group = open_store(self.paths.posterior)
        layout, arrays = StoreLayout.from_attributes(dict(group.attrs)), dict(group.arrays())
        for name in set(layout.arrays()) - set(arrays):
            self.problem(f"{self.paths.posterior / name / 'zarr.json'}: missing, its array cannot be opened")
        return partial(compare_batch, self.paths, layout, arrays, self.totals)

    def _batch(
        self, plan: PlanBatch, read: BatchRead, compare: Callable[[PlanBatch], list[str]] | None
    ) -> None:
        self.verdict.files += read.files
        self.verdict.bytes += read.bytes
        problems = [f"{path}: {what} ({plan.name}{self._array(path)})" for path, what in read.damaged]
        if not problems and compare:
            try:
                problems = compare(plan)
            except Exception as err:  # whatever a damaged file makes its reader raise is a finding
                problems = [f"{plan.name}: cannot be read: {type(err).__name__}: {err}"]
        if problems:
            self.verdict.redo.append(plan.batch)
        for line in problems:
            self.problem(f"{line}. {self.resume(plan.batch)} computes the batch again.")

    def _array(self, path: Path) -> str:
        """', array mean' for a file of that array of the store, else ''."""
        store = self.paths.posterior
        return f", array {path.relative_to(store).parts[0]}" if path.is_relative_to(store) else ""

    def tables(self) -> None:
        """Catalogue and statistics read through: their ids are the plan's, all sources accounted for."""
        paths = self.paths
        if paths.plan.name in self.damaged:
            return
        sound = [self._table(path) for path in (paths.catalog, paths.statistics)]
        if all(sound) and not self.verdict.redo and paths.failures.name not in self.damaged:
            try:
                check_accounting(paths, self.totals)
            except RunError as err:
                self.problem(str(err))

    def _table(self, path: Path) -> bool:
        """Is a table there, and of the sources of the plan?"""
        again = f"{self.resume()} makes it again from the parts."
        try:
            if not path.exists():
                self.problem(f"{path}: not written yet. {again}")
            elif not _same_ids(self.paths.plan, path):
                self.problem(f"{path}: its source ids are not the plan's. {again}")
            else:
                return True
        except Exception as err:  # a damaged footer raises whatever its bytes happen to mean
            self.problem(f"{path}: cannot be read ({err}). {again}")
        return False

    def strangers(self) -> None:
        """Files that no record knows: a problem where only galbatch writes, information elsewhere."""
        paths, orphans, strange = self.paths, self.paths.orphans(), []
        for path in orphans:
            self.problem(f"{path}: left behind by a killed process. {self.resume()} removes it.")
        if self.sums is None:
            return
        last = () if self.sums.finished else paths.written_last
        own = {*self.sums.files, paths.lock.name, paths.checksums.name, *(name_in(paths, p) for p in last)}
        for path in walk(paths.root):
            name = name_in(paths, path)
            if name in own or path in orphans or self._of_batch(path):
                continue
            if path.is_relative_to(paths.posterior):
                self.problem(f"{path}: no file of this run. Delete it.")
            else:
                strange.append(name)
        if strange:
            some = first_few(sorted(strange), 5)
            self.verdict.notes.append(f"{paths.root}: not of galbatch, and not checked: {some}")

    def _of_batch(self, path: Path) -> bool:
        """Is this file of a batch of the plan, which has been looked at?"""
        paths = self.paths
        if path.is_relative_to(paths.posterior):
            found = _SHARD.fullmatch(path.relative_to(paths.posterior).as_posix())
            known = self.sums.files if self.sums else {}
            if not found or f"{paths.posterior.name}/{found[1]}/zarr.json" not in known:
                return False
            batch = int(found[2])
        elif found := _OF_BATCH.fullmatch(path.name):
            batch = int(found[1])
            if path not in (paths.part(batch), paths.attempt(batch)):
                return False
        else:
            return False
        return self.n_batches is None or batch < self.n_batches


def _same_ids(plan: Path, catalog: Path) -> bool:
    """Are the source ids of two tables the same, in the same order? A row group of each is held at a time."""
    rest = [pa.chunked_array([], pa.null())] * 2
    with pq.ParquetFile(opened(plan)) as one, pq.ParquetFile(opened(catalog)) as other:
        if one.metadata.num_rows != other.metadata.num_rows:
            return False
        streams = [file.iter_batches(columns=["source_id"]) for file in (one, other)]
        for _ in range(one.metadata.num_rows):
            for side, stream in enumerate(streams):
                if not len(rest[side]) and (batch := next(stream, None)) is not None:
                    rest[side] = batch["source_id"]
            n = min(map(len, rest))
            if not n:
                break
            if not rest[0][:n].equals(rest[1][:n]):
                return False
            rest = [column[n:] for column in rest]
    return True


def compare_batch(
    paths: RunPaths, layout: StoreLayout, arrays: dict[str, Any], totals: Counter, plan: PlanBatch
) -> list[str]:
    """One line per disagreement of a batch's part with the plan and the store; counts its statuses in
    ``totals``."""
    part, problems = read_part(paths, plan.batch), []
    ids, status = part["source_id"].to_pylist(), part["status"].to_pylist()
    totals.update(status)
    rows = slice(layout.rows(plan.batch).start, layout.rows(plan.batch).start + len(plan))
    if ids != plan.columns["source_id"].tolist():
        problems.append(f"{plan.name}: the part's source ids are not the plan's")
    if ids != arrays["source_id"][rows].tolist():
        problems.append(f"{plan.name}: the store's source ids are not the part's")
    if [STATUS[s] for s in arrays["status"][rows]] != status:
        problems.append(f"{plan.name}: the store's status differs from the part's")
    ok = [n for n in _not_finite(layout, arrays, rows) if status[n] == "ok"]
    return problems + [f"{plan.name}: source {ids[n]} is ok but its posterior mean is not finite" for n in ok]


def _not_finite(layout: StoreLayout, arrays: dict[str, Any], rows: slice) -> list[int]:
    """Sources of these rows whose stored mean is not finite everywhere inside their stamp."""
    mean, spec = arrays["mean"][rows], layout.arrays()["mean"]
    sides = arrays["stamp_pix"][rows] if layout.sides else [layout.stamp_pix] * len(mean)
    inside = [layout.place(int(side), spec) for side in sides]
    return [n for n, i in enumerate(inside) if not np.isfinite(mean[n][:, i, i]).all()]
