"""A finished toy run, made once: tests of run folders take copies of it."""

import shutil

import pytest
import toys

from galbatch.run import process


@pytest.fixture(scope="session")
def survey(tmp_path_factory):
    """Catalogue of four sources."""
    return toys.write_survey(tmp_path_factory.mktemp("survey"), n=4)


@pytest.fixture(scope="session")
def finished(survey, tmp_path_factory):
    """Its run, in two batches. Left as it is found."""
    out = tmp_path_factory.mktemp("runs") / "a.run"
    process(survey, out=out, prior=toys.GaussianPrior(), batch=3, draws=2, mode="fast", cluster="none")
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "a.run", symlinks=True)
