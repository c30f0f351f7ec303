"""Every benchmark script can still be imported, and times functions that are there."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.rglob("*.py"))
LOCAL = {path.stem for path in SCRIPTS}


@pytest.fixture
def imported(monkeypatch):
    """Imports a script as Python does that is called with its path."""
    before = set(sys.modules)

    def one(path):
        monkeypatch.syspath_prepend(str(path.parent))
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    yield one
    for name in (set(sys.modules) - before) & LOCAL:
        sys.modules.pop(name)


@pytest.mark.parametrize("path", SCRIPTS, ids=[str(p.relative_to(BENCHMARKS)) for p in SCRIPTS])
def test_a_script_imports_what_is_there(path, imported):
    try:
        module = imported(path)
    except ModuleNotFoundError as err:
        if err.name.split(".")[0] in {"galbatch", *LOCAL}:
            raise
        pytest.skip(f"{path.name} needs {err.name}: pip install -e '.[bench]'")
    assert module.__doc__


def test_the_parts_of_a_draw_that_are_timed_exist(imported):
    parts = imported(BENCHMARKS / "throughput" / "profile_draw.py").PARTS
    assert all(callable(getattr(place, name)) for places in parts.values() for place, name in places)
