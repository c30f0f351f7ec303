"""Object stores on this machine, each a process of its own, for tests of runs in buckets: moto's S3 server, a
stand-in for Google's made of it (google.py), and Azurite."""

from __future__ import annotations

import base64
import hmac
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest
import toys

from galbatch.store.paths import walk

LIMIT_S = 120.0  # for a server to start


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
def listening(command: list[str], make_bucket, **env: str):
    """A server started with ``command`` and a free port, once ``make_bucket(port)`` goes through; yields the
    port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([*command, str(port)], env={**os.environ, **env}, **quiet)
    try:
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                urllib.request.urlopen(make_bucket(port), timeout=5)
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, f"{command} does not start"
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


def _plain(port: int) -> urllib.request.Request:
    return urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")


def s3_server():
    """moto's S3 server with the bucket ``bucket``; yields its port."""
    return listening([sys.executable, str(Path(__file__).with_name("s3.py")), "-p"], _plain)


@contextmanager
def google():
    """Environment of a stand-in for Google's store."""
    with listening([sys.executable, str(Path(__file__).with_name("google.py"))], _plain) as port:
        account = {"gcs_base_url": f"http://127.0.0.1:{port}", "disable_oauth": True}
        account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        yield {
            "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account),
            "GOOGLE_SKIP_SIGNATURE": "true",
            "GOOGLE_ALLOW_HTTP": "true",
        }


ACCOUNT, KEY = "tester", base64.b64encode(b"a key for tests").decode()


def _signed(port: int) -> urllib.request.Request:
    """The request to make a container, signed as Azure's documentation of "Shared Key" says."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    text = "PUT" + "\n" * 12 + "".join(f"{name}:{value}\n" for name, value in headers.items())
    text += f"/{ACCOUNT}/{ACCOUNT}/bucket\nrestype:container"
    found = hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(found).decode()}"
    where = f"http://127.0.0.1:{port}/{ACCOUNT}/bucket?restype=container"
    return urllib.request.Request(where, method="PUT", headers=headers | {"Content-Length": "0"})


@contextmanager
def azure():
    """Environment of Azurite, Microsoft's emulator of its store (``npm install -g azurite``)."""
    program = shutil.which("azurite-blob") or pytest.skip("no azurite-blob: npm install -g azurite")
    how = ["--silent", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--blobPort"]
    with listening([program, *how], _signed, AZURITE_ACCOUNTS=f"{ACCOUNT}:{KEY}") as port:
        yield {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
            "AZURE_ALLOW_HTTP": "true",
        }


@contextmanager
def amazon():
    """Environment of moto's S3 server."""
    with s3_server() as port:
        yield environment(port)


@contextmanager
def exported(served):
    """The environment of a server, also in this process."""
    with served as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield env


@pytest.fixture(scope="module")
def s3():
    """Environment of an S3 server with the bucket ``bucket``."""
    with exported(amazon()) as env:
        yield env


@pytest.fixture(scope="module", params=["s3", "gs", "az"])
def cloud(request):
    """(URL of a bucket, environment) of each kind of store."""
    with exported({"s3": amazon, "gs": google, "az": azure}[request.param]()) as env:
        yield f"{request.param}://bucket", env


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in walk(root)}


def same_bytes(folder, root):
    """All that must not depend on where a run lies."""
    expected, found = toys.product(Path(folder)), contents(root)
    assert [name for name in expected if found.get(name) != expected[name]] == []
    store = {name for name in found if name.startswith("posterior.zarr/") or name.endswith(".arrow")}
    assert store <= expected.keys()
