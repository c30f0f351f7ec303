"""mypy is strict on every module of the package."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_no_module_is_left_out():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"] is True
    assert not {"overrides", "exclude", "ignore_errors", "disable_error_code"} & settings.keys()


@pytest.mark.ci("mypy")
def test_mypy_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "galbatch"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
