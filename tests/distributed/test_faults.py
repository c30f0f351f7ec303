"""Each way in which a run can fall, made to happen: nothing committed is lost, and what remains is finished
by resume."""

import json
import os
import shutil
import signal
import time

import dask
import pytest
import toys
from runs import OPTIONS, same, start, wait_for_parts

from galbatch.errors import ConfigError, RunError, Stopped
from galbatch.run import process, resume, status, verify
from galbatch.run.lock import RunLock, lock_holder


def test_kill_9_and_resume_give_the_same_bytes(serial, survey, tmp_path):
    out = tmp_path / "k.run"
    child = start(survey, out, slow=0.05)
    wait_for_parts(out, 2, child)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    assert status(out)["state"] == "stopped" and 2 <= status(out)["batches_committed"] < 4
    # the lock of a dead process is left
    assert not (out / "catalog.parquet").exists() and (out / "run.lock").exists()
    assert any("not committed" in p for p in verify(out))
    resume(out, prior=toys.GaussianPrior(), cluster="none")
    same(serial, out)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_signal_ends_a_serial_run_with_code_4(serial, survey, tmp_path, number):
    out = tmp_path / "s.run"
    child = start(survey, out, slow=0.05)
    wait_for_parts(out, 1, child)
    os.kill(child.pid, number)
    text, _ = child.communicate(timeout=60)
    assert child.returncode == 4 and "galbatch resume" in text, text
    assert not (out / "run.lock").exists()
    resume(out, prior=toys.GaussianPrior(), cluster="none")
    same(serial, out)


def test_a_killed_worker_costs_only_its_batch_and_sigterm_stops_a_cluster(serial, survey, tmp_path):
    out = tmp_path / "c.run"
    child = start(survey, out, cluster="local", slow=0.15)
    wait_for_parts(out, 1, child)
    notes = [json.loads(p.read_text()) for p in out.glob("parts/*.json")]
    os.kill(notes[0]["pid"], signal.SIGKILL)  # a worker; its nanny starts another
    wait_for_parts(out, 3, child)
    os.kill(child.pid, signal.SIGTERM)
    text, _ = child.communicate(timeout=120)
    assert child.returncode in (0, 4), text
    if child.returncode == 4:
        resume(out, prior=toys.GaussianPrior(), cluster="none")
    same(serial, out)


def test_a_source_that_kills_its_worker_fails_alone(tmp_path):
    """Also where a worker takes longer to come back than Dask waits by default (here: 1 s)."""
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"})
    catalog = toys.write_survey(tmp_path, n=6, bright=4)
    messages = []
    run = process(
        catalog,
        out=tmp_path / "d.run",
        prior=toys.DeadlyPrior(),
        cluster="local",
        workers=1,
        batch=3,
        draws=2,
        mode="fast",
        allowed_failures=0,
        report=False,
        on_message=messages.append,
    )
    assert run.summary["failed"] == 1 and run.summary["planned"] == 6
    assert run.status(104) == "failed" and {run.status(i) for i in (103, 105)} <= {"ok", "flagged"}
    import pyarrow.parquet as pq

    (failure,) = pq.read_table(run.paths.failures).to_pylist()
    assert (failure["source_id"], failure["code"]) == ("104", "KILLED_WORKER")
    assert any("source 104 kills its worker" in m for m in messages) and verify(tmp_path / "d.run") == []


def test_a_second_run_on_the_folder_is_refused(survey, tmp_path):
    out = tmp_path / "l.run"
    out.mkdir()
    with RunLock(out / "run.lock"):
        assert lock_holder(out / "run.lock")["pid"] == os.getpid()
        with pytest.raises(RunError, match="another run is working"):
            process(survey, out=out, prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    assert lock_holder(out / "run.lock") is None


def test_locks_of_the_dead_are_taken_over_and_of_silent_hosts_in_time(tmp_path):
    path = tmp_path / "run.lock"
    path.write_text(json.dumps({"host": os.uname().nodename, "pid": 2**22 + 5, "started": "1"}))
    with RunLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "1"}))
    with pytest.raises(RunError, match="elsewhere"), RunLock(path):
        pass
    old = time.time() - 1000
    os.utime(path, (old, old))
    with RunLock(path, heartbeat_s=0.05):
        os.utime(path, (old, old))
        time.sleep(0.3)
        assert time.time() - path.stat().st_mtime < 100  # the heart beats


