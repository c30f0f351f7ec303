"""``verify``: every changed bit and every edit of any file of a run folder is found, with what mends it."""

import json
import random
import shutil

import pyarrow.parquet as pq
import pytest
from fake_run import write_fake_run

from galbatch.cli.main import main
from galbatch.run import verify
from galbatch.run.inspect import examine
from galbatch.store import RunPaths, record_file, reopen_checksums


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished run of six sources in two batches, with a report. Left as it is found."""
    paths = write_fake_run(tmp_path_factory.mktemp("sound") / "f.run", draws=2, size=8)
    paths.report.write_text("<html>the report</html>")
    record_file(paths, paths.report)
    return paths


@pytest.fixture
def run(sound, tmp_path):
    return RunPaths(shutil.copytree(sound.root, tmp_path / "copy.run"))


def files_of(paths):
    return sorted(p for p in paths.root.rglob("*") if p.is_file())


def flip(path, bit):
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        old = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([old ^ 1 << bit % 8]))


def unseen_flips(paths, count, seed):
    """``count`` single bits flipped one after the other, half of them by file, half by byte: those that
    ``verify`` does not see."""
    rng, files = random.Random(seed), files_of(paths)
    sizes = [path.stat().st_size for path in files]
    unseen = []
    for number in range(count):
        path = files[number // 2 % len(files)] if number % 2 else rng.choices(files, sizes)[0]
        bit = rng.randrange(8 * path.stat().st_size)
        flip(path, bit)
        problems = verify(paths.root)
        if not any(path.name in line for line in problems):
            unseen.append((path, bit, problems))
        flip(path, bit)
    assert verify(paths.root) == []
    return unseen


def test_a_sound_run_is_sound_and_all_of_it_was_read(sound):
    found = examine(sound.root)
    files = files_of(sound)
    assert found.problems == found.notes == found.redo == []
    assert found.files == len(files) and found.bytes == sum(p.stat().st_size for p in files)


def test_every_flipped_bit_is_found_in_the_file_where_it_is(sound):
    assert unseen_flips(sound, 240, seed=1) == []


@pytest.mark.slow
def test_two_thousand_flipped_bits_are_found(sound):
    assert unseen_flips(sound, 2000, seed=2) == []


def scale_flux(paths):
    table = pq.read_table(paths.catalog)
    at = table.column_names.index("mag_ab_p50_f200w")
    values = table["mag_ab_p50_f200w"].to_numpy() * 10
    pq.write_table(table.set_column(at, table.schema.field(at), [values]), paths.catalog)


def move_gini(paths):
    table = pq.read_table(paths.statistics)
    at = table.column_names.index("gini_obs_f200w")
    values = table["gini_obs_f200w"].to_numpy() + 0.1
    pq.write_table(table.set_column(at, table.schema.field(at), [values]), paths.statistics)


def same_meaning(path):
    path.write_text(json.dumps(json.loads(path.read_text())) + "\n")


def swap(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def store(paths, name):
    return paths.posterior / name


# what is done, the file that is named, what is said of it, the command that mends it
EDITS = {
    "values of the catalogue": (scale_flux, "catalog.parquet", "bytes, written were", "resume {}"),
    "values of the statistics": (move_gini, "statistics.parquet", "bytes, written were", "resume {}"),
    "the statistics lost": (lambda p: p.statistics.unlink(), "statistics.parquet", "missing", "resume {}"),
    "JSON of the same meaning": (lambda p: same_meaning(p.manifest), "manifest.json", "bytes, written were",
        "verify {} --repair"),
    "an attribute of the store": (
        lambda p: store(p, "zarr.json").write_text(
            store(p, "zarr.json").read_text().replace("nJy per pixel", "uJy per pixel")
        ),
        "posterior.zarr/zarr.json",
        "its content changed",
        "resume {}",
    ),
    "the plan lost": (lambda p: p.plan.unlink(), "plan.parquet", "missing", "resume {}"),
    "the failures lost": (lambda p: p.failures.unlink(), "failures.parquet", "missing", "resume {}"),
    "the summary edited": (lambda p: same_meaning(p.summary), "summary.json", "written were", "resume {}"),
    "the settings lost": (lambda p: p.config.unlink(), "galbatch.toml", "missing", "resume {}"),
    "the checksums lost": (lambda p: p.checksums.unlink(), "checksums.json", "missing", "resume {}"),
    "the checksums edited": (lambda p: same_meaning(p.checksums), "checksums.json",
        "its own digest differs", "resume {}"),
    "the report edited": (lambda p: p.report.write_text("<html>my  report</html>"), "report.html",
        "its content changed", "report {}"),
    "a shard lost": (lambda p: store(p, "mean/c/1/0/0/0").unlink(), "posterior.zarr/mean/c/1/0/0/0",
        "missing", "resume {} --redo 1"),
    "a shard cut short": (
        lambda p: store(p, "std/c/0/0/0/0").write_bytes(store(p, "std/c/0/0/0/0").read_bytes()[:-1]),
        "posterior.zarr/std/c/0/0/0/0", "bytes, written were", "resume {} --redo 0"),
    "two shards swapped": (lambda p: swap(store(p, "mean/c/0/0/0/0"), store(p, "mean/c/1/0/0/0")),
        "posterior.zarr/mean/c/1/0/0/0", "written w", "resume {} --redo 1"),
    "two parts swapped": (lambda p: swap(p.part(0), p.part(1)), "batch-000001.", "written w", "--redo 1"),
    "a part lost": (lambda p: p.part(1).unlink(), "batch-000001", "not committed (2 sources)", "resume {}"),
    "a note lost": (lambda p: p.attempt(0).unlink(), "batch-000000.json", "missing", "--redo 0"),
    "a note without digests": (lambda p: p.attempt(0).write_text('{"batch": 0}'), "batch-000000.json",
        "its own digest differs", "--redo 0"),
    "all of a batch taken from another": (lambda p: [shutil.copy(f(0), f(1)) for f in (p.part, p.attempt)],
        "batch-000001.json", "not the note of this batch", "--redo 1"),
    "a file too many in the store": (lambda p: store(p, "mean/c/7").write_text("x"),
        "posterior.zarr/mean/c/7", "no file of this run", "Delete it"),
    "an array too many in the store": (lambda p: shutil.copytree(store(p, "mean"), store(p, "other")),
        "posterior.zarr/other/zarr.json", "no file of this run", "Delete it"),
    "a part too many": (lambda p: shutil.copy(p.part(0), p.part(9)), "batch-000009",
        "a part that the plan does not know", "Delete it"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_is_found_with_the_command_that_mends_it(run, edit):
    make, name, what, mend = EDITS[edit]
    make(run)
    said = [line for line in verify(run.root) if name in line]
    assert any(what in line and mend.format(run.root) in line for line in said), verify(run.root)


def test_a_note_written_again_with_a_digest_of_its_own_is_found(run):
    from galbatch.store.checksums import seal, unseal

    note = unseal(run.attempt(0).read_bytes())
    run.attempt(0).write_bytes(seal(note | {"host": "elsewhere"}))
    (line,) = verify(run.root)
    assert "the notes of the batches are not those of the end of the run" in line


def test_files_of_the_user_are_told_and_no_problem(run):
    (run.root / "notes.txt").write_text("mine")
    (run.parts / "sketch.png").write_text("mine")
    found = examine(run.root)
    assert found.problems == []
    assert "not of galbatch, and not checked: notes.txt, parts/sketch.png" in found.notes[0]


def test_what_a_command_writes_into_the_folder_is_guarded_from_then_on(run):
    page = run.root / "for-mary.html"
    page.write_text("<html>")
    record_file(run, page)
    assert examine(run.root).notes == verify(run.root) == []
    page.write_text("<HTML>")
    assert f"galbatch report {run.root} --out {page}" in verify(run.root)[0]


def test_a_run_that_goes_on_is_not_called_sound_before_its_end(run):
    with open(run.metrics, "a") as file:
        file.write("{}\n")
    reopen_checksums(run)
    (line,) = verify(run.root)
    assert "not ended" in line and f"galbatch resume {run.root}" in line


def test_the_command_names_all_batches_in_one_line_and_how_fast_it_read(run, capsys):
    assert main(["verify", str(run.root)]) == 0
    said = capsys.readouterr().out
    assert f"{run.root}: sound (" in said and "MB/s" in said
    for batch in (0, 1):
        flip(run.part(batch), 99)
    assert main(["verify", str(run.root)]) == 1
    said = capsys.readouterr().out
    assert "2 problems" in said and f"galbatch resume {run.root} --redo 0-1\n" in said
