"""The statistics that judge calibration are themselves tested; batches have the numbers of single mocks."""

import numpy as np
import pytest

from galbatch.interfaces import PriorSpec
from galbatch.types import Posterior
from galbatch.validate import mock, study
from galbatch.validate.mock import MockSet
from galbatch.validate.ranks import LEVELS, coverage, rank_histogram_p, ranks, tarp
from galbatch.validate.study import Study
from galbatch.validate.verdict import verdict


def draws_and_truth(width=1.0, shift=0.0, n=2000, k=15, d=4, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((n, d))
    truth = centre + rng.standard_normal((n, d))
    return centre[:, None] + shift + width * rng.standard_normal((n, k, d)), truth, rng


@pytest.mark.parametrize("k", [3, 15])
def test_coverage_of_exact_draws_is_nominal_at_any_number_of_draws(k):
    draws, truth, rng = draws_and_truth(k=k)
    value, error, n = coverage(ranks(draws, truth, rng))
    assert n == 2000
    np.testing.assert_array_less(np.abs(value - LEVELS), 4 * error)
    assert (error < 0.02).all()


@pytest.mark.parametrize(("width", "sign"), [(0.7, -1), (1.4, 1)])
def test_coverage_sees_a_wrong_width(width, sign):
    draws, truth, rng = draws_and_truth(width)
    value, error, _ = coverage(ranks(draws, truth, rng))
    assert (sign * (value - LEVELS) > 4 * error).all()


def test_errors_come_from_galaxies_not_pixels():
    """A thousand copies of one pixel know no more than one."""
    draws, truth, rng = draws_and_truth(n=200, d=1)
    u = ranks(draws, truth, rng)
    _, single, _ = coverage(u)
    _, copied, _ = coverage(np.repeat(u, 1000, axis=1))
    np.testing.assert_allclose(copied, single, rtol=0.5)


def test_ties_and_missing_values():
    rng = np.random.default_rng(0)
    u = ranks(np.zeros((5000, 9, 1)), np.zeros((5000, 1)), rng)
    assert rank_histogram_p(u[:, 0]) > 1e-3
    u = ranks(np.full((3, 4, 1), np.nan), np.zeros((3, 1)), rng)
    assert np.isnan(u).all()
    assert np.isnan(coverage(u)[0]).all()


def test_rank_histogram_and_tarp_see_bias_and_pass_the_truth():
    draws, truth, rng = draws_and_truth()
    assert rank_histogram_p(ranks(draws, truth, rng)[:, 0]) > 1e-3
    levels, expected = tarp(draws, truth, np.roll(truth, 1, 0), rng)
    assert np.abs(expected - levels).max() < 0.05
    biased, truth, rng = draws_and_truth(shift=0.5)
    assert rank_histogram_p(ranks(biased, truth, rng)[:, 0]) < 1e-6
    wide, truth, rng = draws_and_truth(width=2.0)
    levels, expected = tarp(wide, truth, np.roll(truth, 1, 0), rng)
    assert np.abs(expected - levels).max() > 0.1


def test_verdict_fails_what_misses_its_target():
    numbers = {"tarp_a": 0.05, "galaxies": 400, "flux_mean_z": 0.02, "flux_mean_z_error": 0.05}
    study = Study(numbers=numbers | {"evaluations": 30.0})
    good = {"what": "pixels", "bin": "all", "n": 400}
    good |= {"coverage": [0.51, 0.67, 0.91, 0.95], "error": [0.01] * 4}
    study.rows = [good]
    assert all(c["passed"] for c in verdict(study))
    study.rows = [{**good, "coverage": [0.51, 0.60, 0.91, 0.95]}]
    assert [c["name"] for c in verdict(study) if not c["passed"]] == ["pixels [all] 68%"]
    study.rows = [good]
    study.numbers |= {"tarp_a": 0.4, "flux_mean_z": 0.5, "evaluations": 60.0}
    assert len([c for c in verdict(study) if not c["passed"]]) == 3


class Nothing:
    spec = PriorSpec()

    def denoise(self, x, sigma):
        return x


def test_batches_of_unequal_sizes(monkeypatch):
    rng, asked, seen = np.random.default_rng(0), [], []
    shape = (3, 1, mock.STAMP, mock.STAMP)
    data, psf = rng.standard_normal(shape), np.ones((3, 1, 3, 3)) / 9
    obs = mock.Observation(data, np.ones(shape), psf, np.zeros(shape, bool))
    mocks = MockSet(obs, data[:, 0].astype("f4"), *(np.full(3, v) for v in (9.0, 3.0, 5.0)))

    def sample(prior, obs, draws, mode, seed, source_ids):
        asked.append(list(source_ids))
        b = len(source_ids)
        image = (obs.data[:, None] + rng.standard_normal((b, draws, *shape[1:]))).astype("f4")
        one, blank, spent = np.ones((b, 1)), 0 * obs.data, np.array(source_ids) + 10.0
        whole = np.full(b, draws)
        return Posterior(
            image, obs.data, blank, one, one, blank, one, np.zeros(b, int), one, spent, whole, 2.0
        )

    monkeypatch.setattr(mock, "sample_posterior", sample)
    monkeypatch.setattr(mock, "sources_at_once", lambda device, draws: 2)
    monkeypatch.setattr(study, "_scalars", lambda *a: None)
    found = study.run_study(Nothing(), mocks, draws=4, progress=lambda *done: seen.append(done))
    assert asked == [[0, 1], [2]] and seen == [(1, 3), (2, 3), (3, 3)]
    assert found.numbers["evaluations"] == 11
