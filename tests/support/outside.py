"""Schedulers and workers that are not ours, and hosts of their own, for tests of what falls outside a run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import PATHS

HOSTS = {"gbtest-head": "10.77.31.1", "gbtest-one": "10.77.31.2", "gbtest-two": "10.77.31.3"}


def root_only(*command: str, why: str) -> None:
    """Run a command that only root may; skip the test, with the reason, where it is refused."""
    if os.geteuid() != 0 or shutil.which(command[0]) is None:
        pytest.skip(f"{why} needs root and the command {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{why} is not allowed here: {done.stderr.strip()}")


class Outside:
    """A scheduler and workers that are not ours: processes of their own, each after the words ``before``
    (of a shell that puts it elsewhere)."""

    def __init__(self, folder: Path, *before: str, host: str = "127.0.0.1", **settings: str):
        self.file, self.children, self.settings = folder / "scheduler.json", [], settings
        where = ("--host", host, "--port", "0", "--scheduler-file", str(self.file))
        self.start([sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", *where], before)

    def start(self, command, before=(), out=subprocess.DEVNULL):
        environment = {**os.environ, **PATHS, **self.settings}
        child = subprocess.Popen(
            [*before, *command], env=environment, start_new_session=True, stdout=out, stderr=out, text=True
        )
        self.children.append(child)
        return child

    def worker(self, *options: str, before=()):
        while not self.file.exists():
            time.sleep(0.05)
        where = ("--scheduler-file", str(self.file), "--nthreads", "1", "--no-dashboard")
        self.start([sys.executable, "-m", "distributed.cli.dask_worker", *where, *options], before)

    def lose(self, child):
        os.killpg(child.pid, signal.SIGKILL)

    def close(self):
        for child in self.children:
            if child.poll() is None:
                self.lose(child)
            child.wait()


@pytest.fixture
def outside(tmp_path):
    cluster = Outside(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def network():
    """Three hosts: network namespaces on one bridge."""
    why = "a network of several hosts"
    try:
        root_only("ip", "link", "add", "gbtest-br", "type", "bridge", why=why)
        root_only("ip", "link", "set", "gbtest-br", "up", why=why)
        for n, (host, address) in enumerate(HOSTS.items()):
            for line in (
                f"netns add {host}",
                f"link add gbtest-v{n} type veth peer name eth0 netns {host}",
                f"link set gbtest-v{n} master gbtest-br up",
                f"-n {host} addr add {address}/24 dev eth0",
                f"-n {host} link set eth0 up",
                f"-n {host} link set lo up",
            ):
                root_only("ip", *line.split(), why=why)
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)
        subprocess.run(["ip", "link", "del", "gbtest-br"], capture_output=True)
