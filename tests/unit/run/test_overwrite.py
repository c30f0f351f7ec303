"""``--overwrite``: the old run stays whole until the new one is, whatever happens in between."""

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toys
from child_run import killed
from runs import fork

from galbatch.errors import ConfigError, InputError, RunError, Stopped
from galbatch.run import folder, lay_out, process, resume, status, task, verify
from galbatch.run.lock import RunLock
from galbatch.store import RunPaths, open_run, read_marker

OPTIONS = dict(batch=1, draws=2, mode="fast", cluster="none")
OLD, NEW = 10, 3  # sources of the run that is there, and of the one that replaces it


def run(survey: Path, out: Path, limit: int = NEW, **options):
    return process(survey, out=out, prior=toys.GaussianPrior(), limit=limit, **(OPTIONS | options))


def replace(survey: Path, out: Path, **options):
    return run(survey, out, overwrite=True, **options)


def sources(out: Path) -> int:
    """Of a run that is whole."""
    assert verify(out) == []
    return len(open_run(out).catalog)


def beside(out: Path, kind: str) -> list[Path]:
    return sorted(out.parent.glob(f"{out.name}.{kind}-*"))


@pytest.fixture
def out(copy):
    return copy


@pytest.fixture
def stopped(survey, out, monkeypatch):
    """The folder of a replacement whose disk was full at its second batch."""
    with monkeypatch.context() as patch:
        stop_at_batch(patch, 1)
        with pytest.raises(Stopped, match=r"galbatch resume \S+a\.run\.new-"):
            replace(survey, out)
    (new,) = beside(out, "new")
    return new


def stop_at_batch(monkeypatch, number: int) -> None:
    """The disk is full at a batch."""
    commit = task.commit_batch

    def full(paths, layout, result, *rest):
        if result.batch == number:
            raise OSError(28, "No space left on device")
        return commit(paths, layout, result, *rest)

    monkeypatch.setattr(task, "commit_batch", full)


def test_the_new_run_is_in_its_place_and_nothing_else_is_left(survey, out, tmp_path):
    before = read_marker(out).run
    said = []
    assert len(replace(survey, out, on_message=said.append).catalog) == NEW == sources(out)
    assert read_marker(out).run != before and os.listdir(tmp_path) == ["a.run"]
    assert any("a.run: replaced by the new run" in line for line in said) and not (out / "run.lock").exists()
    assert pq.read_metadata(out / "plan.parquet").num_rows == NEW
    assert len(resume(out, prior=toys.GaussianPrior(), cluster="none").catalog) == NEW


@pytest.mark.parametrize("place", ["write_plan", "create_store", "write_manifest"])
def test_an_input_that_cannot_be_read_through_leaves_the_old_run(place, survey, out, tmp_path, monkeypatch):
    def damaged(*arguments):
        raise InputError("row group 7 cannot be read")

    monkeypatch.setattr(lay_out, place, damaged)
    with pytest.raises(InputError, match="row group 7"):
        replace(survey, out)
    assert sources(out) == OLD and os.listdir(tmp_path) == ["a.run"]


def test_a_stopped_replacement_goes_on_with_the_same_command(survey, out, stopped):
    assert sources(out) == OLD and status(stopped)["batches_committed"] == 1
    assert status(out)["replacement"] == str(stopped)
    with pytest.raises(RunError, match=r"(?s)draws: was 2, is 3.*galbatch resume \S+new-\S+, delete"):
        replace(survey, out, draws=3)
    done = []
    replace(survey, out, on_progress=lambda p: done.append(p.before))
    assert done[-1] == 1 and sources(out) == NEW and not beside(out, "new")


def test_a_stopped_replacement_goes_on_with_resume_of_its_own_folder(out, stopped):
    resume(out, prior=toys.GaussianPrior(), cluster="none")
    assert sources(out) == OLD and stopped.exists()  # that is the run that is there
    assert len(resume(stopped, prior=toys.GaussianPrior(), cluster="none").catalog) == NEW == sources(out)
    assert not beside(out, "new") and not beside(out, "old")


