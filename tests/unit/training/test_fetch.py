"""``galbatch fetch-tng`` against a local server that speaks the TNG API: lists, resumes, checks, retries;
keeps the key."""

import base64
import errno
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from galbatch.cli.main import main
from galbatch.errors import ConfigError, InputError
from galbatch.training.download import Client, download
from galbatch.training.sources import read_images
from galbatch.training.tng import Request, fetch, list_files

KEY = "0123456789abcdef-secret"
LIST = "/api/TNG50-1/files/skirt_images_hsc_idealized_v0_91/"


def fits_bytes(seed=0):
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    fits.PrimaryHDU(rng.random((64, 64)).astype(np.float32)).writeto(buffer)
    return buffer.getvalue()


def tar_bytes(names=("TNG50/broadband_1.fits", "TNG50/broadband_2.fits", "readme.txt")):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            data = fits_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Files with Range, ETag and Digest; a key is needed; ``server.faults`` break the next answers."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        s = self.server
        s.seen.append((self.path, dict(self.headers)))
        fault = s.faults.pop(0) if s.faults else None
        if self.path.startswith("/elsewhere/"):
            return self._file(s.files[self.path.removeprefix("/elsewhere")], None)
        if self.headers.get("API-Key") != KEY:
            return self._say(403)
        if fault == "busy":
            return self._say(503, {"Retry-After": "7"})
        if self.path in s.lists:
            return self._say(200, {}, json.dumps({"files": s.lists[self.path]}).encode())
        if self.path in s.redirects:
            return self._say(302, {"Location": s.redirects[self.path]})
        if self.path not in s.files:
            return self._say(404)
        self._file(s.files[self.path], fault)

    def _file(self, body, fault):
        tag = '"' + hashlib.sha256(body).hexdigest()[:16] + '"'
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        start = 0
        if "Range" in self.headers and self.headers.get("If-Range") == tag:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        headers = {"ETag": tag, "Digest": f"SHA-256={digest}"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        part = body[start:]
        if fault == "flip":
            part = part[:-1] + bytes([part[-1] ^ 1])
        self._say(206 if start else 200, headers, part, cut=fault == "cut")

    def _say(self, status, headers=None, body=b"", cut=False):
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


@pytest.fixture
def server():
    s = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    s.seen, s.faults, s.lists, s.redirects = [], [], {}, {}
    s.url = f"http://127.0.0.1:{s.server_port}"
    names = [f"/data/shalo_091-{i}_v0_photo.fits" for i in range(3)]
    s.files = {name: fits_bytes(i) for i, name in enumerate(names)}
    s.lists[LIST] = [s.url + name for name in names]
    thread = threading.Thread(target=s.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield s
    s.shutdown()
    s.server_close()
    thread.join()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def client(server, waits):
    return Client(server.url + "/api/", KEY, retries=2, sleep=waits.append)


def test_a_listing_is_fetched_and_read(server, client, tmp_path):
    assert list_files(client, Request("hsc-idealized"), limit=2) == server.lists[LIST][:2]
    assert fetch(client, Request("hsc-idealized"), tmp_path) == {"fetched": 3, "there": 0}
    for name, body in server.files.items():
        assert (tmp_path / Path(name).name).read_bytes() == body
    asked = len(server.seen)
    assert fetch(client, Request("hsc-idealized"), tmp_path) == {"fetched": 0, "there": 3}
    assert len(server.seen) == asked + 1, "only the list is asked for again"
    assert read_images(tmp_path / "shalo_091-1_v0_photo.fits")[0].flux.shape == (1, 64, 64)
    assert {p.suffix for p in tmp_path.iterdir()} == {".fits"}


def test_a_broken_connection_resumes_where_it_stopped(server, client, tmp_path):
    name, body = next(iter(server.files.items()))
    server.faults = ["cut"]
    assert download(client, server.url + name, tmp_path / "a.fits")
    assert (tmp_path / "a.fits").read_bytes() == body
    assert server.seen[1][1]["Range"] == f"bytes={len(body) // 2}-"


def test_a_stopped_command_resumes_in_another_process_and_a_changed_file_starts_over(
    server, client, tmp_path
):
    name, body = next(iter(server.files.items()))
    once = Client(client.base, KEY, retries=0)
    server.faults = ["cut"]
    with pytest.raises(InputError, match=r"arrived; gave up|broke after .*gave up"):
        download(once, server.url + name, tmp_path / "a.fits")
    assert not (tmp_path / "a.fits").exists()
    server.files[name] = fits_bytes(99)
    assert download(Client(client.base, KEY, retries=0), server.url + name, tmp_path / "a.fits")
    assert (tmp_path / "a.fits").read_bytes() == fits_bytes(99) != body
    assert "Range" in server.seen[-1][1]


def test_a_wrong_checksum_is_tried_again_and_then_refused(server, client, tmp_path):
    name, body = next(iter(server.files.items()))
    server.faults = ["flip"]
    assert download(client, server.url + name, tmp_path / "a.fits")
    assert (tmp_path / "a.fits").read_bytes() == body
    server.faults = ["flip"] * 3
    with pytest.raises(InputError, match="sha256 of the file is"):
        download(client, server.url + name, tmp_path / "b.fits")
    assert not (tmp_path / "b.fits").exists()


def test_a_busy_server_is_given_the_time_it_asks_for(server, client, waits, tmp_path):
    name = next(iter(server.files))
    server.faults = ["busy", "busy"]
    assert download(client, server.url + name, tmp_path / "a.fits") and waits == [7.0, 7.0]
    server.faults = ["busy"] * 3
    with pytest.raises(InputError, match="HTTP 503; gave up after 3 attempts"):
        download(client, server.url + name, tmp_path / "b.fits")


@pytest.fixture(params=[False, True], ids=["", "Python below 3.11.4"])
def old_python(request, monkeypatch):
    if request.param:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


def test_one_subhalo_and_an_archive(server, client, tmp_path, old_python):
    path = "/api/TNG50-1/snapshots/72/subhalos/8/skirt/skirt_images_hsc_realistic_v2.fits"
    server.files[path] = fits_bytes(5)
    assert (
        fetch(client, Request("hsc-realistic", snapshot=72, view="v2", subhalos=(8,)), tmp_path)["fetched"]
        == 1
    )
    assert (tmp_path / "shalo_072-8_v2_HSC_GRIZY.fits").read_bytes() == fits_bytes(5)
    server.files["/api/TNG50-1/files/skirt_images_jwst_f200w_z3.tar.gz"] = tar_bytes()
    assert fetch(client, Request("jwst"), tmp_path) == {"fetched": 1, "there": 0}
    folder = tmp_path / "skirt_images_jwst_f200w_z3"
    assert sorted(p.name for p in folder.rglob("*.*")) == ["broadband_1.fits", "broadband_2.fits"]
    assert fetch(client, Request("jwst"), tmp_path) == {"fetched": 0, "there": 1}
    assert not list(tmp_path.glob("*.tar.gz"))


def test_an_archive_cannot_write_outside_its_folder(server, client, tmp_path, old_python):
    server.files["/api/TNG50-1/files/skirt_images_sdss.95.tar"] = tar_bytes(("../../escaped.fits",))
    with pytest.raises(InputError, match="not a whole tar archive"):
        fetch(client, Request("sdss", snapshot=95), tmp_path / "in" / "here")
    assert not list(tmp_path.rglob("escaped.fits"))


def test_the_key_follows_no_redirect_to_another_host(server, client, tmp_path):
    name, body = next(iter(server.files.items()))
    server.redirects["/api/moved"] = f"http://localhost:{server.server_port}/elsewhere{name}"
    assert download(client, "moved", tmp_path / "a.fits") and (tmp_path / "a.fits").read_bytes() == body
    assert "API-Key" in server.seen[0][1] and "API-Key" not in server.seen[1][1]
    assert KEY not in repr(client)
    secure = Client("https://www.tng-project.org/api/", KEY)
    assert secure._trusted("https://data.tng-project.org/x")
    assert not secure._trusted("http://www.tng-project.org/x")
    assert not secure._trusted("https://tng-project.org.example.com/x")


def test_wrong_key_no_key_wrong_request(server, tmp_path):
    with pytest.raises(InputError, match="refuses the API key") as caught:
        list_files(Client(server.url + "/api/", "wrong-key-xyz", 0), Request("hsc-idealized"))
    assert "wrong-key-xyz" not in str(caught.value)
    with pytest.raises(InputError, match="no usable API key"):
        Client(server.url, "")
    with pytest.raises(InputError, match="not found"):
        list_files(Client(server.url + "/api/", KEY, 0), Request("hsc-idealized", snapshot=80))
    with pytest.raises(ConfigError, match="72 to 91"):
        Request("hsc-realistic", snapshot=99)
    with pytest.raises(ConfigError, match="hsc-realistic only"):
        Request("jwst", subhalos=(3,))
    with pytest.raises(InputError, match="no answer"):
        list_files(Client("http://127.0.0.1:9/api/", KEY, 0), Request("hsc-idealized"))


def test_a_page_instead_of_an_image_and_a_full_disk(server, client, tmp_path, monkeypatch):
    name = next(iter(server.files))
    server.lists[LIST] = [server.url + name]
    server.files[name] = b"<html>maintenance</html>"
    with pytest.raises(InputError, match="is not FITS"):
        fetch(client, Request("hsc-idealized"), tmp_path)
    assert not list(tmp_path.glob("*.fits"))

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("galbatch.training.download.os.replace", full)
    with pytest.raises(InputError, match=r"No space left on device.*repeat the command"):
        download(client, server.url + name, tmp_path / "b.fits")


def test_the_command(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TNG_API_KEY", KEY)
    common = ["fetch-tng", "hsc-idealized", "--api", server.url + "/api", "--out", str(tmp_path / "tng")]
    assert main([*common, "--list"]) == 0 and capsys.readouterr().out.split() == server.lists[LIST]
    assert main(common) == 0 and "3 files fetched, 0 were there" in capsys.readouterr().out
    monkeypatch.setenv("TNG_API_KEY", "not-the-key-987")
    assert main(common) == 1
    said = capsys.readouterr()
    assert "refuses the API key" in said.err and "not-the-key-987" not in said.err + said.out
    (tmp_path / "key").write_text(KEY + "\n")
    assert main([*common, "--key-file", str(tmp_path / "key")]) == 0
    assert not any(KEY.encode() in p.read_bytes() for p in (tmp_path / "tng").rglob("*") if p.is_file())
