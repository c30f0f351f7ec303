"""What a run says while it goes, on a terminal and without one."""

import io
import time

import numpy as np
import pytest
import zarr
from fake_run import FIRST_ID, write_fake_run

from galbatch.cli import progress as shown
from galbatch.cli.status import lines
from galbatch.errors import InputError
from galbatch.run.events import Progress
from galbatch.store import open_run
from galbatch.types import Flag


def record(n):
    return {"sources": n, "flagged": 0, "failed": 0, "counters": {}, "seconds": {}}


def test_a_plain_line_comes_again_while_nothing_is_finished(monkeypatch, capsys):
    monkeypatch.setattr(shown, "LINE_S", 0.05)
    with shown.View("plain") as view:
        view.progress(Progress(total=9))
        until = time.monotonic() + 20
        text = ""
        while text.count("0/9 sources") < 3 and time.monotonic() < until:
            time.sleep(0.02)
            text += capsys.readouterr().err
    assert text.count("0/9 sources") >= 3
    time.sleep(0.2)
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""  # none after the end


def test_the_bar_of_a_large_run_has_its_numbers_in_80_columns():
    from rich.console import Console

    progress = Progress(total=12000, dashboard="http://127.0.0.1:8787/status")
    for _ in range(2):
        progress.add(record(64) | {"flagged": 31, "failed": 12})
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    bar = shown.new_bar(console)
    bar.add_task("", total=12000, completed=128, run=progress)
    console.print(bar.get_renderable())
    text = console.file.getvalue()
    assert all(part in text for part in ("128/12000", "62 flagged", "24 failed"))
    assert "\N{HORIZONTAL ELLIPSIS}" not in text and "left" in text and "dashboard" in text


def test_what_takes_long_is_counted_in_lines(monkeypatch, capsys):
    monkeypatch.setattr(shown, "LINE_S", 0.0)
    with shown.counted(5, "galaxies") as done:
        done()
        done(2)
    assert capsys.readouterr().err == "1 of 5 galaxies\n3 of 5 galaxies\n"
    monkeypatch.setattr(shown, "LINE_S", 30.0)
    with shown.counted(5, "galaxies") as done:
        done()
    assert capsys.readouterr().err == ""


def test_time_left_does_not_count_loading_and_compiling(monkeypatch):
    now = 1000.0
    monkeypatch.setattr("galbatch.run.events.time.monotonic", lambda: now)
    progress = Progress(total=50, done=10, before=10)
    now += 300  # loads and compiles
    progress.add(record(10))
    assert progress.eta_s is None
    now += 20
    progress.add(record(10))
    assert progress.eta_s == 40.0
    now += 15
    assert progress.eta_s == 25.0  # it does not grow while a batch is at work
    now += 60
    assert progress.eta_s == 0.0


def test_time_left_is_known_from_the_first_batch_on(monkeypatch):
    """By its own seconds of work, those of all workers, not by the time of loading."""
    now = 1000.0
    monkeypatch.setattr("galbatch.run.events.time.monotonic", lambda: now)
    progress = Progress(total=40, workers=2)
    assert progress.pace is None and "draws/s" not in shown.plain_line(progress)
    now += 300
    progress.add(record(4) | {"seconds": {"sample": 30.0, "measure": 10.0}, "counters": {"draws": 2}})
    assert progress.eta_s == 36 * 40 / 4 / 2 and progress.pace == pytest.approx(2 / 4 / 5)
    assert "0.1 draws/s" in shown.plain_line(progress) and "left" in shown.plain_line(progress)
    assert shown.facts(progress)["draws_per_s"] == 0.1
    now += 10
    progress.add(record(4) | {"seconds": {"sample": 30.0}, "counters": {"draws": 2}})
    assert progress.eta_s == 32 * 10 / 4 and progress.pace == pytest.approx(0.2)


def test_pending_slots_are_no_ids(tmp_path):
    paths = write_fake_run(tmp_path / "f.run")
    status = zarr.open_group(paths.posterior, mode="r+")["status"]
    status[:] = [0, 0, 0, 1, *[0] * (status.shape[0] - 4)]
    with pytest.raises(InputError, match=rf"those done begin with {FIRST_ID + 3}. Take one"):
        open_run(paths.root).index(0)
    status[:] = 0
    with pytest.raises(InputError, match="no source of it is done yet"):
        open_run(paths.root).index(0)


def test_status_names_the_flags_and_their_sources(tmp_path):
    run = open_run(write_fake_run(tmp_path / "f.run").root)
    found, flags = run.flag_counts(), np.asarray(run.catalog["flags"])
    assert found == {f.name: n for f in Flag if (n := int(np.count_nonzero(flags & int(f))))} != {}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    far = dict.fromkeys(("sources", "planned", "batches_committed", "batches", "ok", "flagged", "failed"), 6)
    far |= {"run": "f.run", "state": "finished", "catalog": "c", "bands": ["a"], "draws": 4}
    text = lines(
        far | {"flags": {"EDGE": 3, "NEIGHBOUR": 1}, "holder": None, "orphans": 0, "replacement": None}
    )
    assert "  flags: EDGE 3, NEIGHBOUR 1" in text


def test_a_training_is_counted_in_steps_with_its_latest_loss(monkeypatch, capsys):
    from galbatch.cli.train import _telling

    monkeypatch.setattr(shown, "LINE_S", 0.0)
    with shown.counted(9, "steps") as done:
        tell = _telling(done)
        tell({"step": 4, "elapsed_s": 1.2})  # goes on from step 3
        tell({"step": 5, "elapsed_s": 2.0, "edm": 0.5})
        tell({"step": 6, "elapsed_s": 2.9, "held_out": {"0.05": 0.25}})
    assert capsys.readouterr().err.splitlines() == [
        "4 of 9 steps, 1 s",
        "5 of 9 steps, loss 0.5000, 2 s",
        "6 of 9 steps, loss 0.5000, 3 s",
        "step 6: held-out error / sigma^2 by sigma: 0.05: 0.2500",
    ]
