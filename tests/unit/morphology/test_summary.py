"""Columns from draws: percentiles, angles, probabilities, counts."""

import numpy as np
import pytest

from galbatch.columns import MEASURED, QUANTITIES, statistics_of
from galbatch.morphology import MorphFlag, summarise
from galbatch.morphology.images import RESULT_DTYPE


@pytest.fixture
def draws():
    table = np.zeros((3, 16), RESULT_DTYPE)
    rng = np.random.default_rng(0)
    for name in QUANTITIES:
        table[name] = rng.normal(1.0, 0.1, table.shape)
    return table


def test_every_column_once(draws):
    columns = summarise(draws, draws[:, 0])
    expected = {f"{q}_{s}" for q, about in QUANTITIES.items() for s in statistics_of(about)}
    others = {name.removesuffix("_{band}") for name in MEASURED if name.startswith(("p_", "morph_"))}
    assert set(columns) == expected | others | {"n_draws_measured"}
    assert all(v.shape == (3,) for v in columns.values())


def test_percentiles_are_those_of_one_sigma(draws):
    columns = summarise(draws)
    np.testing.assert_allclose(columns["gini_p50"], np.median(draws["gini"], axis=1))
    np.testing.assert_allclose(columns["gini_raw50"], columns["gini_p50"])
    np.testing.assert_allclose(columns["gini_mean"], draws["gini"].mean(axis=1))
    np.testing.assert_allclose(columns["gini_std"], draws["gini"].std(axis=1))
    low, high = np.percentile(draws["gini"], [15.865525, 84.134475], axis=1)
    np.testing.assert_allclose([columns["gini_raw16"], columns["gini_raw84"]], [low, high], rtol=1e-6)
    assert (columns["gini_p16"] < low).all() and (high < columns["gini_p84"]).all()  # 16 draws are few


def test_unmeasured_draws_are_left_out_and_too_few_are_nothing(draws):
    draws["m20"][0, :7] = np.nan
    draws["m20"][1, :9] = np.nan
    columns = summarise(draws)
    assert columns["m20_p50"][0] == pytest.approx(np.median(draws["m20"][0, 7:]))
    assert np.isnan(columns["m20_p50"][1]) and np.isfinite(columns["gini_p50"][1])


def test_all_nan_is_nan_without_a_warning(draws):
    for name in QUANTITIES:
        draws[name] = np.nan
    draws["flags"] = int(MorphFlag.NO_PIXELS)
    columns = summarise(draws, draws[:, 0])
    assert np.isnan(columns["flux_njy_p50"]).all() and np.isnan(columns["p_merger"]).all()
    assert (columns["n_draws_measured"] == 0).all()
    assert (columns["morph_flags"] == int(MorphFlag.NO_PIXELS)).all()


def test_angles_near_the_wrap(draws):
    draws["orientation"] = np.where(np.arange(16) % 2, np.pi / 2 - 0.05, -np.pi / 2 + 0.05)
    columns = summarise(draws)
    np.testing.assert_allclose(columns["orientation_std"], 0.05)
    assert (columns["orientation_raw16"] <= columns["orientation_raw84"]).all()
    np.testing.assert_allclose(np.abs(columns["orientation_mean"]), np.pi / 2, atol=1e-6)


def test_probabilities(draws):
    draws["gini_m20_merger"] = np.where(np.arange(16) < 4, 0.1, -0.1)
    draws["asymmetry"], draws["smoothness"] = 0.5, np.where(np.arange(16) < 8, 0.1, 0.9)
    columns = summarise(draws)
    np.testing.assert_allclose(columns["p_merger"], 0.25)
    np.testing.assert_allclose(columns["p_asymmetric"], 0.5)


def test_probability_ignores_draws_that_cannot_be_judged(draws):
    draws["sersic_n"] = np.where(np.arange(16) < 4, np.nan, 1.0)
    np.testing.assert_allclose(summarise(draws)["p_disc"], 1.0)


def test_common_flags_need_half_of_the_draws(draws):
    draws["flags"][:, :8] = int(MorphFlag.CENTRE_DRIFT)
    draws["flags"][:, :7] |= int(MorphFlag.SERSIC_BOUND)
    assert (summarise(draws)["morph_flags"] == int(MorphFlag.CENTRE_DRIFT)).all()
