"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GALBATCH_NODE_CACHE_MB", "0")  # what an earlier test read is not asked for again
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``GALBATCH_TEST_DATA``, or ``../shared/data`` beside the repository."""
    path = Path(os.environ.get("GALBATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set GALBATCH_TEST_DATA")
    return path


def pytest_runtest_setup(item):
    """``@pytest.mark.ci("package", ...)``: skipped, and says what to install, where one of them is not."""
    for marker in item.iter_markers("ci"):
        for name in marker.args:
            pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[ci]'")


OPT_IN = ("slow", "science", "gpu")


def pytest_collection_modifyitems(config, items):
    """Plain ``pytest`` leaves the opt-in tests out; ``pytest -m slow`` (or any ``-m``) chooses for itself."""
    if config.option.markexpr:
        return
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in OPT_IN)]
    if left_out and len(left_out) < len(items):  # a test that is named alone is meant
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
