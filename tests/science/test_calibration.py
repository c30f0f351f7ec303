"""The shipped prior on held-out mocks, in a form small enough for every run: the machinery, and that nothing
is far off.

The release form is ``galbatch validate``; here the bands are those of a handful of galaxies, from their own
error bars.
"""

import numpy as np
import pytest

from galbatch.prior import load_prior
from galbatch.validate import make_mocks, run_study, verdict


@pytest.fixture(scope="module")
def study():
    prior = load_prior()
    mocks = make_mocks(prior, 10, sn_range=(5.0, 60.0))
    return run_study(prior, mocks, draws=7, mode="fast")


def test_residuals_fit_the_noise(study):
    assert study.numbers["chi2_mean"] == pytest.approx(1, abs=0.05)
    assert study.numbers["chi2_p_below_1e-2"] <= 0.2


def test_intervals_are_neither_empty_nor_everything(study):
    row = next(r for r in study.rows if r["what"] == "pixels" and r["bin"] == "all")
    for claimed, found, error in zip(study.numbers["levels"], row["coverage"], row["error"], strict=True):
        assert found == pytest.approx(claimed, abs=0.1 + 3 * error)


def test_the_mean_is_closer_than_the_data(study):
    assert study.numbers["nmse_median"] < 0.2
    assert study.numbers["evaluations"] <= 24


def test_every_target_has_a_check(study):
    names = {c["name"].split(" [")[0] for c in verdict(study)}
    assert {"pixels", "fourier", "flux", "gini", "tarp_other_galaxies", "flux mean z", "evaluations"} <= names
    assert np.isfinite([c["value"] for c in verdict(study)]).all()


def test_calibrated_intervals_of_few_draws_are_wide_enough(study):
    """The table is of 16 draws, the study of 7: of 14 quantities of 10 galaxies, most truths are inside."""
    inside = [row["calibrated"][0] for row in study.intervals]
    assert len(inside) == 14 and np.mean(inside) > 0.5
