"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``GALBATCH_TEST_DATA``, or ``../shared/data`` beside the repository."""
    path = Path(os.environ.get("GALBATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set GALBATCH_TEST_DATA")
    return path
