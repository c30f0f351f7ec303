import pytest
from faults import Desk
from outside import network, outside  # noqa: F401
from runs import serial, survey  # noqa: F401


@pytest.fixture
def desk(tmp_path, survey, serial, monkeypatch):  # noqa: F811
    """An empty folder with a thesis in it; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    return Desk(tmp_path, survey, serial, monkeypatch)
