"""Falls of a cluster that is not ours, and a disk that is really full: scheduler lost, workers at their
walltime."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toys

from galbatch.errors import RunError, Stopped
from galbatch.run import process, resume, status

HERE = Path(toys.__file__).parent
OPTIONS = dict(batch=3, draws=3, mode="fast")


class Outside:
    """A scheduler and workers as processes of their own, joined by a scheduler file."""

    def __init__(self, folder: Path):
        self.file, self.children = folder / "scheduler.json", []
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self.file))

    def start(self, kind: str, *options: str, before: tuple[str, ...] = ()) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "OMP_NUM_THREADS": "1"}
        command = [*before, sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *options]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.children.append(subprocess.Popen(command, env=environment, start_new_session=True, **quiet))
        return self.children[-1]

    def worker(self, *options: str, before: tuple[str, ...] = ()) -> subprocess.Popen:
        while not self.file.exists():
            time.sleep(0.05)
        where = ("--scheduler-file", str(self.file), "--nthreads", "1")
        return self.start("worker", *where, *options, before=before)

    def close(self) -> None:
        for child in self.children:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()


@pytest.fixture
def outside(tmp_path):
    cluster = Outside(tmp_path)
    yield cluster
    cluster.close()


def test_a_lost_scheduler_stops_the_run_resumably(outside, serial, survey, tmp_path):
    out = tmp_path / "s.run"
    outside.worker()

    def kill(progress):
        if progress.done:
            os.killpg(outside.children[0].pid, signal.SIGKILL)

    with pytest.raises(Stopped, match=r"scheduler.*resume"):
        process(
            survey,
            out=out,
            prior=toys.GaussianPrior(0.02),
            scheduler_file=str(outside.file),
            workers=1,
            report=False,
            grace_s=0.5,
            on_progress=kill,
            **OPTIONS,
        )
    assert status(out)["state"] == "stopped" and 1 <= status(out)["batches_committed"] < 4
    resume(out, prior=toys.GaussianPrior(), cluster="none")
    assert toys.product(out) == toys.product(serial)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_workers_that_leave_at_their_walltime_cost_nothing_but_time(outside, tmp_path):
    """Every worker ends by itself after some time, as with ``--lifetime`` in a job queue, and comes again.

    That time is a few times what a process needs here to begin; six sources or so take all of it.
    """
    life = 20 + 4 * toys.start_s()
    catalog = toys.write_survey(tmp_path / "survey", n=20)
    out, one = tmp_path / "w.run", tmp_path / "one.run"
    options = OPTIONS | {"batch": 1}
    for _ in range(2):
        outside.worker("--lifetime", f"{life:.0f}s", "--lifetime-stagger", "4s", "--lifetime-restart")
    where = dict(scheduler_file=str(outside.file), workers=2, report=False)
    process(catalog, out=out, prior=toys.GaussianPrior(life / 150), **where, **options)
    process(catalog, out=one, prior=toys.GaussianPrior(), cluster="none", **options)
    assert toys.product(out) == toys.product(one)
    assert len({json.loads(p.read_text())["pid"] for p in out.glob("parts/*.json")}) > 2  # workers came again


def test_a_worker_that_does_not_see_the_files_stops_the_run_before_its_first_batch(outside, tmp_path):
    """Its host has another file system at that path: named are host, process and file. Needs root."""
    catalog, out = toys.write_survey(tmp_path / "survey"), tmp_path / "f.run"
    elsewhere = f'mount -t tmpfs tmpfs {catalog.parent} && exec "$@"'
    hidden = ("unshare", "-m", "sh", "-c", elsewhere, "sh")
    if shutil.which("unshare") is None or subprocess.run([*hidden, "true"], capture_output=True).returncode:
        pytest.skip("another file system for one process needs root and unshare")
    outside.worker(before=hidden)
    where = dict(scheduler_file=str(outside.file), workers=1, report=False)
    with pytest.raises(
        RunError, match=r"Worker \S+, process \d+ cannot read 3 files.*sci\.fits: No such file"
    ):
        process(catalog, out=out, prior=toys.GaussianPrior(), **where, **OPTIONS)
    assert status(out)["batches_committed"] == 0 and not (out / "run.lock").exists()
    resume(out, prior=toys.GaussianPrior(), cluster="none")
    assert status(out)["state"] == "finished"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB. Needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if (
        os.geteuid() != 0
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("a small file system needs root and mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def test_a_really_full_disk_stops_the_run_resumably(small_disk, serial, survey):
    out, filler = small_disk / "f.run", small_disk / "other-people.bin"

    def fill(progress):
        if progress.done == 3:
            with open(filler, "wb") as file:
                file.write(b"x" * (shutil.disk_usage(small_disk).free - 20_000))

    with pytest.raises(Stopped, match=r"No space left.*GB"):
        process(survey, out=out, prior=toys.GaussianPrior(), cluster="none", on_progress=fill, **OPTIONS)
    assert status(out)["batches_committed"] == 1
    filler.unlink()
    resume(out, prior=toys.GaussianPrior(), cluster="none")
    assert toys.product(out) == toys.product(serial)
