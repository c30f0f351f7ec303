"""benchmarks/gpu/card.sh stands ready: every step, tiny, on the CPU, and what it says without a card."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "benchmarks" / "gpu" / "card.sh"


PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # python3 is ours


def run(*arguments, **more):
    more = {"env": {**os.environ, "PATH": PATH}, **more}
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=500, **more
    )


def test_every_step_runs_dry_and_is_not_run_twice(tmp_path):
    done = run("--scratch", tmp_path, "--dry-run")
    lines = [json.loads(line) for line in (tmp_path / "card.jsonl").read_text().splitlines()]
    failed = {line["step"]: line["failed"] for line in lines if "failed" in line}
    assert done.returncode == 0 and not failed, (failed, done.stderr)
    found = {line["step"]: line for line in lines}
    assert list(found) == ["tests", "table", "roofline", "profile", "process", "train", "joint"]
    assert found["tests"]["passed"] and "passed" in found["tests"]["said"], found["tests"]
    assert all(row["draws_per_s"] > 0 and 0.5 < row["chi2"] < 2 for row in found["table"]["rows"])
    assert len(found["table"]["rows"]) == 2 and found["roofline"]["small"]["eager"]["images_per_s"] > 0
    assert found["profile"]["wall_s"] > 0 and found["train"]["stamps_per_s_with_start"] > 0
    assert found["joint"]["steps"] == 2 and max(found["joint"]["loss_over_separate"].values()) < 1.1
    against = found["process"]["against_the_cpu"]
    assert against["values"] > 9 and against["p99"] == 0 and against["same_flags"] == 1
    assert all("not measured on a GPU" in line["note"] for line in lines)
    again = run("--scratch", tmp_path, "--dry-run")
    assert again.returncode == 0 and again.stdout.count("done before") == 7
    assert len((tmp_path / "card.jsonl").read_text().splitlines()) == 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_without_a_card_it_says_so(tmp_path):
    done = run("--scratch", tmp_path, "--out", tmp_path)
    assert done.returncode == 2 and "no CUDA card is visible" in done.stderr
    assert not (tmp_path / "card.jsonl").exists()


def test_a_budget_that_is_too_small_and_an_unknown_step_are_said(tmp_path):
    done = run("--scratch", tmp_path, "--dry-run", "--budget", "10", "tests")
    assert "left out" in done.stdout
    assert "no step nonsense" in run("--scratch", tmp_path, "--dry-run", "nonsense").stderr


def test_wheels_that_are_missing_are_installed_beside_what_there_is(tmp_path):
    """The installer is asked for what the machine lacks, and only for that."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("numpy-1.0-py3-none-any.whl", "nobody_has_this-1.0-py3-none-any.whl"):
        (wheels / name).touch()
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\nif [ "$1" = - ]; then exec {os.sys.executable} "$@"; fi\necho "$@" >> {tmp_path}/asked\n'
    )
    fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    run("--scratch", tmp_path / "scratch", "--wheels", wheels, "--dry-run", env=environment)
    install, steps = (tmp_path / "asked").read_text().splitlines()
    assert "--no-index" in install and f"--find-links {wheels}" in install
    assert "nobody_has_this" in install and "numpy" not in install
    assert "card.py" in steps
