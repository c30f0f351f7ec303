"""``galbatch watch``: what a run does, seen from outside, without a trace in its folder."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from galbatch.cli.main import main
from galbatch.cli.watch import picture
from galbatch.run import inspect
from galbatch.store import open_run


def test_a_run_is_watched_and_not_written_to(serial, capsys):
    before = {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in serial.rglob("*")}
    assert main(["watch", str(serial)]) == 0
    text = capsys.readouterr().out
    assert "10/10 sources" in text and "do not use" in text and "draws/s" not in text
    assert {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in serial.rglob("*")} == before
    found = inspect.snapshot(serial)
    screen = Console(width=200, file=io.StringIO())
    screen.print(picture(found))
    bar, head, pace = screen.file.getvalue().splitlines()[:3]
    assert set(bar.strip()) == {"━"} and "finished" in head and "10/10 sources" in pace
    assert sum(found["grades"].values()) == 10 and any("10 sources" in m for m in found["latest"])


def test_the_pace_is_that_since_the_first_batch_of_the_latest_start(tmp_path, monkeypatch):
    batch = {
        "event": "batch",
        "sources": 2,
        "flagged": 0,
        "failed": 0,
        "counters": {"draws": 8},
        "seconds": {},
    }
    start = {"event": "start", "total": 10, "before": 0}
    rows = [start, batch | {"time": 0, "batch": 0}, start, {"event": "message", "text": "hello"}]
    rows += [batch | {"time": 100.0, "batch": 1}, batch | {"time": 110.0, "batch": 2}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"event": "ba')  # a line still being written
    monkeypatch.setattr("galbatch.run.inspect.time.time", lambda: 112.0)
    progress, batches, messages = inspect._replayed(path)
    assert batches == [1, 2] and messages == ["hello"]
    assert progress.pace == pytest.approx(0.8) and progress.eta_s == pytest.approx(6 * 10 / 2 - 2)


def test_the_status_of_a_finished_run_loads_little(serial):
    code = (
        f"import sys; from galbatch.run import status; print(status({str(serial)!r})['flags']); "
        "print([name for name in ('zarr', 'pandas', 'torch', 'astropy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(open_run(serial).flag_counts()), "[]"]
