"""An S3 server on this machine, for tests of runs in buckets: moto's, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import toys

from galbatch.store.paths import walk


def environment(port: int) -> dict[str, str]:
    """What the tools of a cloud take keys and endpoint from."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def s3_server(limit_s: float = 120.0):
    """A server with the bucket ``bucket``; yields its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], env=os.environ, **quiet)
    try:
        end = time.monotonic() + limit_s
        while True:
            try:
                make = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
                urllib.request.urlopen(make, timeout=5)
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, "the S3 server does not start"
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def s3():
    """Environment of a server with the bucket ``bucket``."""
    with s3_server() as port, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(port).items():
            patch.setenv(name, value)
        yield environment(port)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in walk(root)}


def same_bytes(folder, root):
    """All that must not depend on where a run lies."""
    expected, found = toys.product(Path(folder)), contents(root)
    assert [name for name in expected if found.get(name) != expected[name]] == []
    store = {name for name in found if name.startswith("posterior.zarr/") or name.endswith(".arrow")}
    assert store <= expected.keys()
