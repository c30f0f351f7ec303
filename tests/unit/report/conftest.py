"""A browser, one run of known content for all that only look, and one page."""

import pytest
from fake_run import write_fake_run
from pages import browser  # noqa: F401
from report_fakes import fake_summary

import galbatch
from galbatch.report.page import render_page


@pytest.fixture(scope="session")
def paths(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("runs") / "fake.run")


@pytest.fixture(scope="session")
def run(paths):
    return galbatch.open_run(paths.root)


@pytest.fixture(scope="session")
def summary():
    return fake_summary()


@pytest.fixture(scope="session")
def page(summary):
    return render_page(summary)
