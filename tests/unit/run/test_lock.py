"""A lock is judged by what is seen of it, not by the clocks of the hosts."""

import json
import os
import threading
import time

import pytest

from galbatch.errors import RunError
from galbatch.run.lock import STALE_S, RunLock, lock_holder


def held_elsewhere(path, age):
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "1"}))
    os.utime(path, (time.time() - age,) * 2)


@pytest.mark.parametrize("age", [2 * STALE_S, -3600.0], ids=["silent", "clock ahead by an hour"])
def test_a_lock_that_nobody_touches_expires(tmp_path, age):
    held_elsewhere(path := tmp_path / "run.lock", age)
    with RunLock(path, heartbeat_s=0.1):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("age", [3600.0, -3600.0], ids=["clock behind", "clock ahead"])
def test_a_lock_that_is_touched_is_alive_whatever_its_clock_says(tmp_path, age):
    held_elsewhere(path := tmp_path / "run.lock", age)
    done = threading.Event()

    def beat():
        n = 0
        while not done.wait(0.05):
            n += 1
            os.utime(path, (time.time() - age + n,) * 2)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(RunError, match="another run is working"), RunLock(path, heartbeat_s=0.2):
            pass
    finally:
        done.set()
        thread.join()


def test_a_lock_touched_a_moment_ago_is_refused_at_once(tmp_path):
    held_elsewhere(path := tmp_path / "run.lock", 1.0)
    start = time.monotonic()
    with pytest.raises(RunError, match="elsewhere"), RunLock(path):
        pass
    assert time.monotonic() - start < 5


def test_a_lock_of_this_host_that_is_alive_is_kept_though_its_time_is_ahead(tmp_path):
    with RunLock(path := tmp_path / "run.lock"):
        os.utime(path, (time.time() + 3600,) * 2)
        with pytest.raises(RunError, match="another run is working"), RunLock(path, heartbeat_s=0.1):
            pass


def test_the_heart_of_a_lock_beats(tmp_path):
    with RunLock(path := tmp_path / "run.lock", heartbeat_s=0.05):
        os.utime(path, (time.time() - 1000,) * 2)
        time.sleep(0.3)
        assert time.time() - path.stat().st_mtime < 100


def test_a_lock_that_this_process_could_not_remove_is_void(tmp_path, monkeypatch):
    """The disk was read-only when the run ended: the same process can go on with it later."""
    path = tmp_path / "run.lock"
    with monkeypatch.context() as patch, RunLock(path):
        patch.setattr(type(path), "unlink", lambda *a, **k: (_ for _ in ()).throw(OSError(30, "Read-only")))
    assert path.exists() and lock_holder(path) is None
    with RunLock(path):
        assert lock_holder(path)["pid"] == os.getpid()
