"""Runs of the toy survey in a process of their own, to be stopped, and compared."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toys
from child_run import OPTIONS, forked

HERE = Path(toys.__file__).parent
PATHS = {"PYTHONPATH": os.pathsep.join(map(str, [HERE, HERE.parents[1]])), "OMP_NUM_THREADS": "1"}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["warm_run"])


@pytest.fixture(scope="session")
def survey(tmp_path_factory):
    """Catalogue of ten sources, one of them off the image: four batches of three."""
    return toys.write_survey(tmp_path_factory.mktemp("survey"), off=7)


@pytest.fixture(scope="session")
def serial(survey, tmp_path_factory):
    """An uninterrupted serial run of the toy survey, to hold every other way of running it to."""
    from galbatch.run import process

    out = tmp_path_factory.mktemp("runs") / "serial.run"
    process(survey, out=out, prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    return out


@pytest.fixture
def copy(serial, tmp_path):
    """A copy of its folder, to do with as one likes."""
    return shutil.copytree(serial, tmp_path / "a.run", symlinks=True)


def fork(target, *arguments):
    """A process forked from one that is warm already, at work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
        process = FORKS.Process(target=target, args=arguments)
        process.start()
    return process


class Child:
    """A run in a process (group) of its own. A serial one is forked from a process that is warm already."""

    def __init__(self, survey, out, cluster="none", slow=0.02, call="process", **limits):
        self.out, self.said = out, survey.parent.with_name(f"{time.time_ns()}.said")
        arguments = [call, str(survey), str(out), cluster, slow, *limits.values()]
        if cluster == "none":
            self.process = fork(forked, str(self.said), *arguments)
        else:
            command = [sys.executable, str(HERE / "child_run.py"), json.dumps(arguments)]
            with open(self.said, "w") as said:
                streams = dict(stdout=said, stderr=subprocess.STDOUT)
                environment = {**os.environ, **PATHS}
                self.process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
        self.pid = self.process.pid

    def code(self):
        """How it ended; None while it is at work."""
        return self.process.exitcode if hasattr(self.process, "exitcode") else self.process.poll()

    def send(self, number):
        """A signal: SIGKILL to all of its processes, any other to the first."""
        (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)

    def until(self, done, late, limit):
        """Wait until ``done()``; a child that takes more than ``limit`` s is killed, and the test fails."""
        end = time.monotonic() + limit
        while not done():
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                pytest.fail(f"{late} in {limit} s: {self.said.read_text()}")
            time.sleep(0.01)

    def wait(self, n_parts, limit=240):
        """Until it has committed so many batches."""

        def committed():
            ended = self.code()  # before it is counted, so that the last batch does
            enough = len(list(self.out.glob("parts/*.arrow"))) >= n_parts
            assert enough or ended is None, f"ended early: {self.said.read_text()}"
            return enough

        self.until(committed, f"no {n_parts} parts", limit)

    def end(self, limit=480):
        """Its exit code, once it has ended, and all that it said."""
        self.until(lambda: self.code() is not None, "did not end", limit)
        return self.code(), self.said.read_text()


def same(a, b):
    """Every byte of two runs that must not depend on how they were carried out."""
    one, two = toys.product(a), toys.product(b)
    other = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
    assert other == [], f"not the same bytes: {other}"


def same_rows(alone, run):
    """Every source of ``alone`` has the same bytes in ``run``: all columns, draws, images and masks."""
    twins = [list(run.catalog["source_id"]).index(source) for source in alone.catalog["source_id"]]
    for one, two in ((alone.catalog, run.catalog), (alone.statistics, run.statistics)):
        for name in one.colnames:
            a, b = np.asarray(one[name]), np.asarray(two[name])[twins]
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), name
    for source in alone.finished_ids():
        for name in ("observed", "sigma", "mask", "samples", "mean", "std", "prior_driven", "model"):
            np.testing.assert_array_equal(getattr(run, name)(source), getattr(alone, name)(source), name)
