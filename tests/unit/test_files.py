"""A file appears whole or not at all, and leaves nothing behind."""

import os

import pytest

from galbatch.files import replacing


@pytest.mark.parametrize("alone", [False, True])
def test_what_fails_leaves_what_was_there(tmp_path, alone):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path, alone=alone) as part:
        part.write_text("half")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]
    with replacing(path, alone=alone) as part:
        part.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.json"]


def test_writers_of_one_file_do_not_meet(tmp_path):
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1"  # the one that ends last


def test_what_a_killed_process_left_is_written_over(tmp_path):
    with replacing(tmp_path / "a", alone=True) as part:
        part.write_text("torn, and longer")
        left = part.read_bytes()
    part.write_bytes(left)
    with replacing(tmp_path / "a", alone=True) as part:
        part.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("synced", [False, True])
def test_a_crash_of_the_machine_is_thought_of_where_asked(tmp_path, monkeypatch, synced):
    done = []
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("sync"))
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: (done.append("rename"), rename(*a)))
    with replacing(tmp_path / "a", synced=synced) as part:
        part.write_text("1")
    assert done == (["sync", "rename", "sync"] if synced else ["rename"])
