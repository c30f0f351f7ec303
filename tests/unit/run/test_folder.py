"""What galbatch deletes: what it wrote and can prove it wrote, and nothing else."""

import json
import os
import shutil
from pathlib import Path

import pytest
import toys
from fake_run import write_fake_run
from faults import tree

from galbatch.cli.main import main
from galbatch.config import ExecutionSettings, RunSettings
from galbatch.errors import ConfigError, RunError
from galbatch.run import prepare, process, repair, resume, status, verify
from galbatch.run.lay_out import make_manifest
from galbatch.store import RunPaths, mark, read_manifest, read_marker, write_manifest
from galbatch.store import folder as store_folder
from galbatch.store.manifest import check_manifest, layout_differences, read_valid
from galbatch.store.paths import FILES, is_own_file, is_own_folder
from galbatch.types import Finding

OPTIONS = dict(batch=3, draws=3, mode="fast", cluster="none")


def run(catalog: Path, out: Path, **options):
    return process(catalog, out=out, prior=toys.GaussianPrior(), **(OPTIONS | options))


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"precious {name}")


MINE = {
    "a repository and keys": (".git/config", ".ssh/id_ed25519"),
    "parts of one's own": ("parts/gear.stl",),
    "parts named as ours": ("parts/batch-000001.arrow", "catalog.parquet", "report.html"),
    "another program's manifest": ("manifest.json",),
    "a file": ("notes.txt",),
    "temporary files": (".a.tmp", "b.tmp"),
}


@pytest.mark.parametrize(
    "flags", [{}, {"resume": True}, {"overwrite": True}, {"force": True, "resume": True}]
)
@pytest.mark.parametrize("names", MINE.values(), ids=MINE)
def test_a_folder_of_somebody_else_is_refused_and_stays(names, flags, survey, tmp_path):
    me = tmp_path / "me"
    write(me, *names)
    before = tree(me)
    with pytest.raises(RunError, match=r"is no run of galbatch .*name another folder with --out"):
        run(survey, me, **flags)
    assert tree(me) == before


def test_inputs_inside_a_run_are_refused(copy, tmp_path):
    """The product of a run as the input of its own successor; images below it."""
    toys.write_survey(tmp_path / "s", n=4)
    before = tree(copy)
    for flags in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(ConfigError, match=r"catalog\.parquet is read by the run"):
            run(copy / "catalog.parquet", copy, survey=tmp_path / "s" / "cat.toml", **flags)
    moved = shutil.copytree(tmp_path / "s", copy / "images")
    with pytest.raises(ConfigError, match=r"images/.* is read by the run"):
        run(tmp_path / "s" / "cat.parquet", copy, survey=moved / "cat.toml", overwrite=True)
    shutil.rmtree(moved)
    assert tree(copy) == before


def test_homes_and_the_folder_one_is_in_are_refused(survey, copy, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ConfigError, match="home folder"):
        run(survey, tmp_path / "home")
    monkeypatch.chdir(copy / "parts")
    with pytest.raises(ConfigError, match="the folder that you are in"):
        run(survey, copy, overwrite=True)
    assert not any((tmp_path / "home").iterdir()) and verify(copy) == []


def test_the_marker_comes_first_and_the_names_are_on_the_list(serial):
    marker = read_marker(serial)
    assert marker and marker.format == 1 and len(marker.run) == 12 and marker.created and marker.galbatch
    for path in serial.rglob("*"):
        name = path.relative_to(serial).as_posix()
        assert (is_own_folder if path.is_dir() else is_own_file)(name), name
    theirs = """parts/mine/a parts/notes.txt posterior.zarr/mine/c/0 posterior.zarr/mean/a a/catalog.parquet
        .mend-a1_b.tmp/notes.txt a/.mend-a1_b.tmp/plan.parquet""".split()
    assert not any(map(is_own_file, theirs)) and {"manifest.json", ".galbatch-run"} <= set(FILES)


def test_what_a_killed_mending_left_is_replaced_with_the_run(copy, survey, tmp_path):
    """Files of the run are made again in a folder beside them: a kill leaves that folder."""
    left = copy / ".mend-a1_b.tmp"
    (left / "posterior.zarr" / "mean").mkdir(parents=True)
    (left / "plan.parquet").write_bytes(b"half")
    (left / "posterior.zarr" / "mean" / "zarr.json").write_text("{}")
    run(survey, copy, limit=2, overwrite=True)
    assert not left.exists() and verify(copy) == [] and os.listdir(tmp_path) == ["a.run"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"run": 3}', '{"format": 9, "run": "a", "replaces": ""}'])
