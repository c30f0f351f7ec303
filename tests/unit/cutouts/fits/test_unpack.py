"""The cache of unpacked files: its own folder, its own names, its own user, and only what it wrote itself."""

import gzip
import os

import pytest

from galbatch.cutouts.fits import unpack as cache
from galbatch.cutouts.fits.own_folder import MARKER
from galbatch.cutouts.fits.source import LocalBytes
from galbatch.cutouts.fits.unpack import cache_folder, gunzipped
from galbatch.errors import InputError


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """The user's own folder, named as the cache, with the user's own files."""
    monkeypatch.setenv("GALBATCH_CACHE", str(tmp_path / "mine"))
    monkeypatch.setattr(cache, "_VERIFIED", set())
    (tmp_path / "mine").mkdir()
    for name in ("thesis.fits", "0123456789abcdef0123456789abcdef.fits"):
        (tmp_path / "mine" / name).write_bytes(b"mine" * 1000)
    return tmp_path / "mine"


def unpack(folder, k=0, size=1000, limit=10**6):
    path = folder / f"{k}.gz"
    if not path.exists():
        path.write_bytes(gzip.compress(bytes(size)))
    return gunzipped(str(path), LocalBytes(str(path)).stamp, limit)


def test_files_that_the_cache_did_not_write_are_never_deleted(tmp_path, mine):
    own = {p: p.read_bytes() for p in mine.iterdir()}
    unpack(tmp_path, 0, limit=1500)
    (cache_folder() / "notes.fits").write_bytes(b"mine" * 1000)  # even inside its folder
    unpack(tmp_path, 1, limit=1500)
    assert {p: p.read_bytes() for p in own} == own and (cache_folder() / "notes.fits").exists()
    assert len(list(cache_folder().glob("*.fits"))) == 2 and len(list(cache_folder().glob("*.json"))) == 1


def test_the_folder_is_of_this_user_alone_and_marked(tmp_path, mine):
    unpack(tmp_path)
    assert cache_folder().stat().st_mode & 0o777 == 0o700 and cache_folder().parent == mine
    assert (cache_folder() / MARKER).read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_by_default_it_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("GALBATCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder().parent == tmp_path / "xdg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder().parent == tmp_path / "home" / ".cache"


def test_a_file_whose_content_changed_is_unpacked_again(tmp_path, monkeypatch):
    target = unpack(tmp_path)
    info = os.stat(target)
    with open(target, "r+b") as file:
        file.write(b"x")
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
    monkeypatch.setattr(cache, "_VERIFIED", set())  # another process
    assert unpack(tmp_path) == target
    with open(target, "rb") as file:
        assert file.read() == bytes(1000)


def test_folders_of_others_and_folders_open_to_others_are_refused(tmp_path, mine, monkeypatch):
    folder = cache_folder()
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(InputError, match=r"written by others.*chmod 700"):
        unpack(tmp_path)
    folder.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
        with pytest.raises(InputError, match="not to you"):
            unpack(tmp_path)
    (folder / "thesis.fits").write_text("mine")
    with pytest.raises(InputError, match=r"holds thesis\.fits"):
        unpack(tmp_path)
    (folder / "thesis.fits").unlink()
    folder.rmdir()
    folder.symlink_to(mine)
    with pytest.raises(InputError, match="not a folder"):
        unpack(tmp_path)


def test_the_cache_is_bounded(tmp_path):
    paths = []
    for k in range(4):
        paths.append(unpack(tmp_path, k, 1000 * (k + 1), limit=7500))
        os.utime(paths[-1], ns=(k, k))
    assert sum(map(os.path.exists, paths)) == 2 and os.path.exists(paths[-1])
    with pytest.raises(InputError, match="more than 100 bytes"):
        unpack(tmp_path, 0, limit=100)


def test_a_second_process_that_opens_an_unpacked_file_does_not_make_it_look_changed(tmp_path):
    first = LocalBytes(unpack(tmp_path))
    unpack(tmp_path)
    first.check()
