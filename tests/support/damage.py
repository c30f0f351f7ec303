"""What the tests of damaged files share: the sound survey's text, its files, and the use that a run makes
of them."""

import numpy as np
from hypothesis import HealthCheck, settings

from galbatch.cutouts import open_survey
from galbatch.errors import GalbatchError

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
SURVEY = """name = "x"
stamp_arcsec = 1.0
[bands.f]
sci = "sci.fits"
err = "err.fits"
psf = "psf.fits"
unit = "nJy"
"""
FILES = ["sci.fits", "err.fits", "psf.fits", "stdpsf.fits", "psfex.fits", "sci.fits.gz", "sci.fits.fz"]


def survey_with(which: str, name: str) -> str:
    """The survey file in which the plane that ``which`` stands for is ``name``."""
    plane = "psf.fits" if "psf" in which else which[:3] + ".fits"
    return SURVEY.replace(plane, name) + (
        "psf_frame = 'mosaic'\n" if which[:3] == "std" or "ex" in which else ""
    )


def use(folder, name="s.toml"):
    """All that a run does with a survey before sampling. Anything but an error of ours is a failure of the
    test."""
    try:
        survey = open_survey(folder / name)
        survey.check(["source_id", "ra", "dec"])
        rows = {"source_id": np.array([1, 2]), "ra": np.array([150.0, 150.0001]), "dec": np.array([2.0, 2.0])}
        survey.locate(rows["ra"], rows["dec"])
        batch = survey.cut(rows, 16)
        assert len(batch.flags) == 2
        for stamps in batch.bands:
            assert not np.any(np.isfinite(stamps.sigma) & stamps.mask)
            assert np.all(np.isfinite(stamps.data[~stamps.mask])) and np.all(stamps.sigma[~stamps.mask] > 0)
    except GalbatchError as error:
        assert str(error)
        return error
    return None
