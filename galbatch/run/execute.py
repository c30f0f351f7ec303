"""One run from its settings to the finished folder: inputs opened, batches computed, parts merged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from galbatch.config import ExecutionSettings, RunSettings
from galbatch.display import count
from galbatch.errors import RunError
from galbatch.interfaces import Denoiser
from galbatch.pipeline.measurement import empty_columns
from galbatch.run import folder, lay_out, mend, prepare
from galbatch.run.context import ContextSpec, own_threads
from galbatch.run.events import Interrupted, Reporter, StopRequest
from galbatch.run.findings import READ_AS, column_info_of, said_of_model, said_once
from galbatch.run.reuse import counted, obstacles, remark, said_of
from galbatch.run.task import is_fatal, run_serial, take_traffic, write_stopped
from galbatch.store import (
    DamagedBatch,
    PlanBatch,
    Run,
    RunPaths,
    batches_to_retry,
    check_accounting,
    damaged_parts,
    differences,
    end_checksums,
    iter_plan,
    merge_catalog,
    open_run,
    place_of,
    progress,
    read_manifest,
    versions,
    write_summary,
)

MERGES = 3  # attempts
SAID = 10  # changes since the run that is updated, at most


def execute(
    settings: RunSettings,
    execution: ExecutionSettings,
    place: folder.Place,
    reporter: Reporter,
    prior: Any,
    force: bool,
    retry_failed: bool = False,
    redo: tuple[int, ...] = (),
) -> Run:
    """One run from open inputs to a balanced account. Raises ``Stopped`` on a signal, and where the folder of
    a run that has begun can no longer be written."""
    paths, going_on = place.paths, place.going_on
    with _resumable(place, reporter) as stop, ExitStack() as stack:
        begun = read_manifest(paths) if going_on else {}
        out, noise = place.target or paths, None if going_on else False
        inputs = prepare.preflight(settings, execution, prior, begun, out=out, noise=noise)
        layout = inputs.layout
        for finding in said_once(inputs.findings):
            if finding.level == "warn" or finding.code == READ_AS:
                reporter.message(finding.line)
        inputs.survey.measure_noise()
        manifest = lay_out.make_manifest(inputs, execution, begun)
        changes = lay_out.check_unchanged(place, manifest, force) if going_on else []
        again = batches_to_retry(paths) if going_on and retry_failed else []
        broken = mend.batches_to_redo(paths, redo, layout.n_batches) if going_on else {}
        done = len(paths.committed() - {*again, *broken}) if going_on else 0
        cluster = _open_cluster(execution, layout.n_batches - done, reporter, stack)
        place.make(stack)
        if going_on:
            said = _go_on(paths, inputs, changes, broken, again if retry_failed else None)
        else:
            said = folder.begin(place)
            lay_out.lay_out(paths, inputs, manifest)
        reporter.open(paths.metrics, layout.n_sources, progress(paths))
        said.append(
            f"{count(layout.n_sources, 'source')} in {count(layout.n_batches, 'batch')} of {layout.batch}, "
            f"bands {', '.join(layout.bands)}, {layout.draws} draws, {inputs.space}"
        )
        said += said_of_model(settings.model, inputs.settings, inputs.prior, going_on, layout.together)
        for line in said:
            reporter.message(line)
        spec = lay_out.make_spec(
            paths, inputs, manifest, execution, _update(execution, manifest, inputs.prior, reporter)
        )
        _to_the_end(spec, execution, reporter, stop, cluster, manifest)
        end_checksums(spec.paths)  # before it takes another's place: whichever is there then is whole
        if place.target is None:
            return open_run(spec.paths.root, prior)
        run = _in_place(place, place.target, reporter, prior)
        end_checksums(run.paths)  # with what was written meanwhile
        return run


@contextmanager
def _resumable(place: folder.Place, reporter: Reporter) -> Iterator[StopRequest]:
    """Signals as a request to stop. What ends a run early that can go on is raised as ``Stopped``."""
    with StopRequest() as stop:
        try:
            yield stop
        except Interrupted:
            raise stop.error(place.paths, place.target) from None
        except Exception as err:
            if not (isinstance(err, OSError) or is_fatal(err)) or not place.paths.manifest.is_file():
                raise
            raise write_stopped(place.paths.root, err) from err
        finally:
            with suppress(OSError):
                reporter.flush()


def _go_on(
    paths: RunPaths,
    inputs: prepare.Inputs,
    changes: list[str],
    broken: dict[int, str],
    again: list[int] | None,
) -> list[str]:
    """Make whole what is there of a run, and take the commits of batches back that are computed again:
    ``broken``, and ``again`` where failed sources are tried again. Returns messages."""
    said = [f"resumed although this changed: {change}" for change in changes]
    said += mend.mend(paths, inputs.layout, lambda at: lay_out.write_plan_at(at, inputs), not changes)
    said += mend.set_aside(paths, broken)
    lay_out.go_on(paths, inputs)
    if again is not None:
        mend.set_aside(paths, dict.fromkeys(again, ""))
        said.append(f"{count(len(again), 'batch')} with failed sources computed again")
    return said


def _update(
    execution: ExecutionSettings, manifest: dict[str, Any], prior: Denoiser, reporter: Reporter
) -> str:
    """The run from which sources are taken over, '' where none can be; says why."""
    if not execution.update:
        return ""
    old = RunPaths(place_of(execution.update))
    before = read_manifest(old)
    if why := obstacles(before, manifest, prior):
        reporter.message(f"update: nothing can be taken over from {old.root}: {'; '.join(why)}")
        return ""
    for line in differences(before, manifest)[:SAID]:
        reporter.message(f"update: changed since {old.root}: {line}")
    if line := remark(before, manifest):
        reporter.message(f"update: {line}")
    return str(old.root)


def _to_the_end(
    spec: ContextSpec,
    execution: ExecutionSettings,
    reporter: Reporter,
    stop: StopRequest,
    cluster: Any,
    manifest: dict[str, Any],
) -> None:
    """Every batch computed and merged. What changed between its commit and the merge is computed again."""
    for _ in range(MERGES):
        _run_batches(spec, execution, reporter, stop, cluster)
        try:
            return _finish(spec.paths, spec, reporter, manifest)
        except DamagedBatch as err:
            cluster = None  # it is closed
            for line in mend.set_aside(spec.paths, {err.batch: str(err)} | damaged_parts(spec.paths)):
                reporter.message(line)
    raise RunError(
        f"{spec.root}: parts changed after their commit, {MERGES} times. The disk, file system or memory is "
        f"not reliable: check it, then `galbatch resume {spec.root}`."
    )


def _in_place(place: folder.Place, target: RunPaths, reporter: Reporter, prior: Any) -> Run:
    """The finished run takes the place of the one that it replaces, and is opened there."""
    said = folder.put_in_place(place)
    reporter.move(target.metrics)
    for line in [f"{target.root}: replaced by the new run", *said]:
        reporter.message(line)
    return open_run(target.root, prior)


def _open_cluster(execution: ExecutionSettings, todo: int, reporter: Reporter, stack: ExitStack) -> Any:
    """The cluster of a run, before anything is written: one that does not answer leaves no folder behind.
    None where nothing is left to do, or all of it is done in this process."""
    if not todo or execution.cluster == "none":
        return None
    from galbatch.run.cluster import open_cluster

    if given := execution.scheduler or execution.scheduler_file:
        reporter.message(f"cluster: joining the scheduler {given}")
    cluster = open_cluster(execution, todo)
    stack.callback(cluster.close)
    return cluster


def _run_batches(
    spec: ContextSpec, execution: ExecutionSettings, reporter: Reporter, stop: StopRequest, cluster: Any
) -> None:
    if len(spec.paths.committed()) == spec.layout.n_batches:
        reporter.message("every batch is committed already")
        reporter.show()
    elif cluster is None:
        reporter.message("cluster: none, one batch after another in this process")
        reporter.show()
        with own_threads():
            run_serial(spec, _uncommitted(spec.paths), reporter)
    else:
        from galbatch.run.dispatcher import run_on_cluster

        run_on_cluster(cluster, spec, execution, reporter, stop, _uncommitted(spec.paths))


def _uncommitted(paths: RunPaths) -> Iterator[PlanBatch]:
    """The plan minus the parts."""
    done = paths.committed()
    return (rows for rows in iter_plan(paths.plan) if rows.batch not in done)


def _finish(paths: RunPaths, spec: ContextSpec, reporter: Reporter, manifest: dict[str, Any]) -> None:
    """Merge the parts, balance the account, write the summary."""
    start = time.monotonic()
    counts = merge_catalog(paths, column_info_of(manifest), empty_columns(spec.layout.bands, 0))
    totals = check_accounting(paths, counts)
    update: dict[str, Any] = {}
    if spec.update:
        taken = counted(paths)
        reporter.message(said_of(spec.update, taken))
        update = {"update": {"of": spec.update, **taken}}
    reporter.progress.seconds["merge"] = time.monotonic() - start
    now = reporter.progress
    now.traffic.update(take_traffic())
    write_summary(
        paths,
        totals
        | update
        | {
            "config_hash": manifest["config_hash"],
            "elapsed_s": round(now.elapsed_s, 3),
            "draws": now.draws,
            "draws_per_s": float(f"{now.draws_per_s:.4g}"),
            "evaluations": now.evaluations,
            "stage_seconds": {k: round(v, 3) for k, v in now.seconds.items()},
            "cpu_s": round(now.cpu_s, 3),
            "devices": dict(sorted(Counter(kind for kind, _ in now.devices).items())),
            "resumed_from": now.before,
            **({"traffic": dict(sorted(now.traffic.items()))} if now.traffic else {}),
            "finished": time.time(),
            "versions": versions(),
        },
    )
    reporter.message(
        f"{count(totals['planned'], 'source')}: {totals['ok']:,} ok, {totals['flagged']:,} flagged, "
        f"{totals['failed']:,} failed; {now.elapsed_s:.1f} s"
    )
    reporter.flush()
