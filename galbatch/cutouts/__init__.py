"""Survey files and mosaics: where sources lie, their stamps in every band, noise, masks, PSFs.

Rooms, each importing from those before it: ``fits``, ``noise`` and ``psf``, ``survey``; the files here, which
cut sources (``stamps``); ``check``, the survey opened (``opened``), and ``propose``.
"""

from galbatch.cutouts.check.planes import check_noise, check_tile_names
from galbatch.cutouts.check.preflight import check_footprint, check_resolution, unreadable
from galbatch.cutouts.fits.remote import take_traffic
from galbatch.cutouts.opened import Located, Survey, open_survey
from galbatch.cutouts.sizes import classes, cut_fitting, outgrown, outgrows
from galbatch.cutouts.survey.config import SurveyConfig
from galbatch.cutouts.survey.read import load_survey

__all__ = [
    "Located",
    "Survey",
    "SurveyConfig",
    "check_footprint",
    "check_noise",
    "check_resolution",
    "check_tile_names",
    "classes",
    "cut_fitting",
    "load_survey",
    "open_survey",
    "outgrown",
    "outgrows",
    "take_traffic",
    "unreadable",
]
