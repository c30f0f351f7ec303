"""The list of faults that ``tests/mutation.py`` plants stays in step with the package."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("mutation", ROOT / "tests" / "mutation.py")
mutation = importlib.util.module_from_spec(SPEC)


@pytest.fixture(scope="module", autouse=True)
def loaded():
    import sys

    sys.modules["mutation"] = mutation
    SPEC.loader.exec_module(mutation)


def test_every_fault_fits_and_changes_what_it_says():
    for fault in mutation.FAULTS:
        text = (ROOT / "galbatch" / fault.module).read_text()
        compile(fault.planted(text), fault.module, "exec")
        assert fault.planted(text) != text and (ROOT / fault.tests).exists()


def test_a_fault_that_no_longer_fits_is_said():
    with pytest.raises(ValueError, match="0 times: mend this list"):
        mutation.FAULTS[0].planted("nothing of it")
