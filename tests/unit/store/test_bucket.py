"""A run in a bucket: the protocol and the bytes of a folder, whole after any kill. S3 is that of moto."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import toys
from bucket import cloud, contents, s3, same_bytes  # noqa: F401
from child_run import OPTIONS
from runs import Child, same, serial, survey  # noqa: F401

from galbatch.cli.main import main
from galbatch.errors import ConfigError, RunError
from galbatch.run import process, resume, status, verify
from galbatch.run.lock import RunLock, lock_holder
from galbatch.store import BucketPath, open_run, place_of
from galbatch.store.paths import move_in

pytestmark = pytest.mark.ci("obstore", "moto")


def test_what_names_a_bucket_and_what_a_folder():
    path = place_of("s3://b/x/run/")
    assert str(path / "parts/a.json") == "s3://b/x/run/parts/a.json" == f"{path}/parts/a.json"
    assert place_of(Path("gs://b/x")) == place_of("gs://b/x") and str(place_of("az://b/x")) == "az://b/x"
    assert pickle.loads(pickle.dumps(path)) == path and isinstance(path.parent, BucketPath)
    assert (path / "a/b").relative_to(path).as_posix() == "a/b" and path.with_name("q").name == "q"
    assert path.absolute() is path and (path / "a").is_relative_to(path)
    assert place_of("file:///tmp/a%20b") == Path("/tmp/a b") and place_of("a.run") == Path("a.run")
    for use in (open, os.listdir, pq.ParquetFile):
        with pytest.raises(TypeError, match="in a bucket"):
            use(path)
    for wrong in ("ftp://b/x", "s3://"):
        with pytest.raises(ConfigError, match="lies in a folder, or in a bucket"):
            place_of(wrong)


def test_keys_that_change_are_used(monkeypatch):
    """The first ones stayed for good: a wrong key could not be mended in a notebook."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"as the environment says.*Correct it"):
        place_of("s3://other/x").is_file()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    first = place_of("s3://other/x")._bucket
    assert place_of("s3://other/y")._bucket is first
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "two")
    assert place_of("s3://other/x")._bucket is not first


def test_without_obstore_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    for ask in (place_of("s3://other/x").is_file, lambda: list(place_of("gs://other/x").rglob("*"))):
        with pytest.raises(ConfigError, match=r"needs obstore: pip install 'galbatch\[cloud\]'"):
            ask()


def test_a_file_that_could_not_be_sent_leaves_nothing(monkeypatch, tmp_path):
    from galbatch.store.paths import replacing

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(BucketPath, "take_file", lambda self, made: (_ for _ in ()).throw(OSError(5, "gone")))
    with pytest.raises(OSError, match="gone"), replacing(place_of("s3://other/x")) as tmp:
        tmp.write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []


def test_objects_have_the_methods_of_files(cloud, tmp_path):  # noqa: F811
    root = place_of(f"{cloud[0]}/files")
    data = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f").write_bytes(data)
    (tmp_path / "d/top").write_bytes(b"1")
    move_in(tmp_path / "d", root)
    assert contents(root) == {"e/f": data, "top": b"1"} and root.sizes() == {"e/f": 3_000_000, "top": 1}
    assert root.is_dir() and not root.is_file() and (root / "top").is_file() and not (root / "to").exists()
    assert sorted(p.name for p in root.iterdir()) == ["e", "top"]
    assert [p.name for p in root.glob("*/f")] == ["f"] and [p.name for p in root.glob("t*")] == ["top"]
    with (root / "e/f").open("rb") as file:
        assert file.read(5) == data[:5] and file.seek(-7, io.SEEK_END) and file.read() == data[-7:]
        assert file.seek(1_500_000) and file.read(1_200_000) == data[1_500_000:2_700_000]
    tag = (root / "new").write_new(b"a")
    with pytest.raises(FileExistsError):
        (root / "new").write_new(b"b")
    later = (root / "new").swap(b"c", tag)
    with pytest.raises(FileExistsError):
        (root / "new").swap(b"d", tag)
    assert (root / "new").read_text() == "c" and (root / "new").tag() == later != tag
    (root / "new").unlink()
    (root / "new").unlink(missing_ok=True)
    for ask in ((root / "new").read_bytes, (root / "new").unlink, (root / "new").stat, (root / "new").tag):
        with pytest.raises(FileNotFoundError):
            ask()


