"""``galbatch status`` and ``galbatch verify`` on runs in every state, sound and damaged; and what resume
makes of them."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import toys

from galbatch.cli.main import main
from galbatch.run import resume, verify
from galbatch.run.lock import RunLock


@pytest.fixture
def run(copy):
    return copy


def look(command, run, capsys):
    code = main([command, str(run)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out + said.err


def unmerge(run):
    for name in ("catalog.parquet", "statistics.parquet", "failures.parquet", "summary.json"):
        (run / name).unlink()


def forget(run, *batches):
    unmerge(run)
    for batch in batches:
        (run / "parts" / f"batch-{batch:06d}.arrow").unlink()


STATES = {
    "finished": (lambda run: None, "finished", "10 of 10 sources (100%), 4 of 4 batches", []),
    "begun": (lambda run: forget(run, 0, 1, 2, 3), "stopped", "0 of 10 sources (0%), 0 of", ["batch-000000"]),
    "stopped": (
        lambda run: forget(run, 1, 3), "stopped", "6 of 10 sources (60%), 2 of 4",
        ["batch-000001", "batch-000003"],
    ),
    "not merged": (
        unmerge, "stopped", "10 of 10 sources (100%), 4 of 4",
        ["catalog.parquet: not written yet", "statistics.parquet: not written yet"],
    ),
    "killed": (
        lambda run: (forget(run, 2), (run / "parts" / ".batch-000002.arrow.x.tmp").write_text("torn")),
        "stopped", "1 temporary files of a killed process", ["left behind by a killed", "batch-000002"],
    ),
}  # fmt: skip  # state: how it is made, what status calls it, what it says, what verify finds


@pytest.mark.parametrize("state", STATES)
def test_status_and_verify_of_sound_runs_and_what_resume_makes_of_them(run, serial, state, capsys):
    make, name, text, found = STATES[state]
    make(run)
    code, said = look("status", run, capsys)
    assert code == 0 and f"{run}: {name}" in said and text in said
    assert (f"galbatch resume {run}" in said) == (name == "stopped")
    code, said = look("verify", run, capsys)
    assert code == (1 if found else 0) and all(line in said for line in found)
    resume(run, prior=toys.GaussianPrior(), cluster="none")
    assert toys.product(run) == toys.product(serial) and look("verify", run, capsys)[0] == 0


def test_status_of_a_run_at_work(run, capsys):
    forget(run, 1)
    with RunLock(run / "run.lock"):
        code, said = look("status", run, capsys)
    assert code == 0 and f"{run}: running" in said and "at work: host" in said
    assert main(["status", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "stopped"


def flip(run, pattern):
    path = next(p for p in sorted(run.glob(pattern)) if p.is_file())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(run, name):
    path = run / name
    path.write_bytes(path.read_bytes()[:-40])


def drop_a_row(run):
    path = run / "catalog.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)


def swap_ids(run):
    path = run / "catalog.parquet"
    table = pq.read_table(path)
    ids = table["source_id"].take([1, 0, *range(2, 10)])
    pq.write_table(table.set_column(0, table.schema.field(0), ids), path)


DAMAGES = {  # beside those of tests/unit/store/test_verify.py
    "the catalogue cut short": (lambda run: cut(run, "catalog.parquet"), "catalog.parquet: cannot be read"),
    "the statistics cut short": (lambda run: cut(run, "statistics.parquet"), "statistics.parquet: cannot be"),
    "a row of the catalogue": (drop_a_row, "its source ids are not the plan's"),
    "rows of the catalogue swapped": (swap_ids, "its source ids are not the plan's"),
    "the plan cut short": (lambda run: cut(run, "plan.parquet"), "plan.parquet"),
    "the store's template": (
        lambda run: (run / "posterior.zarr/zarr.json").write_text("{"),
        "posterior.zarr",
    ),
    "the template of an array": (lambda run: (run / "posterior.zarr/mean/zarr.json").unlink(), "mean"),
    "everything": (lambda run: [shutil.rmtree(run), run.mkdir()], "not a run"),
}


def test_resume_computes_a_damaged_part_again(run, serial):
    flip(run, "parts/batch-000002.arrow")
    said = []
    resume(run, prior=toys.GaussianPrior(), cluster="none", on_message=said.append)
    (line,) = [line for line in said if line.startswith("batch 2 is computed again: ")]
    assert "batch-000002.arrow: not what was committed" in line
    assert toys.product(run) == toys.product(serial)


def lose(*names):
    def do(run):
        for name in names:
            shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()

    return do


def edit_the_plan(run):
    lose("checksums.json")(run)
    table = pq.read_table(run / "plan.parquet")
    at = table.column_names.index("ra")
    pq.write_table(table.set_column(at, "ra", [table["ra"].to_numpy() + 1]), run / "plan.parquet")


MENDED = {  # by resume, without being asked
    "a shard lost": lose("posterior.zarr/std/c/1"),
    "a shard cut short": lambda run: cut(run, "posterior.zarr/samples/c/1/0/0/0/0"),
    "the template lost, and what guards it": lose("posterior.zarr/mean/zarr.json", "checksums.json"),
    "the plan edited, and what guards it lost": edit_the_plan,
}


@pytest.mark.parametrize("harm", MENDED)
def test_resume_mends_what_it_can_see(run, serial, harm):
    MENDED[harm](run)
    resume(run, prior=toys.GaussianPrior(), cluster="none")
    assert toys.product(run) == toys.product(serial) and verify(run) == []


def test_a_store_that_cannot_be_read_is_said_with_the_command_that_mends_it(run, capsys):
    for path in run.glob("posterior.zarr/flags/c/*"):
        path.write_bytes(path.read_bytes()[:-9])
    unmerge(run)  # a status of a finished run reads its tables alone
    code, said = look("status", run, capsys)
    assert code == 1 and f"`galbatch verify {run}` says what is damaged" in said and "bug" not in said


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds_what_is_damaged_and_says_it_in_words(run, damage, capsys):
    harm, message = DAMAGES[damage]
    harm(run)
    code, said = look("verify", run, capsys)
    assert code == 1 and message in said, said
    assert look("status", run, capsys)[0] in (0, 1)