def test_changed_inputs_and_settings_are_refused_and_shown(serial, survey, tmp_path):
    folder, out = tmp_path / "survey", tmp_path / "x.run"
    shutil.copytree(survey.parent, folder)
    with pytest.raises(RunError, match="holds a run already"):
        process(survey, out=serial, prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    with pytest.raises(RunError, match="draws: was 3, is 5"):
        process(
            survey,
            out=serial,
            prior=toys.GaussianPrior(),
            cluster="none",
            resume=True,
            **(OPTIONS | {"draws": 5}),
        )
    process(folder / "cat.parquet", out=out, prior=toys.GaussianPrior(), cluster="none", limit=2, **OPTIONS)
    data = bytearray((folder / "sci.fits").read_bytes())
    data[5000] ^= 1
    (folder / "sci.fits").write_bytes(data)
    with pytest.raises(RunError, match=r"sci\.fits: was .* is "):
        resume(out, prior=toys.GaussianPrior(), cluster="none")
    messages = []
    resume(out, prior=toys.GaussianPrior(), cluster="none", force=True, on_message=messages.append)
    assert any("changed, and gone on with" in m and "sci.fits" in m for m in messages)
    with pytest.raises(ConfigError, match="give the same one"):
        resume(out, cluster="none", force=True)
    with pytest.raises(RunError, match="toy-deadly"):
        resume(serial, prior=toys.DeadlyPrior(), cluster="none")


def test_a_full_disk_stops_the_run_resumably(serial, survey, tmp_path, monkeypatch):
    import errno

    from galbatch.run import task

    commit, calls = task.commit_batch, []

    def full(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return commit(*arguments)

    monkeypatch.setattr(task, "commit_batch", full)
    out = tmp_path / "f.run"
    with pytest.raises(Stopped, match=r"No space left.*GB"):
        process(survey, out=out, prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    assert status(out)["batches_committed"] == 2
    monkeypatch.undo()
    resume(out, prior=toys.GaussianPrior(), cluster="none")
    same(serial, out)


def test_too_little_space_is_said_before_anything_starts(survey, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(RunError, match=r"GB free"):
        process(survey, out=tmp_path / "n.run", prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    assert not (tmp_path / "n.run").exists()


def test_overwrite_replaces_a_run_but_never_other_files(survey, tmp_path):
    out = tmp_path / "w.run"
    process(survey, out=out, prior=toys.GaussianPrior(), cluster="none", limit=1, **OPTIONS)
    run = process(
        survey, out=out, prior=toys.GaussianPrior(), cluster="none", limit=2, overwrite=True, **OPTIONS
    )
    assert len(run.catalog) == 2
    (out / "thesis.txt").write_text("mine")
    process(survey, out=out, prior=toys.GaussianPrior(), cluster="none", limit=1, overwrite=True, **OPTIONS)
    assert (out / "thesis.txt").read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["w.run"]
    with pytest.raises(ConfigError, match="exclude each other"):
        process(survey, out=out, resume=True, overwrite=True)


def test_an_empty_selection_is_an_empty_run(tmp_path):
    catalog = toys.write_survey(tmp_path, n=1)
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(catalog).slice(0, 0), catalog)
    run = process(catalog, out=tmp_path / "e.run", prior=toys.GaussianPrior(), cluster="none", draws=2)
    assert len(run.catalog) == 0 and "status" in run.catalog.colnames and verify(tmp_path / "e.run") == []


def test_a_scheduler_that_does_not_answer_is_named_and_leaves_all_as_it_was(survey, tmp_path, monkeypatch):
    """No folder is made, so that the same command can be given again; --overwrite keeps the old run."""
    from galbatch.run import cluster

    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", "1s")
    out, lost = tmp_path / "q.run", dict(scheduler="tcp://127.0.0.1:9", **OPTIONS)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9"):
        process(survey, out=out, prior=toys.GaussianPrior(), **lost)
    assert not out.exists()
    process(survey, out=out, prior=toys.GaussianPrior(), cluster="none", limit=3, **OPTIONS)
    before = toys.product(out)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9"):
        process(survey, out=out, prior=toys.GaussianPrior(), overwrite=True, **lost)
    assert toys.product(out) == before and status(out)["state"] == "finished"
    with pytest.raises(RunError, match="--resume"):  # before the scheduler is asked
        process(survey, out=out, prior=toys.GaussianPrior(), **lost)


def test_a_missing_catalogue_or_survey_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cat\.parquet does not exist"):
        process(tmp_path / "cat.parquet", prior=toys.GaussianPrior(), cluster="none")
    catalog = toys.write_survey(tmp_path, n=1)
    (tmp_path / "cat.toml").unlink()
    with pytest.raises(ConfigError, match=r"cat\.toml"):
        process(catalog, prior=toys.GaussianPrior(), cluster="none")
