"""Several hosts: scheduler and workers in network namespaces of their own; one is cut off in the middle of a
run."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toys

HERE = Path(toys.__file__).parent
OPTIONS = dict(batch=1, draws=3, mode="fast")
HOSTS = {"gbtest-head": "10.77.31.1", "gbtest-one": "10.77.31.2", "gbtest-two": "10.77.31.3"}


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def network():
    """Three namespaces on one bridge. Needs root; skips where the kernel does not allow it."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command")
    try:
        ip("link", "add", "gbtest-br", "type", "bridge")
        ip("link", "set", "gbtest-br", "up")
        for n, (host, address) in enumerate(HOSTS.items()):
            ip("netns", "add", host)
            ip("link", "add", f"gbtest-v{n}", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("link", "set", f"gbtest-v{n}", "master", "gbtest-br", "up")
            ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as err:
        clean()
        pytest.skip(f"network namespaces are not allowed here: {err.stderr.decode().strip()}")
    yield
    clean()


def clean():
    for host in HOSTS:
        subprocess.run(["ip", "netns", "del", host], capture_output=True)
    subprocess.run(["ip", "link", "del", "gbtest-br"], capture_output=True)


def inside(host, *command, ttl_s, **options):
    """A process in a namespace; ``ttl_s``: silence after which the scheduler gives a worker up."""
    path = f"{HERE}:{HERE.parents[1]}"
    return subprocess.Popen(
        ["ip", "netns", "exec", host, sys.executable, *command],
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path, "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{ttl_s:.0f}s"},
        **options,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_host_that_is_cut_off_costs_only_its_batches(network, serial_by_one, survey, tmp_path):
    out, address = tmp_path / "h.run", f"tcp://{HOSTS['gbtest-head']}:8786"
    ttl_s = 10 + 4 * toys.start_s()  # a worker that imports is silent too
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "ttl_s": ttl_s}
    children = [
        inside(
            "gbtest-head",
            "-m",
            "distributed.cli.dask_scheduler",
            "--host",
            HOSTS["gbtest-head"],
            "--port",
            "8786",
            "--no-dashboard",
            **quiet,
        )
    ]
    for host in ("gbtest-one", "gbtest-two"):
        children.append(
            inside(
                host,
                "-m",
                "distributed.cli.dask_worker",
                address,
                "--host",
                HOSTS[host],
                "--nthreads",
                "1",
                "--no-dashboard",
                **quiet,
            )
        )
    script = tmp_path / "run.py"
    script.write_text(f"""
import toys
from galbatch.run import process
process({str(survey)!r}, out={str(out)!r}, prior=toys.GaussianPrior(0.1), scheduler={address!r}, workers=2,
        report=False, on_message=print, **{OPTIONS!r})
""")
    run = inside("gbtest-head", str(script), ttl_s=ttl_s, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while len(list(out.glob("parts/*.arrow"))) < 2:
            assert run.poll() is None, run.stdout.read()
            time.sleep(0.1)
        ip("link", "set", "gbtest-v1", "down")  # the cable of the first worker is pulled
        text, _ = run.communicate(timeout=400 + 10 * ttl_s)
    finally:
        for child in [run, *children]:
            child.kill()
            child.wait()
    assert run.returncode == 0 and "2 workers of the scheduler" in text, text
    assert toys.product(out) == toys.product(serial_by_one)


@pytest.fixture
def serial_by_one(survey, tmp_path):
    """The same run in one process."""
    from galbatch.run import process

    process(survey, out=tmp_path / "one.run", prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    return tmp_path / "one.run"
