"""A browser, and one run of known content for all that only look."""

import pytest
from fake_run import write_fake_run
from pages import browser  # noqa: F401

import galbatch


@pytest.fixture(scope="session")
def paths(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("runs") / "fake.run")


@pytest.fixture(scope="session")
def run(paths):
    return galbatch.open_run(paths.root)
