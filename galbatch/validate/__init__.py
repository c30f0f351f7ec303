"""Is the posterior right? Calibration and accuracy on held-out truth, with their own error bars."""

from galbatch.validate.mock import MockSet, make_mocks
from galbatch.validate.real import make_real
from galbatch.validate.study import Study, run_study
from galbatch.validate.verdict import TARGETS, verdict

__all__ = ["TARGETS", "MockSet", "Study", "make_mocks", "make_real", "run_study", "verdict"]