def test_a_run_has_the_bytes_of_one_in_a_folder(cloud, survey, serial, capsys):  # noqa: F811
    run = process(survey, out=f"{cloud[0]}/a/b.run", prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    spent = run.summary["traffic"]
    same_bytes(serial, run.paths.root)
    alone = open_run(serial)
    assert repr(run.catalog) == repr(alone.catalog) and np.array_equal(run.samples(103), alone.samples(103))
    assert verify(run.paths.root) == [] and status(f"{cloud[0]}/a/b.run")["state"] == "finished"
    assert not run.paths.lock.exists()
    n_files = len(contents(run.paths.root))
    assert 0.9 * n_files < spent["run_put"] < 1.5 * n_files + 10  # nothing is sent again and again
    where = str(run.paths.root)
    for words in (["status", where], ["verify", where], ["show", where, "103"], ["report", where]):
        assert main(words) == 0, capsys.readouterr()
    assert b"<html" in run.paths.report.read_bytes()[:200] and verify(where) == []
    with pytest.raises(RunError, match="holds a run already"):
        process(survey, out=where, prior=toys.GaussianPrior(), cluster="none", **OPTIONS)


def test_a_changed_object_is_found_and_mended(s3, survey, serial):  # noqa: F811
    where = "s3://bucket/c.run"
    run = process(survey, out=where, prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    shard = next(p for p in (run.paths.posterior / "mean/c").rglob("*"))
    for path in (shard, run.paths.part(2), run.paths.plan, run.paths.posterior / "zarr.json"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    found = "\n".join(verify(where))
    assert all(name in found for name in ("mean/c", "batch-000002.arrow", "plan.parquet", "zarr.json"))
    resume(where, prior=toys.GaussianPrior(), cluster="none", redo=[int(shard.parts[-4])])
    assert verify(where) == []
    same_bytes(serial, run.paths.root)


def test_what_is_not_a_run_is_left_alone(s3, survey):  # noqa: F811
    mine = place_of("s3://bucket/mine/letters.txt")
    mine.write_bytes(b"mine")
    with pytest.raises(RunError, match="no run of galbatch"):
        process(survey, out="s3://bucket/mine", prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    assert contents(place_of("s3://bucket/mine")) == {"letters.txt": b"mine"}


@pytest.mark.parametrize("n_parts", [0, 2])
def test_killed_at_any_moment_and_gone_on_with_elsewhere(cloud, survey, serial, n_parts):  # noqa: F811
    """SIGKILL to a child; this process, which has none of its files, goes on."""
    root = place_of(f"{cloud[0]}/killed-{n_parts}.run")
    child = Child(survey, root, slow=0.1, fsize=0, no_root=False, env=cloud[1])
    end = time.monotonic() + 240
    while not (root / "manifest.json").is_file():
        assert child.code() is None and time.monotonic() < end, child.said.read_text()
        time.sleep(0.01)
    child.wait(n_parts)
    child.send(signal.SIGKILL)
    while child.code() is None:
        time.sleep(0.01)
    assert n_parts <= len(list(root.glob("parts/*.arrow"))) < 4 and (root / "run.lock").is_file()
    said = []
    resume(root, prior=toys.GaussianPrior(), cluster="none", on_message=said.append)
    same_bytes(serial, root)
    assert verify(root) == [] and not (root / "run.lock").exists()


def test_two_worker_processes_write_into_one_bucket(s3, survey, serial):  # noqa: F811
    root = place_of("s3://bucket/cluster.run")
    child = Child(survey, root, cluster="local", fsize=0, no_root=False, env=s3)
    code, said = child.end()
    assert code == 0, said
    same_bytes(serial, root)
    assert verify(root) == []
    hosts = {json.loads(p.read_bytes())["pid"] for p in root.glob("parts/*.json")}
    assert child.pid not in hosts


LOCKER = """
import sys, time
from galbatch.run.lock import RunLock
from galbatch.store import place_of
with RunLock(place_of(sys.argv[1]), heartbeat_s=0.5):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_one_run_at_a_time(cloud, monkeypatch):  # noqa: F811
    path = place_of(f"{cloud[0]}/locked/run.lock")
    child = subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path)],
        env={**os.environ, **cloud[1]},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match=f"another run is working on this folder .*pid {child.pid}"):
            RunLock(path).__enter__()
        assert lock_holder(path)["pid"] == child.pid
        data = json.loads(path.read_bytes())
        child.kill()
        child.wait()
        with RunLock(path, heartbeat_s=0.2) as lock:
            assert json.loads(path.read_bytes())["pid"] == os.getpid()
            time.sleep(0.5)
            assert path.tag() == lock._tag
        assert not path.exists()
        path.write_new(json.dumps(data | {"host": "elsewhere"}).encode())  # of a machine that is gone
        with pytest.raises(RunError, match="host elsewhere"):
            RunLock(path, heartbeat_s=0.2).__enter__()
        monkeypatch.setattr("galbatch.run.lock.STALE_S", -1.0)
        first, second = RunLock(path, heartbeat_s=0.2), RunLock(path, heartbeat_s=0.2)
        with first:
            assert json.loads(path.read_bytes())["pid"] == os.getpid()
            with pytest.raises(FileExistsError):  # the tag that both saw is gone
                path.swap(b"{}", {"e_tag": '"0"', "version": "1"})
            with pytest.raises(RunError, match="another run"):
                second.__enter__()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