def test_a_replacement_with_another_name_is_a_run_like_any_other(out, stopped, tmp_path):
    mine = stopped.rename(tmp_path / "mine.run")
    resume(mine, prior=toys.GaussianPrior(), cluster="none")
    assert sources(mine) == NEW and sources(out) == OLD


def test_links_are_not_followed_and_others_files_go_along(survey, out, tmp_path):
    """The store moved to a larger disk, a repository in the run folder, notes beside the parts."""
    big = tmp_path / "big"
    (out / "posterior.zarr").rename(big)
    (out / "posterior.zarr").symlink_to(big)
    (out / "notes.txt").write_text("mine")
    (out / ".git").mkdir()
    (out / ".git" / "HEAD").write_text("ref")
    (out / "parts" / "notes.txt").write_text("mine too")
    said = []
    replace(survey, out, on_message=said.append)
    assert sources(out) == NEW and not (out / "posterior.zarr").is_symlink()
    assert (out / "notes.txt").exists() and (out / ".git" / "HEAD").exists()
    (old,) = beside(out, "old")
    assert [p.relative_to(old).as_posix() for p in old.rglob("*")] == ["parts", "parts/notes.txt"]
    assert any(f"kept: {big}, to which" in line for line in said) and (big / "zarr.json").exists()
    assert any("did not write it" in line and "parts/notes.txt" in line for line in said)


def test_a_run_folder_that_is_a_link_stays_one(survey, out, tmp_path):
    real = out.rename(tmp_path / "disk.run")
    out.symlink_to(real)
    replace(survey, out)
    assert out.is_symlink() and sources(out) == NEW and sorted(os.listdir(tmp_path)) == ["a.run", "disk.run"]


def test_a_mount_point_is_refused_before_anything_is_computed(survey, out, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(ConfigError, match="is a mount point"):
        replace(survey, out)
    assert sources(out) == OLD


def test_a_run_at_work_is_not_replaced(survey, out):
    with RunLock(out / "run.lock"), pytest.raises(RunError, match="another run is working"):
        replace(survey, out)
    assert sources(out) == OLD and not beside(out, "new")


def test_a_target_that_became_something_else_stays(out, stopped):
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"new-\w+ is finished, but .*a\.run is no run of galbatch any more"):
        resume(stopped, prior=toys.GaussianPrior(), cluster="none")
    assert os.listdir(out) == ["thesis.tex"] and sources(stopped) == NEW


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 20, 60, 10_000])
def test_kill_9_while_the_folders_change_places(at, survey, out, tmp_path):
    """Killed before the n-th change of the file system: one of the two runs is whole, and running again, or
    resuming, ends it with the new one in place. Number 3 is the user's own file going along."""
    (out / "notes.txt").write_text("mine")
    child = fork(killed, survey, out, at)
    child.join(120)
    assert child.exitcode == -9
    new, old = beside(out, "new"), beside(out, "old")
    assert any(path.exists() and verify(path) == [] for path in (out, *new, *old))
    if not out.exists():
        with pytest.raises(RunError, match="galbatch resume"):
            open_run(out)
    if at > 1:
        resume(out, prior=toys.GaussianPrior(), cluster="none")
    else:  # before the first: the old run is there, and what will replace it is finished
        assert sources(out) == OLD and replace(survey, out)
    assert sources(out) == NEW and (out / "notes.txt").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["a.run"]


def test_a_swap_that_another_process_is_at_is_left_alone(survey, out, tmp_path):
    """Its lock is in the old folder, and its owner alive."""
    old = out.rename(tmp_path / "a.run.old-0123")
    with RunLock(old / "run.lock"), pytest.raises(RunError, match="is being replaced by another run"):
        resume(out, prior=toys.GaussianPrior())
    assert folder.recover(RunPaths(out)) and sources(out) == OLD  # it died: the old run goes back
