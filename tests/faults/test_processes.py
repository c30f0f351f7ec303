"""Real processes, disks, schedulers and hosts that fall while a run is under way.

Of the faults that surveys are known for, here are: kill -9, SIGTERM and Ctrl-C; a full disk, a read-only one,
a folder that may not be written, a limit on the size of a file; a worker that is killed, a source that kills
its worker, workers that reach their walltime, a worker that does not see the files; a scheduler and a host
that are lost. Where root is needed and there is none, it is said in the skip.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import pytest
import toys
from faults import Desk, Fault, judge, ledger
from outside import HOSTS, Outside, root_only
from runs import OPTIONS, Child, same

from galbatch.run import status, verify


def small_disk(desk: Desk) -> Path:
    """A file system of 6 MB, in which the run is."""
    disk = desk.root / "disk"
    disk.mkdir()
    root_only("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk), why="a small file system")
    desk.out = disk / "a.run"
    return disk


def fill_up(desk: Desk):
    """Other people fill the disk, up to some bytes, after the first batch."""
    filler = desk.out.with_name("other-people.bin")
    desk.mend.append(filler.unlink)
    size = lambda: shutil.disk_usage(filler.parent).free - 20_000  # noqa: E731
    return desk.process(at={3: lambda: filler.write_bytes(b"x" * size())})


def forbid(desk: Desk, child: Child):
    (desk.out / "parts").chmod(0o555)
    desk.mend.append(lambda: (desk.out / "parts").chmod(0o755))


def read_only(desk: Desk, child: Child):
    """The disk is mounted read-only, as the kernel does after an error of the disk."""
    remount = lambda how: subprocess.run(["mount", "-o", f"remount,{how}", desk.out.parent])  # noqa: E731
    while remount("ro").returncode:  # a file is open for writing
        assert child.code() is None
        time.sleep(0.01)
    desk.mend.append(lambda: remount("rw"))


def child(*acts, **options):
    return lambda desk: desk.child(*acts, slow=0.05, **options)


def kill_a_worker(desk: Desk, child: Child):
    """Its nanny starts another."""
    notes = [json.loads(path.read_text()) for path in child.out.glob("parts/*.json")]
    os.kill(notes[0]["pid"], signal.SIGKILL)


def cut_in_two(desk, before):
    """The lock of a dead process is left; nothing that was committed is lost."""
    assert 2 <= status(desk.out)["batches_committed"] < 4 and (desk.out / "run.lock").exists()
    assert not (desk.out / "catalog.parquet").exists()
    assert any("not committed" in problem for problem in verify(desk.out))


def unlocked(desk, before):
    assert 1 <= status(desk.out)["batches_committed"] < 4 and not (desk.out / "run.lock").exists()


KEPT = r"Every committed batch is kept.*"
GO_ON = "galbatch resume"
# fmt: off
FAULTS = {
    "kill -9": Fault(child((2, signal.SIGKILL)), "", -9, cut_in_two),
    "SIGTERM": Fault(child((1, signal.SIGTERM)), f"Stopped by SIGTERM.*{KEPT}{GO_ON}", 4, unlocked),
    "Ctrl-C": Fault(child((1, signal.SIGINT)), f"Stopped by SIGINT.*{KEPT}{GO_ON}", 4, unlocked),
    "a limit on the size of a file":
        Fault(child(fsize=100_000), f"File too large.*{KEPT}ulimit -f unlimited.*{GO_ON}", 4),
    "a folder that may no longer be written":
        Fault(child((1, forbid), fsize=0, no_root=True), f"Permission denied.*{KEPT}{GO_ON}", 4, unlocked),
    "a full disk":
        Fault(fill_up, rf"No space left.*{KEPT}needs about \S+ GB.*{GO_ON}", 4, unlocked, small_disk),
    "a disk that becomes read-only":
        Fault(child((1, read_only)), f"Read-only file system.*mount it for.*{GO_ON}", 4, None, small_disk),
}
# fmt: on


@pytest.fixture(autouse=True)
def unmount(desk):
    yield
    if (desk.root / "disk").is_mount():
        subprocess.run(["umount", str(desk.root / "disk")], check=True)


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_committed_is_kept_and_the_rest_is_done_by_resume(name, desk, capsys):
    judge(FAULTS[name], desk, capsys)


def test_a_killed_worker_costs_only_its_batch_and_sigterm_stops_a_cluster(desk, serial):
    code = desk.child((1, kill_a_worker), (3, signal.SIGTERM), cluster="local", slow=0.15)
    assert code in (0, 3, 4), desk.messages
    if code == 4:
        desk.resume()
    same(serial, desk.out)


def test_a_source_that_kills_its_worker_fails_alone(desk, capsys):
    """Also where a worker takes longer to come back than Dask waits by default (here: 1 s)."""
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"})
    options = dict(prior=toys.DeadlyPrior(), cluster="local", workers=1, draws=2, allowed_failures=0)

    def do(desk):
        return desk.process(catalog=toys.write_survey(desk.root / "survey", n=6, bright=4), **options)

    def kept(desk, before):
        rows = ledger(desk.out)
        assert rows[104][0] == "failed" and rows[104][2] == "KILLED_WORKER" and len(rows) == 6
        assert {rows[source][0] for source in (100, 101, 102, 103, 105)} <= {"ok", "flagged"}

    judge(Fault(do, "source 104 kills its worker", 3, kept), desk, capsys)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.timeout(3000)
def test_kills_at_random_moments_leave_the_same_bytes(desk, serial, kills):
    """Slow and quick priors by turns, so that kills find batches at work as well as shards being written."""
    out, rng = desk.out, random.Random(kills)
    committed: dict[str, int] = {}
    while kills:
        call = "resume" if (out / "manifest.json").exists() else "process"
        cluster = "local" if kills % 5 == 1 else "none"
        child = Child(desk.survey, out, cluster, rng.choice([0.0, 0.02, 0.1]), call)
        if wait_for_the_lock(child):
            time.sleep(rng.uniform(0.0, 8.0 if cluster == "local" else 4.0))
        if child.code() is not None:
            code, said = child.end()
            assert code == 0, said
            take_away(out, rng)
            committed = parts(out)
            continue
        child.send(signal.SIGKILL)
        child.end()
        kills, now = kills - 1, parts(out)
        assert committed.items() <= now.items(), "a committed batch was lost or done again"
        committed = now
    desk.resume() if (out / "manifest.json").exists() else desk.process()
    same(serial, out)
    assert verify(out) == []


def wait_for_the_lock(child) -> bool:
    """Until the child holds the run folder; False when it ended before."""
    while child.code() is None:
        try:
            if f'"pid": {child.pid},' in (child.out / "run.lock").read_text():
                return True
        except OSError:
            pass
        time.sleep(0.01)
    return False


def parts(out) -> dict[str, int]:
    """The committed batches and when each was written."""
    return {p.name: p.stat().st_mtime_ns for p in (out / "parts").glob("*.arrow")}


def take_away(out, rng):
    """A run that ended before its kill: take some of it away, so that there is something to kill."""
    for part in rng.sample(sorted((out / "parts").glob("*.arrow")), 2):
        part.unlink()
    for name in ("catalog.parquet", "statistics.parquet", "summary.json"):
        (out / name).unlink(missing_ok=True)


def test_a_lost_scheduler_stops_the_run_resumably(outside, desk, capsys):
    outside.worker()
    lose = lambda: outside.lose(outside.children[0])  # noqa: E731
    where = dict(scheduler_file=str(outside.file), cluster="auto", workers=1, grace_s=0.5)

    def do(desk):
        return desk.process(at={3: lose}, prior=toys.GaussianPrior(0.02), **where)

    judge(Fault(do, f"scheduler.*{GO_ON}", 4, unlocked), desk, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_workers_that_leave_at_their_walltime_cost_nothing_but_time(outside, desk):
    """Every worker ends by itself after some time, as with ``--lifetime`` in a job queue, and comes again.

    That time is a few times what a process needs here to begin; six sources or so take all of it.
    """
    life = 20 + 4 * toys.start_s()
    catalog = toys.write_survey(desk.root / "survey", n=20)
    for _ in range(2):
        outside.worker("--lifetime", f"{life:.0f}s", "--lifetime-stagger", "4s", "--lifetime-restart")
    where = dict(scheduler_file=str(outside.file), cluster="auto", workers=2)
    desk.process(catalog=catalog, prior=toys.GaussianPrior(life / 150), batch=1, **where)
    one = desk.process(catalog=catalog, out=desk.root / "one.run", batch=1)
    same(one.paths.root, desk.out)
    pids = {json.loads(path.read_text())["pid"] for path in desk.out.glob("parts/*.json")}
    assert len(pids) > 2  # workers came again


def test_a_worker_that_does_not_see_the_files_stops_the_run_before_its_first_batch(outside, desk, capsys):
    """Its host has another file system at that path: named are host, process and file."""
    catalog = toys.write_survey(desk.root / "survey")
    elsewhere = f'mount -t tmpfs tmpfs {catalog.parent} && exec "$@"'
    hidden = ("unshare", "-m", "sh", "-c", elsewhere, "sh")
    root_only(*hidden, "true", why="another file system for one process")
    outside.worker(before=hidden)
    where = dict(scheduler_file=str(outside.file), cluster="auto", workers=1)

    def kept(desk, before):
        assert status(desk.out)["batches_committed"] == 0 and not (desk.out / "run.lock").exists()
        desk.resume()
        assert status(desk.out)["state"] == "finished"

    said = r"Worker \S+, process \d+ cannot read 3 files.*sci\.fits: No such file"
    judge(Fault(lambda desk: desk.process(catalog=catalog, **where), said, 1, kept), desk, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_host_that_is_cut_off_costs_only_its_batches(network, desk):
    inside = {host: ("ip", "netns", "exec", host) for host in HOSTS}
    ttl_s = (
        10 + 4 * toys.start_s()
    )  # of silence, after which a worker is given up; one that imports is silent
    limit = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{ttl_s:.0f}s"}
    hosts = Outside(desk.root, *inside["gbtest-head"], host=HOSTS["gbtest-head"], **limit)
    options = OPTIONS | dict(batch=1, workers=2, report=False, scheduler_file=str(hosts.file))
    code = f"""
import toys
from galbatch.run import process
process({str(desk.survey)!r}, out={str(desk.out)!r}, prior=toys.GaussianPrior(0.1), on_message=print,
        **{options!r})
"""
    try:
        for host in ("gbtest-one", "gbtest-two"):
            hosts.worker("--host", HOSTS[host], before=inside[host])
        run = hosts.start([sys.executable, "-c", code], inside["gbtest-head"], subprocess.PIPE)
        while len(list(desk.out.glob("parts/*.arrow"))) < 2:
            assert run.poll() is None, run.communicate()
            time.sleep(0.1)
        subprocess.run(
            ["ip", "link", "set", "gbtest-v1", "down"], check=True
        )  # the cable of the first worker
        text, _ = run.communicate(timeout=400 + 10 * ttl_s)
    finally:
        hosts.close()
    assert run.returncode == 0 and "2 workers of the scheduler" in text, text
    one = desk.process(out=desk.root / "one.run", batch=1)
    same(one.paths.root, desk.out)
