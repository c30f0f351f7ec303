"""Calibrated intervals: they mend draws that are too sure or off, in any unit, and claim nothing where they
do not reach."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from galbatch.cli.main import cli
from galbatch.columns import INTERVAL
from galbatch.errors import ModelError
from galbatch.morphology import measure, summarise
from galbatch.morphology.calibration import CALIBRATED, LOGARITHMIC, calibrated, reached
from galbatch.morphology.images import RESULT_DTYPE
from galbatch.prior.card import Card
from galbatch.prior.folder import CALIBRATION, SHIPPED, load_calibration, model_folder
from galbatch.prior.model import load_prior
from galbatch.validate import calibrate as calibrate_module
from galbatch.validate import make_mocks
from galbatch.validate.calibrate import SEED, fit_calibration, measure_mocks, share, within, write_calibration

TARGET = 0.06


def galaxies(n, seed, width=0.5, shift=1.0, k=16, unit=1.0, lean=0.0):
    """Draws of a conjugate posterior, made ``width`` times as wide and moved by ``shift`` of its sigmas and
    by ``lean`` of them a unit of the statistic."""
    rng = np.random.default_rng(seed)
    draws, truth = np.zeros((n, k), RESULT_DTYPE), np.zeros(n, RESULT_DTYPE)
    for name in RESULT_DTYPE.names[:-1]:
        sigma = 0.05 * np.exp(rng.normal(0, 0.7, n))
        centre = rng.normal(0, 0.5, n)
        off = (shift + lean * centre)[:, None] + width * rng.standard_normal((n, k))
        values = centre[:, None] + sigma[:, None] * off
        true = centre + sigma * rng.standard_normal(n)
        scales = name in LOGARITHMIC or name == "sn_per_pixel"
        factor = unit if name == "flux_njy" else 1.0
        draws[name] = factor * np.exp(values) if scales else values
        truth[name] = factor * np.exp(true) if scales else true
    return summarise(draws), truth


@pytest.fixture(scope="module")
def table():
    return fit_calibration(*galaxies(2000, 1), TARGET)


def test_the_draws_of_the_test_are_wrong_and_calibration_mends_them_on_new_galaxies(table):
    found, truth = galaxies(2000, 2)
    columns = calibrated(found, table, TARGET)
    for name in CALIBRATED:  # the galaxies of the fit and these are as many: sqrt(2) of the error of one
        value, error = share(within(columns, name, ("p16", "p84"), truth[name]))
        assert abs(value - 0.6827) < 4 * np.sqrt(2) * error, name
        below, error = share((truth[name] < columns[f"{name}_p50"]).astype(float))
        assert abs(below - 0.5) < 4 * np.sqrt(2) * error, name
        raw, error = share(within(found, name, ("raw16", "raw84"), truth[name]))
        assert raw < 0.6827 - 10 * error, name
        assert table["quantities"][name]["draws_coverage"][0] == pytest.approx(raw, abs=6 * error)


def test_errors_follow_the_spread_of_the_draws(table):
    """Sharp and vague galaxies are each covered: one width for all would cover one kind too often."""
    found, truth = galaxies(4000, 3)
    columns = calibrated(found, table, TARGET)
    spread = found["gini_raw84"] - found["gini_raw16"]
    inside = within(columns, "gini", ("p16", "p84"), truth["gini"])
    for part in (spread < np.quantile(spread, 0.25), spread > np.quantile(spread, 0.75)):
        value, error = share(inside[part])
        assert abs(value - 0.6827) < 4 * np.sqrt(1.5) * error


def test_draws_that_are_wide_for_an_error_of_the_psf_are_never_made_narrower_nor_moved(table):
    found, _ = galaxies(300, 3, width=1.5)
    numbers = {q: t | {"error": [-2.5, 0.2, *t["error"][2:]]} for q, t in table["quantities"].items()}
    flat = table | {"quantities": numbers}  # errors that hardly follow the spread
    some = np.arange(300) < 200
    alone, held = calibrated(found, flat, TARGET), calibrated(found, flat, TARGET, psf_in_error=some)
    for name in set(CALIBRATED) - {"mag_ab"}:
        scale = np.log if name in LOGARITHMIC else np.asarray
        low, middle, high = (scale(held[f"{name}_{p}"])[some] for p in INTERVAL)
        own = [scale(found[f"{name}_{p}"])[some] for p in ("raw16", "raw50", "raw84")]
        assert (middle - low > 1.1 * (own[1] - own[0]) - 1e-9).all(), name
        assert (high - middle > 1.1 * (own[2] - own[1]) - 1e-9).all(), name
        np.testing.assert_allclose(middle, own[1], atol=1e-12)
        of_alone = scale(alone[f"{name}_p50"])[some] - scale(alone[f"{name}_p16"])[some]
        assert (middle - low > 1.01 * of_alone).mean() > 0.2, name
        assert (middle - low > of_alone - 1e-9).all(), name
        for level in INTERVAL:
            key = f"{name}_{level}"
            np.testing.assert_array_equal(held[key][~some], alone[key][~some])


def test_brighter_sources_than_any_of_the_validation_are_reached_where_their_psf_is_in_error(table):
    found, _ = galaxies(300, 3)
    known = reached(found, table, TARGET)
    brighter = found | {"sn_per_pixel_raw50": found["sn_per_pixel_raw50"] * 1e4}
    assert not reached(brighter, table, TARGET).any()
    assert (reached(brighter, table, TARGET, psf_in_error=True) >= known).all()
    fainter = found | {"sn_per_pixel_raw50": found["sn_per_pixel_raw50"] / 1e4}
    assert not reached(fainter, table, TARGET, psf_in_error=True).any()
    columns = calibrated(brighter, table, TARGET, psf_in_error=True)
    halves = [columns[f"gini_{p}"] - columns["gini_p50"] for p in ("p16", "p84")]
    raw = found["gini_raw84"] - found["gini_raw16"]
    assert known.mean() > 0.95 and (halves[1] - halves[0] > 1.1 * raw - 1e-9).all()


def test_draws_off_where_the_statistic_is_small_are_mended_there():
    """Draws of symmetric galaxies are too asymmetric, those of asymmetric ones are not."""
    off = {"width": 1.0, "lean": -2.0}
    found, truth = galaxies(4000, 8, **off)
    columns = calibrated(found, fit_calibration(*galaxies(2000, 7, **off), TARGET), TARGET)
    inside = within(columns, "asymmetry", ("p16", "p84"), truth["asymmetry"])
    below = np.where(np.isnan(inside), np.nan, truth["asymmetry"] < columns["asymmetry_p50"])
    median = found["asymmetry_raw50"]
    for part in (median < np.quantile(median, 0.25), median > np.quantile(median, 0.75)):
        for shares, claimed in ((below, 0.5), (inside, 0.6827)):
            value, error = share(shares[part])
            assert abs(value - claimed) < 4 * np.sqrt(1.5) * error


def test_the_unit_of_the_flux_does_not_matter(table):
    """A table fitted in nJy serves a survey in any scale of brightness."""
    one, other = (calibrated(galaxies(50, 4, unit=u)[0], table, TARGET) for u in (1.0, 1e6))
    np.testing.assert_allclose(other["flux_njy_p84"], 1e6 * one["flux_njy_p84"], rtol=1e-9)
    np.testing.assert_array_equal(other["gini_p84"], one["gini_p84"])


def test_what_was_not_validated_keeps_the_interval_of_the_draws(table):
    found, _ = galaxies(300, 5)
    assert not reached(found, None, TARGET).any() and not reached(found, table, TARGET, 3).any()
    columns = calibrated(found, None, TARGET)
    assert all(np.array_equal(columns[f"{q}_{p}"], found[f"{q}_{p}"]) for q in CALIBRATED for p in INTERVAL)
    found["sn_per_pixel_raw50"][0] = 1e6
    found["n_draws_measured"][1] = 1
    found["r50_raw50"][2] = np.nan
    known = reached(found, table, TARGET)
    assert not known[:3].any() and known[3:].mean() > 0.95
    columns = calibrated(found, table, TARGET)
    for name in CALIBRATED:
        same = columns[f"{name}_p84"] == found[f"{name}_p84"]
        assert same[~known].all() and not same[known].any()


def test_magnitudes_follow_from_the_flux(table):
    found, _ = galaxies(50, 5)
    columns = calibrated(found, table, TARGET)
    np.testing.assert_allclose(columns["mag_ab_p16"], 31.4 - 2.5 * np.log10(columns["flux_njy_p84"]))
    assert (columns["mag_ab_p16"] < columns["mag_ab_p50"]).all()


def test_draws_that_agree_exactly_still_have_an_error(table):
    found, _ = galaxies(100, 6)
    for level in ("raw16", "raw84"):
        found[f"gini_{level}"][:] = found["gini_p50"]
    columns = calibrated(found, table, TARGET)
    known = np.isfinite(columns["gini_p50"])
    assert known.any() and (columns["gini_p84"] > columns["gini_p16"])[known].all()


def test_modes_are_kept_side_by_side_and_only_for_the_same_weights(tmp_path, table):
    path = tmp_path / CALIBRATION
    write_calibration(path, "default", table, "a" * 64)
    write_calibration(path, "fast", table, "a" * 64)
    assert set(json.loads(path.read_text())["modes"]) == {"default", "fast"}
    write_calibration(path, "fast", table, "b" * 64)
    assert set(json.loads(path.read_text())["modes"]) == {"fast"}


def test_a_calibration_of_other_weights_or_none_is_refused(tmp_path):
    card = load_prior(device="cpu", backend="eager").card
    assert load_calibration(tmp_path, card) == {}
    (tmp_path / CALIBRATION).write_text(json.dumps({"sha256": "0" * 64, "modes": {}}))
    with pytest.raises(ModelError, match=r"made for weights 000000000000.*calibrate"):
        load_calibration(tmp_path, card)
    (tmp_path / CALIBRATION).write_text("{")
    with pytest.raises(ModelError, match="not a calibration"):
        load_calibration(tmp_path, card)


def test_a_table_of_other_steps_is_refused(tmp_path, table):
    """Of a version of galbatch whose modes took other steps: its intervals would hold another share."""
    card, path = load_prior(device="cpu", backend="eager").card, tmp_path / CALIBRATION
    write_calibration(path, "default", table, card.sha256)
    assert "default" in load_calibration(tmp_path, card)
    found = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in found.items() if k != "steps"}))
    with pytest.raises(ModelError, match=r"made by another version of galbatch.*model calibrate"):
        load_calibration(tmp_path, card)
    write_calibration(path, "fast", table, card.sha256)
    assert set(load_calibration(tmp_path, card)) == {"fast"}


@pytest.mark.parametrize(
    ("model", "mode"),
    [("small", "fast"), ("small", "default"), ("small", "accurate"), ("base", "default")],
)
def test_the_shipped_models_are_calibrated_in_their_modes(model, mode):
    folder = model_folder(model)
    numbers = load_calibration(folder, Card.load(folder / "card.json"))[mode]
    assert numbers["galaxies"] >= 128 and set(numbers["quantities"]) == set(CALIBRATED)
    for name, about in numbers["quantities"].items():
        value, error = about["coverage"]
        assert abs(value - 0.6827) < 0.05 + 2 * error, name


def test_command_writes_the_table_beside_the_weights_and_runs_find_it(tmp_path, table, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    (folder / CALIBRATION).unlink(missing_ok=True)
    asked = {}

    def calibrate(prior, galaxies, draws, mode, progress):
        asked.update(galaxies=galaxies, draws=draws, mode=mode)
        progress(galaxies, galaxies)
        return {"galaxies": galaxies, "draws": draws, **table}

    monkeypatch.setattr("galbatch.validate.calibrate.calibrate", calibrate)
    result = CliRunner().invoke(cli, ["model", "calibrate", str(folder), "-n", "64", "--mode", "fast"])
    assert result.exit_code == 0, result.output
    assert asked == {"galaxies": 64, "draws": 16, "mode": "fast"}
    assert "gini " in result.output and str(folder / CALIBRATION) in result.output.replace("\n", "")
    assert load_prior(folder, device="cpu", backend="eager").calibration == {
        "fast": {"galaxies": 64, "draws": 16, **table}
    }


def test_mocks_are_measured_with_the_truth_as_one_more_draw():
    prior = load_prior(device="cpu")
    mocks = make_mocks(prior, 2, seed=SEED, sn_range=(30.0, 60.0))
    found, truth = measure_mocks(prior, mocks, 8, "fast")
    alone, _ = measure_mocks(prior, make_mocks(prior, 2, seed=SEED, sn_range=(30.0, 60.0)), 8, "fast")
    assert found["n_draws_measured"].tolist() == [8, 8]
    np.testing.assert_array_equal(found["gini_raw50"], alone["gini_raw50"])
    expected = measure(mocks.image, 0.03, sky_sigma=0.0)  # its own segment and limits: near, not the same
    np.testing.assert_allclose(truth["r50"], expected["r50"], rtol=0.03)
    np.testing.assert_allclose(found["flux_njy_raw50"], truth["flux_njy"], rtol=0.1)


def test_calibration_is_fitted_under_both_kinds_of_noise_on_different_galaxies(monkeypatch):
    """With white noise alone, p16 to p84 of the flux held 46% of the truths under correlated noise."""
    asked = []

    def make(prior, n, seed, correlated=False):
        asked.append((n, seed, correlated))
        return SimpleNamespace(n=n, obs=SimpleNamespace(pixel_scale_arcsec=0.03))

    def measure(prior, mocks, draws, mode, progress=None):
        return {"snr": np.ones(mocks.n)}, np.arange(mocks.n)

    monkeypatch.setattr(calibrate_module, "make_mocks", make)
    monkeypatch.setattr(calibrate_module, "measure_mocks", measure)
    fit = lambda found, truth, target: {"n": len(found["snr"])}  # noqa: E731
    monkeypatch.setattr(calibrate_module, "fit_calibration", fit)
    prior = SimpleNamespace(denoise=lambda x, sigma: x, target_fwhm_pix=2.0)
    table = calibrate_module.calibrate(prior, 65, 16, "fast")
    assert table == {"galaxies": 65, "draws": 16, "n": 65}
    assert sorted(n for n, _, _ in asked) == [32, 33] and [c for _, _, c in asked] == [False, True]
    assert len({seed for _, seed, _ in asked}) == 2


def test_noise_of_detector_pixels_says_less_of_fine_ones(table):
    """Two fine pixels a side: calibrated as a source of half the S/N, and so not beyond the range of half."""
    found, _ = galaxies(300, 9)
    half = found | {"sn_per_pixel_raw50": found["sn_per_pixel_raw50"] / 2}
    fine, coarse = calibrated(found, table, TARGET, 2), calibrated(half, table, TARGET)
    assert all(np.array_equal(fine[name], coarse[name], equal_nan=True) for name in fine)
    np.testing.assert_array_equal(reached(found, table, TARGET, 2), reached(half, table, TARGET))
