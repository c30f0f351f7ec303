"""Survey files and mosaics: where sources lie, their stamps in every band, noise, masks, PSFs."""

from galbatch.cutouts.config import SurveyConfig
from galbatch.cutouts.plane_check import check_noise, check_tile_names
from galbatch.cutouts.preflight import check_footprint, check_resolution, unreadable
from galbatch.cutouts.remote import take_traffic
from galbatch.cutouts.sizes import classes, cut_fitting, outgrown, outgrows
from galbatch.cutouts.survey import Located, Survey, open_survey
from galbatch.cutouts.survey_file import load_survey

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
