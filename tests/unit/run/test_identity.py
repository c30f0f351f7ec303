"""What a run was made from is held to it on resume: the content of its files, and the whole model folder."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import toys

from galbatch.errors import RunError
from galbatch.interfaces import PriorSpec
from galbatch.prior.folder import SHIPPED
from galbatch.run import process, resume
from galbatch.run.context import ContextSpec, refuse_this_machine
from galbatch.run.lay_out import model_identity
from galbatch.store import RunPaths, manifest, read_manifest
from galbatch.store.manifest import differences, fingerprint

NAMELESS = SimpleNamespace(spec=PriorSpec())


def changed(old: dict, new: dict) -> list[str]:
    return differences({"inputs": [old]}, json.loads(json.dumps({"inputs": [new]})))


@pytest.fixture
def mosaic(tmp_path):
    file = tmp_path / "m.fits"
    file.write_bytes(bytes(5 << 20))
    return file


def edit(file: Path, place: int, later: bool = True) -> None:
    """One byte changed in place; ``later``: with another modification time."""
    stat = os.stat(file)
    with open(file, "r+b") as out:
        out.seek(place)
        out.write(b"\x01")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + later))


def test_a_changed_middle_is_found_and_a_touched_file_is_not_a_changed_one(mosaic, monkeypatch):
    monkeypatch.setattr(manifest, "SMALL", 100)
    first = fingerprint(mosaic)
    os.utime(mosaic, ns=(1, 1))
    assert changed(first, fingerprint(mosaic, before=first)) == []
    edit(mosaic, 5 << 19)
    (line,) = changed(first, fingerprint(mosaic, before=first))
    assert str(mosaic) in line and first["content"] in line


def test_small_files_are_read_through_even_where_the_time_is_the_same(mosaic, monkeypatch):
    first = fingerprint(mosaic)
    edit(mosaic, 5 << 19, later=False)
    assert len(changed(first, fingerprint(mosaic, before=first))) == 1
    monkeypatch.setattr(manifest, "SMALL", 100)
    first = fingerprint(mosaic, whole=True)
    edit(mosaic, 5 << 18, later=False)
    assert len(changed(first, fingerprint(mosaic, whole=True, before=first))) == 1


def test_a_large_file_is_held_to_its_time(mosaic, monkeypatch):
    """Beyond the bound nothing is read through: the time decides, and what to do is said."""
    monkeypatch.setattr(manifest, "SMALL", 100)
    monkeypatch.setattr(manifest, "LARGE", 1000)
    first = fingerprint(mosaic)
    assert first["content"] is None and changed(first, fingerprint(mosaic, before=first)) == []
    os.utime(mosaic, ns=(1, 1))
    (line,) = changed(first, fingerprint(mosaic, before=first))
    assert "was modified" in line and "touch -d" in line


def test_large_files_that_nobody_touched_are_not_read_again(mosaic, monkeypatch):
    monkeypatch.setattr(manifest, "SMALL", 100)
    first = fingerprint(mosaic)
    monkeypatch.setattr(manifest, "_content", None)
    assert fingerprint(mosaic, before=first) == first


@pytest.mark.parametrize("name", ["card.json", "calibration.json", "model.safetensors"])
def test_an_edit_in_the_model_folder_is_named(name, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    old = {"model": model_identity(NAMELESS, str(folder))}
    assert differences(old, {"model": model_identity(NAMELESS, str(folder))}) == []
    with open(folder / name, "ab") as file:
        file.write(b" ")
    new = {"model": model_identity(NAMELESS, str(folder))}
    (line,) = differences(old, new)
    assert f"{folder}/{name}" in line and old["model"]["hash"] != new["model"]["hash"]
    (folder / "calibration.json").unlink()
    assert "no such file" in "\n".join(differences(old, {"model": model_identity(NAMELESS, str(folder))}))


def test_a_worker_with_another_card_is_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    identity = model_identity(NAMELESS, str(folder))
    with open(folder / "card.json", "a") as file:
        file.write("\n")
    spec = ContextSpec("id", str(tmp_path), None, str(folder), None, "fast", 0, model_hash=identity["hash"])
    with pytest.raises(RunError, match=r"card\.json.*Put the same folder there"):
        refuse_this_machine(spec, NAMELESS)


def test_a_run_does_not_go_on_with_a_mosaic_changed_in_its_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_EDGE", 1 << 12)
    monkeypatch.setattr(manifest, "SMALL", 1 << 12)
    survey, out, prior = toys.write_survey(tmp_path / "s", n=2), tmp_path / "r.run", toys.GaussianPrior()
    process(survey, out=out, prior=prior, cluster="none", batch=2, draws=2, mode="fast")
    edit(tmp_path / "s" / "sci.fits", 40_001)
    with pytest.raises(RunError, match=r"sci\.fits: its content changed"):
        resume(out, prior=prior, cluster="none")


@pytest.mark.parametrize("text", ["[]", "3", '{"config": 1}', '{"inputs": [3]}', "{", "\x00"])
def test_a_manifest_of_something_else_is_said(text, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json: not .*--overwrite"):
        read_manifest(RunPaths(tmp_path))
