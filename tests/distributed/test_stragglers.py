"""Batches that take far longer than others, near the end of a run: a second worker gets them too."""

import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import toys
from child_run import OPTIONS
from distributed import Client, LocalCluster

from galbatch.config import ExecutionSettings
from galbatch.run import process, task, verify
from galbatch.run.cluster import Cluster
from galbatch.run.dispatcher import Dispatcher
from galbatch.run.events import Reporter, StopRequest
from galbatch.store import PlanBatch, commit_batch, read_attempt

TRIES, GO_ON = Counter(), threading.Event()


def batch(number):
    columns = {"source_id": np.array([number]), "tile": np.array(["0"])}
    return PlanBatch(number, columns)


def hangs_once(rows, exclude, attempt):
    """A batch that is done at once; the last one hangs where it was sent first, and fails in the end."""
    TRIES[rows.batch] += 1
    if rows.batch == 11 and TRIES[11] == 1:
        assert GO_ON.wait(60), "nobody needed this worker"
        raise RuntimeError("the slow one fails in the end")
    counts = {"ok": 1, "flagged": 0, "failed": 0, "sources": 1, "seconds": {}, "counters": {}}
    return {"batch": rows.batch, "attempt": attempt, **counts}


def test_a_straggler_is_sent_to_a_second_worker_and_counts_once():
    said, done = [], []
    reporter = Reporter(lambda progress: done.append(progress.done), said.append)
    reporter.progress.total = 12
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as local:
        with Client(local) as client:
            running = Dispatcher(
                Cluster(client, local, ""),
                SimpleNamespace(root="x.run"),
                ExecutionSettings(),
                reporter,
                StopRequest(),
                hangs_once,
            )
            running.run(map(batch, range(12)))
            assert TRIES == Counter(range(12)) + Counter([11])
            assert done[-1] == 12 and len(done) == 12
            assert [line.split()[0] for line in said] == ["galbatch-batch-000011-tile-0"]
            GO_ON.set()


def test_the_slower_of_two_writes_nothing(survey, tmp_path, monkeypatch):
    """Every batch is committed by another process while it is computed, and then sent once more."""
    out, records, computed = tmp_path / "twins.run", [], []

    def overtaken(context, rows, exclude):
        computed.append(rows.batch)
        result = process_isolating(context, rows, exclude)
        commit_batch(specs[0].paths, specs[0].layout, result, 7, {"device": ["cpu", ""]})
        return result

    def twice(spec, rows):
        specs.append(spec)
        records.append(run_batch(spec, rows))
        return run_batch(spec, rows)

    process_isolating, run_batch, specs = task.process_isolating, task.run_batch, []
    monkeypatch.setattr(task, "process_isolating", overtaken)
    monkeypatch.setattr(task, "run_batch", twice)
    run = process(survey, out=out, prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    assert computed == [0, 1, 2, 3]
    assert all(record["twin"] and record["attempt"] == 7 for record in records)
    assert {read_attempt(run.paths, batch)["attempt"] for batch in range(4)} == {7}
    assert run.summary["planned"] == 10 and verify(out) == []