def test_a_marker_of_something_else_proves_nothing(text, survey, tmp_path):
    write(tmp_path / "x", "notes.txt")
    (tmp_path / "x" / ".galbatch-run").write_text(text)
    assert read_marker(tmp_path / "x") is None
    with pytest.raises(RunError, match="is no run of galbatch"):
        run(survey, tmp_path / "x", overwrite=True)


def test_clear_takes_our_names_and_leaves_links_and_others(copy, tmp_path):
    big = tmp_path / "big"
    (copy / "posterior.zarr").rename(big)
    (copy / "posterior.zarr").symlink_to(big)
    write(tmp_path, "outside/batch-000000.parquet")
    (copy / "catalog.parquet").unlink()
    (copy / "catalog.parquet").symlink_to(tmp_path / "outside" / "batch-000000.parquet")
    write(copy, "notes.txt", ".git/config", "parts/mine.txt", "parts/deep/batch-000001.parquet")
    (copy / "summary.json").unlink()
    write(copy, "summary.json/mine")
    data = tree(big)
    others = store_folder.clear(copy)
    mine = "notes.txt .git/config parts/mine.txt parts/deep/batch-000001.parquet summary.json/mine"
    assert tree(copy).keys() == set(mine.split())
    assert {p.name for p in others} == {"notes.txt", ".git", "mine.txt", "deep", "summary.json"}
    assert tree(big) == data and (tmp_path / "outside" / "batch-000000.parquet").exists()


def test_a_run_that_never_began_is_begun_again_beside_others_files(survey, tmp_path):
    out, said = tmp_path / "b.run", []
    mark(out)
    write(
        out, "parts/.batch-000000.parquet.abc.tmp", "notes.txt", "notes.tmp", ".posterior.zarr.tmp/zarr.json"
    )
    run(survey, out, limit=2, on_message=said.append)
    assert (out / "notes.txt").read_text() == "precious notes.txt" and (out / "notes.tmp").exists()
    assert any("kept, because galbatch did not write it" in s and "notes.txt" in s for s in said)
    assert not (out / ".posterior.zarr.tmp").exists() and verify(out) == []


def test_resume_removes_only_galbatchs_own_torn_files(copy):
    write(copy, "draft.tmp", "parts/draft.tmp", "parts/.batch-000001.arrow.0a.tmp")
    (copy / "summary.json").unlink()
    resume(copy, prior=toys.GaussianPrior(), cluster="none")
    assert (copy / "draft.tmp").exists() and (copy / "parts" / "draft.tmp").exists()
    assert not (copy / "parts" / ".batch-000001.arrow.0a.tmp").exists()


def test_a_run_without_its_manifest_is_refused_and_restored(survey, copy, capsys):
    whole = tree(copy)
    (copy / "manifest.json").unlink()
    before = tree(copy)
    for flags in ({}, {"resume": True}, {"resume": True, "force": True}):
        with pytest.raises(RunError, match=r"manifest\.json: missing.*galbatch verify --repair"):
            run(survey, copy, **flags)
    with pytest.raises(RunError, match=r"manifest\.json: missing.*galbatch verify --repair"):
        resume(copy, prior=toys.GaussianPrior())
    assert main(["verify", str(copy)]) == 1 and "galbatch verify --repair" in capsys.readouterr().out
    assert main(["status", str(copy)]) == 1 and tree(copy) == before
    assert main(["verify", "--repair", str(copy)]) == 0
    assert "put back from manifest.backup.json" in capsys.readouterr().out and tree(copy) == whole


def test_a_run_without_manifest_and_copy_is_not_wiped(survey, copy):
    (copy / "manifest.json").unlink()
    (copy / "manifest.backup.json").unlink()
    before = tree(copy)
    for flags in ({}, {"resume": True}):
        with pytest.raises(RunError, match="so is its copy"):
            run(survey, copy, **flags)
    assert any("Put one back from a backup" in line for line in verify(copy))
    assert repair(copy) == [] and tree(copy) == before


