"""Intervals of few draws hold 68% of the truths, and the calibrated ones are not widened twice."""

import numpy as np
import pytest

from galbatch.morphology import summarise
from galbatch.morphology.calibration import calibrated
from galbatch.morphology.images import RESULT_DTYPE
from galbatch.morphology.intervals import fewer_draws, interval, lower_end
from galbatch.validate.calibrate import fit_calibration

N = 40_000
CLAIMED = 0.6826894921370859


def held(low, truth, high):
    """(share of truths between, below), and the standard error of the former."""
    inside = (low < truth) & (truth < high)
    return inside.mean(), (truth <= low).mean(), np.sqrt(CLAIMED * (1 - CLAIMED) / len(truth))


@pytest.mark.parametrize("k", range(2, 17))
def test_exact_gaussian_draws_hold_68_percent_whatever_their_number(k):
    rng = np.random.default_rng(k)
    draws, truth = rng.standard_normal((N, k)), rng.standard_normal(N)
    low, middle, high = interval(draws)
    inside, below, error = held(low, truth, high)
    assert abs(inside - CLAIMED) < 4 * error
    assert abs(below - (1 - CLAIMED) / 2) < 4 * error  # as many on either side
    np.testing.assert_allclose(middle, np.median(draws, axis=1))
    usual = np.percentile(draws[:1000], [15.8655, 84.1345], axis=1)
    assert held(usual[0], truth[:1000], usual[1])[0] < CLAIMED - 0.05  # what the widening mends


@pytest.mark.parametrize("k", [2, 3, 5, 8, 16])
@pytest.mark.parametrize("law", ["exponential", "standard_t", "uniform"])
def test_other_posteriors_are_held_about_as_well(k, law):
    rng = np.random.default_rng(k)
    more = (3,) if law == "standard_t" else ()
    draws, truth = (getattr(rng, law)(*more, size=size) for size in ((N, k), N))
    low, _, high = interval(draws)
    assert held(low, truth, high)[0] == pytest.approx(CLAIMED, abs=0.05)


def test_two_draws_are_students_interval():
    """P(|t| < 1.837) = 68.27% with one degree of freedom, and x is off the middle of two by sqrt(3/2)
    sigma."""
    low, _, high = interval(np.array([[-1.0, 1.0]]))
    assert high[0] == pytest.approx(np.sqrt(3) * np.tan(CLAIMED * np.pi / 2), rel=1e-4)
    assert low[0] == -high[0]


def test_between_draws_the_ends_are_where_the_chance_says():
    """17 gaps of 16 draws: exactly one in 17 lies between two that follow each other."""
    i, j, f = lower_end(16)
    assert (i, j) == (2, 3) and 2 / 17 < 0.1587 < 3 / 17 and 0 < f < 1
    assert lower_end(5)[:2] == (1, 5) and lower_end(5)[2] < 0 < lower_end(6)[2]


def test_missing_draws_are_left_out_and_one_draw_has_no_error():
    values = np.array([[3.0, np.nan, 1.0, 2.0], [np.nan, 5.0, np.nan, np.nan], [np.nan] * 4])
    low, middle, high = interval(values)
    expected = [part[0] for part in interval(np.array([[1.0, 2.0, 3.0]]))]
    assert [low[0], middle[0], high[0]] == expected
    assert middle[1] == 5 and np.isnan([low[1], high[1], low[2], middle[2], high[2]]).all()


def test_fluxes_and_sizes_stay_positive():
    low, middle, high = interval(np.array([[1.0, 3.0]]), positive=True)
    assert 0 < low[0] < middle[0] < high[0] and middle[0] == pytest.approx(np.sqrt(3))
    assert interval(np.array([[1.0, 3.0]]))[0][0] < 0


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("k", [2, 3, 4, 6, 8, 12, 16, 40])
def test_a_calibrated_interval_widens_by_what_fewer_draws_cost(k, power):
    """Calibrated with 16 draws: median +- z s^power. With k draws it holds the same when it is widened."""
    rng = np.random.default_rng(k)

    def normalised(k):
        draws, truth = rng.standard_normal((N, k)), rng.standard_normal(N)
        low, middle, high = np.percentile(draws, [15.8655, 50, 84.1345], axis=1)
        return np.abs(truth - middle) / ((high - low) / 2) ** power

    z = np.quantile(normalised(16), CLAIMED)
    inside = np.mean(normalised(k) < z * fewer_draws(k, 16, power))
    assert inside > CLAIMED - 0.03
    if k <= 16:
        assert inside < CLAIMED + 0.03
    if k == 16:
        assert fewer_draws(k, 16, power) == 1


def galaxies(n, k, seed):
    """Exact draws of galaxies whose errors differ, and the truth."""
    rng = np.random.default_rng(seed)
    draws, truth = np.zeros((n, k), RESULT_DTYPE), np.zeros(n, RESULT_DTYPE)
    for name in RESULT_DTYPE.names[:-1]:
        sigma, centre = 0.1 * np.exp(rng.normal(0, 0.7, n)), rng.normal(0, 0.5, n)
        draws[name] = np.exp(centre[:, None] + sigma[:, None] * rng.standard_normal((n, k)))
        truth[name] = np.exp(centre + sigma * rng.standard_normal(n))
    return summarise(draws), truth


@pytest.fixture(scope="module")
def table():
    return fit_calibration(*galaxies(3000, 16, 1), 1.0)


@pytest.mark.parametrize("k", [3, 4, 8])
def test_calibrated_columns_hold_with_fewer_draws_than_they_were_made_with(table, k):
    """What the draws of the table cost is in it already; what fewer cost is added once."""
    assert table["draws"] == 16
    found, truth = galaxies(3000, k, 2)
    columns = calibrated(found, table, 1.0)
    for name in ("flux_njy", "r_half"):
        inside, _, error = held(columns[f"{name}_p16"], truth[name], columns[f"{name}_p84"])
        assert abs(inside - CLAIMED) < 0.03 + 3 * error
