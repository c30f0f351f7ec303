"""The calibration of bands that are sampled together, and of colours."""

import dataclasses
import json

import numpy as np
import pytest
from toys import JointRedPrior

import galbatch.validate.joint as joint
from galbatch.errors import ModelError
from galbatch.interfaces import PriorSpec
from galbatch.pipeline.colour import calibrated_colour
from galbatch.prior import load_prior
from galbatch.prior.folder import CALIBRATION, load_calibration
from galbatch.sampler.prior import as_denoiser
from galbatch.validate.calibrate import write_calibration


def test_a_mock_has_one_galaxy_in_two_four_or_seven_bands_with_wider_psfs_in_redder_ones():
    spec = as_denoiser(JointRedPrior()).spec
    for number, bands in ((0, 2), (1, 4), (2, 7)):
        mocks, waves = joint.joint_mock(spec, number)
        assert mocks.image.shape == (bands, joint.STAMP, joint.STAMP) and (np.diff(waves) > 0).all()
        assert (np.diff(mocks.fwhm_pix) >= 0).all()
        alike = [np.corrcoef(mocks.image[0].ravel(), other.ravel())[0, 1] for other in mocks.image[1:]]
        assert min(alike) > 0.5, "the bands show the same galaxy"
        obs = joint.together(mocks.obs)
        assert obs.data.shape == (1, bands, joint.STAMP, joint.STAMP)
        np.testing.assert_array_equal(obs.data[0], mocks.obs.data[:, 0])
        again, _ = joint.joint_mock(spec, number)
        np.testing.assert_array_equal(again.obs.data, mocks.obs.data)


def test_what_is_kept_is_not_made_again(tmp_path):
    made = []

    def make():
        made.append(1)
        truth = np.zeros(2, [("r50", "f8")])
        return {"found": {"r50_raw50": np.arange(2.0)}, "truth": truth, "light": np.ones((3, 5, 2))}

    first, second = (joint._kept(tmp_path / "k" / "one.npz", make) for _ in range(2))
    assert len(made) == 1 and second["truth"].dtype.names == ("r50",)
    np.testing.assert_array_equal(first["found"]["r50_raw50"], second["found"]["r50_raw50"])


def galaxies(n, width, k=16, seed=0):
    """Light (3, k + 1, 3) of ``n`` galaxies whose draws scatter ``width`` times as far as the truth."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        sd = np.exp(rng.uniform(-4, -1))
        middle = rng.normal(0, sd, (3, 1, 3))
        scatter = np.concatenate([width * rng.normal(0, sd, (3, k, 3)), rng.normal(0, sd, (3, 1, 3))], 1)
        yield 100 * np.exp(middle + scatter)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_colours_hold_what_they_promise_whatever_the_width_of_draws(width):
    found = joint.fit_colours(list(galaxies(300, width)))
    assert set(found) == {"color", "color_gradient"}
    for numbers in found.values():
        value, error = numbers["coverage"]
        assert abs(value - 0.6827) < 4 * error and error < 0.03
        assert numbers["error"][1] == pytest.approx(1.0, abs=0.2), "the error follows the draws' scatter"
    raw = found["color"]["draws_coverage"][0]
    assert (raw < 0.55) == (width < 1) and (raw > 0.75) == (width > 1)
    inside = []
    for light in galaxies(300, width, seed=1):
        magnitudes = -2.5 * np.log10(light[0])
        colour = magnitudes[:, 0] - magnitudes[:, 1]
        low, _, high = calibrated_colour(colour[:-1], found["color"])
        inside.append(low <= colour[-1] <= high)
    assert np.mean(inside) == pytest.approx(0.6827, abs=4 * 0.5 / 300**0.5)


def test_fewer_draws_make_wider_intervals_of_colours():
    numbers = {"draws": 16, "error": [0.0, 1.0], "z": [-1.0, 0.0, 1.0]}
    draws = np.linspace(-1, 1, 16)
    few, many = (
        np.ptp(calibrated_colour(d, numbers)) / np.ptp(np.percentile(d, [16, 84]))
        for d in (draws[::4], draws)
    )
    assert few > 1.2 * many


def test_a_table_reaches_no_more_bands_than_it_was_made_with():
    one, four = {"draws": 16}, {"draws": 16, "bands": 4}
    spec = PriorSpec(calibration={"fast": one, "fast joint": four, "default": one})
    assert spec.calibration_of("fast") is one and spec.calibration_of("fast", 3) is four
    assert not spec.calibration_of("fast", 5) and not spec.calibration_of("default", 2)
    assert load_prior("small").spec.calibration_of("default", 7)["bands"] == 7 == max(joint.BANDS)


def test_a_table_of_other_joint_weights_is_refused_and_replaced(tmp_path):
    card = dataclasses.make_dataclass("Card", ["sha256", "joint_sha256"])("a", "new")
    numbers = {"gini": {"place": [0, 1], "error": [0] * 5, "slope": 0, "z": [-1, 0, 1]}}
    table = {"galaxies": 64, "draws": 16, "range": [[0, 1], [0, 1]], "quantities": numbers}
    write_calibration(tmp_path / CALIBRATION, "fast", table, "a")
    write_calibration(tmp_path / CALIBRATION, "fast joint", {**table, "joint_sha256": "old"}, "a")
    with pytest.raises(ModelError, match="fast joint was calibrated with other joint weights"):
        load_calibration(tmp_path, card)
    write_calibration(tmp_path / CALIBRATION, "default joint", {**table, "joint_sha256": "new"}, "a")
    assert set(load_calibration(tmp_path, card)) == {"fast", "default joint"}
    assert set(json.loads((tmp_path / CALIBRATION).read_text())["modes"]) == {"fast", "default joint"}
