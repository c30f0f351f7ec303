"""One uninterrupted serial run of the toy survey, to hold every other way of running it to."""

import pytest
import toys

from galbatch.run import process

OPTIONS = dict(batch=3, draws=3, mode="fast")


@pytest.fixture(scope="session")
def survey(tmp_path_factory):
    """Catalogue of ten sources, one of them off the image: four batches of three."""
    return toys.write_survey(tmp_path_factory.mktemp("survey"), off=7)


@pytest.fixture(scope="session")
def serial(survey, tmp_path_factory):
    """The bytes of a serial run."""
    out = tmp_path_factory.mktemp("runs") / "serial.run"
    process(survey, out=out, prior=toys.GaussianPrior(), cluster="none", **OPTIONS)
    return out
