"""A cluster without workers: those of ours are started again, others are waited for; never for ever."""

from types import SimpleNamespace

import pytest
import toys
from distributed import default_client

from galbatch.errors import Stopped
from galbatch.run import lifeline, process, status
from galbatch.run.lifeline import RESTARTS, Lifeline

OPTIONS = dict(batch=3, draws=3, mode="fast", workers=1, report=False, prior=toys.GaussianPrior(0.02))


def test_workers_that_do_not_come_back_are_started_again(serial, survey, tmp_path, monkeypatch):
    monkeypatch.setattr(lifeline, "NO_WORKER_S", 1.0)
    out, messages, ended = tmp_path / "a.run", [], []

    def said(text):
        messages.append(text)
        if "starting them again" in text:  # a busy machine may take its time for that
            monkeypatch.setattr(lifeline, "NO_WORKER_S", 200.0)

    def end_the_nanny(progress):
        if progress.done and not ended:
            cluster = default_client().cluster
            ended.append(cluster.sync(cluster.workers[0].close))

    how = dict(cluster="local", on_progress=end_the_nanny, on_message=said)
    process(survey, out=out, **how, **OPTIONS)
    assert ended and [m for m in messages if "starting them again" in m]
    assert toys.product(out) == toys.product(serial)


def test_a_given_scheduler_without_workers_stops_the_run_resumably(survey, tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(lifeline, "WORKERS_TIMEOUT_S", 1.0)
    out = tmp_path / "g.run"
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as theirs:

        def take_away(progress):
            if progress.done and theirs.workers:
                theirs.scale(0)

        with pytest.raises(Stopped, match=r"No worker has been alive.*Start workers.*resume"):
            how = dict(scheduler=theirs.scheduler_address, grace_s=0.5, on_progress=take_away)
            process(survey, out=out, **how, **OPTIONS)
    assert status(out)["state"] == "stopped" and status(out)["batches_committed"] >= 1


def test_restarts_are_counted_until_a_batch_lands(monkeypatch):
    now, revived = [0.0], []
    monkeypatch.setattr(lifeline.time, "monotonic", lambda: now[0])
    cluster = SimpleNamespace(cluster=object(), connected=lambda: 0, revive=lambda: revived.append(now[0]))
    line = Lifeline(cluster, "x.run", SimpleNamespace(message=lambda text: None))

    def wait():
        for _ in range(2):
            line.check()
            now[0] += lifeline.NO_WORKER_S + 1

    for _ in range(RESTARTS):
        wait()
    line.landed()
    for _ in range(RESTARTS):
        wait()
    assert len(revived) == 2 * RESTARTS
    with pytest.raises(Stopped, match=r"--workers.*galbatch resume x\.run"):
        wait()