@pytest.mark.parametrize("name", ["manifest.json", "manifest.backup.json"])
@pytest.mark.parametrize(
    "harm", [lambda b: b[:-40], lambda b: b.replace(b'"seed": 0', b'"seed": 1'), lambda b: b""]
)
def test_a_damaged_or_edited_manifest_is_found_and_put_back(copy, name, harm):
    path = copy / name
    good = path.read_bytes()
    path.write_bytes(harm(good))
    assert path.read_bytes() != good
    problems = "\n".join(check_manifest(RunPaths(copy)))
    assert name in problems and "damaged or edited" in problems and f"verify --repair {copy}" in problems
    assert len(repair(copy)) == 1 and path.read_bytes() == good and check_manifest(RunPaths(copy)) == []


def test_a_run_that_lost_its_marker_is_resumed_and_replaced(survey, serial, copy):
    """Its manifest proves whose it is."""
    (copy / ".galbatch-run").unlink()
    for name in ("summary.json", "catalog.parquet", "parts/batch-000001.arrow", "checksums.json"):
        (copy / name).unlink()
    resume(copy, prior=toys.GaussianPrior(), cluster="none")
    assert toys.product(copy) == toys.product(serial) and read_marker(copy) and verify(copy) == []
    (copy / ".galbatch-run").unlink()
    assert len(run(survey, copy, limit=2, overwrite=True).catalog) == 2 and verify(copy) == []


def test_a_manifest_without_a_right_hash_is_no_proof(tmp_path):
    paths = write_fake_run(tmp_path / "f.run")
    assert read_valid(paths.manifest)
    record = read_manifest(paths)
    for wrong in (record | {"seed": 9}, {"config": {"a": 1}}, {"config": {"a": 1}, "config_hash": "0"}, {}):
        paths.manifest.write_text(json.dumps(wrong))
        assert read_valid(paths.manifest) is None
    write_manifest(paths, {"config": {1: (2, Path("x"))}, 3: float("inf")})
    assert read_valid(paths.manifest)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"draws": 5}, "draws: was 3, is 5"),
        ({"stamp_pix": 20}, "stamp_pix: was 24, is 20"),
        ({"batch": 2}, "batch: was 3, is 2"),
        ({"samples": "none"}, "samples: was True, is False"),
        ({"draw_columns": True}, "draw_columns: was False, is True"),
        ({"limit": 3}, "n_sources: was 10, is 3"),
        ({"oversample": 2}, "oversample: was 1, is 2"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
@pytest.mark.parametrize("force", [True, False])
def test_another_form_of_the_store_is_refused_whatever_the_flag(changed, said, force, survey, serial):
    before = tree(serial)
    with pytest.raises(RunError, match=f"which no flag changes:\n(.*\n)*stored {said}"):
        run(survey, serial, resume=True, force=force, **changed)
    assert tree(serial) == before


def test_bands_are_part_of_the_form_and_a_seed_is_not(survey, serial):
    old = read_manifest(RunPaths(serial))
    other = json.loads(json.dumps(old))
    other["layout"]["bands"] = ["f444w"]
    assert layout_differences(old, other) == ["stored bands: was ['f200w'], is ['f444w']"]
    del other["layout"]["bands"]
    assert layout_differences(old, other) == []
    with pytest.raises(RunError, match=r"seed: was 0, is 5(.*\n)*.*--force"):
        run(survey, serial, resume=True, seed=5)


def test_a_run_named_by_relative_paths_goes_on_from_another_folder(survey, tmp_path, monkeypatch):
    monkeypatch.chdir(survey.parent)
    run(Path(survey.name), tmp_path / "r.run", limit=2)
    settings = RunSettings.from_record(read_manifest(RunPaths(tmp_path / "r.run"))["settings"])
    assert settings.catalog == str(survey) and Path(settings.survey).is_absolute()
    monkeypatch.chdir("/")
    resume(tmp_path / "r.run", prior=toys.GaussianPrior(), cluster="none")
    assert status(tmp_path / "r.run")["state"] == "finished"


def test_manifest_keeps_what_the_preflight_warned_of(survey):
    inputs = prepare.preflight(
        RunSettings(str(survey), str(survey.with_suffix(".toml"))), ExecutionSettings(), toys.GaussianPrior()
    )
    warned = Finding("warn", "psf", "f200w", "the PSF sums to 0.9", "Look at it.")
    inputs.findings[:] = [warned, Finding("info", "noise", "f200w", "white", "Nothing to do.")]
    kept = make_manifest(inputs, ExecutionSettings())["warnings"]
    assert kept == ["f200w: the PSF sums to 0.9. Look at it."]
