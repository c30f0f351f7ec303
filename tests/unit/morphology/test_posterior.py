"""Draws: what is fixed once per source, positions and radii on both grids, and how draws relate to the
observation."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from galbatch.errors import InputError
from galbatch.morphology import MorphFlag, measure_posterior, summarise
from galbatch.morphology.sersic_psf import psf_on_grid

H = 48
SIGMA = 0.3
FACTORS = 1 + 0.02 * np.array([[-2.0, -1, 0, 0.5, 1, 2], [-1, 1, 0, 3, -3, 0.2]])[..., None, None]


def scene(oversample=1):
    """Galaxy (H o, H o) in flux per fine pixel, centred at detector position (22.0, 24.5)."""
    n = H * oversample
    y, x = (np.mgrid[:n, :n] + 0.5) / oversample - 0.5
    return 30 * np.exp(-np.hypot(x - 22.0, (y - 24.5) * 1.3) / 3) / oversample**2


def observe(truth, oversample=1, b=2, seed=0):
    rng = np.random.default_rng(seed)
    seen = truth.reshape(H, oversample, H, oversample).sum(axis=(1, 3))
    seen = gaussian_filter(seen, 1.3)
    return (seen + rng.normal(0, SIGMA, (b, H, H))).astype(np.float32), np.full((b, H, H), SIGMA, np.float32)


@pytest.fixture(scope="module")
def measured():
    truth = gaussian_filter(scene(), 0.85)
    data, sigma = observe(scene())
    draws = truth * FACTORS
    seg = (truth > 0.3).astype(np.int32)[None].repeat(2, 0)
    return measure_posterior(draws, data, sigma, None, seg, None, 0.05, 1, 2.0)


def test_draws_are_sharper_and_free_of_sky(measured):
    draws, obs = measured
    assert (draws["r_half"].mean(1) < obs["r_half"]).all()
    assert np.isnan(draws["sky_sigma"]).all() and (obs["sky_sigma"] > 0).all()
    assert draws["smoothness"].std() < 0.02


def test_flux_follows_the_draws(measured):
    draws, _ = measured
    columns = summarise(draws)
    factors = FACTORS[..., 0, 0]
    np.testing.assert_allclose(
        draws["flux_njy"] / draws["flux_njy"][:, 2:3], factors / factors[:, 2:3], rtol=1e-4
    )
    np.testing.assert_allclose(
        columns["flux_njy_std"] / columns["flux_njy_mean"], factors.std(1) / factors.mean(1), rtol=1e-3
    )
    assert (columns["gini_std"] < 1e-3).all()


def test_oversampled_draws_have_the_same_numbers():
    results = []
    for oversample in (1, 2):
        truth = gaussian_filter(scene(oversample), 0.85 * oversample)
        data, sigma = observe(scene(oversample), oversample)
        seg = (observe(scene(), 1, seed=5)[0] > 1.5).astype(np.int32)
        draws, obs = measure_posterior(
            truth[None, None].repeat(2, 0), data, sigma, None, seg, None, 0.05, oversample, 2.0 * oversample
        )
        results.append((draws[0, 0], obs[0]))
    one, two = results[0][0], results[1][0]
    for name in ("flux_njy", "r_half", "r_petro", "r20", "r80", "sersic_r_e"):
        assert two[name] == pytest.approx(one[name], rel=0.06), name
    for name, value in (
        ("xc_centroid", 22.0),
        ("yc_centroid", 24.5),
        ("sersic_xc", 22.0),
        ("sersic_yc", 24.5),
    ):
        assert one[name] == pytest.approx(value, abs=0.06) and two[name] == pytest.approx(value, abs=0.06)
    assert two["concentration"] == pytest.approx(one["concentration"], abs=0.08)
    assert two["sersic_amplitude"] == pytest.approx(one["sersic_amplitude"], rel=0.05)


def test_missing_segment_comes_from_the_posterior_mean():
    truth = gaussian_filter(scene(), 0.85)
    data, sigma = observe(scene())
    seg = np.zeros((2, H, H), np.int32)
    seg[:, :4, :4] = 2
    draws, obs = measure_posterior(truth[None, None].repeat(2, 0), data, sigma, None, seg, None, 0.05)
    assert not (draws["flags"] & int(MorphFlag.NO_SEGMENT)).any() and np.isfinite(obs["gini"]).all()
    assert seg.max() == 2 and not (seg == 1).any()


def test_masked_detector_pixels_hide_nothing_from_draws():
    truth = gaussian_filter(scene(), 0.85)
    data, sigma = observe(scene())
    mask = np.zeros((2, H, H), bool)
    mask[1, 23:26, 20:24] = True
    data[1, 23:26, 20:24] = np.nan
    sigma[1, 23:26, 20:24] = np.inf
    seg = (truth > 0.3).astype(np.int32)[None].repeat(2, 0)
    draws, obs = measure_posterior(truth[None, None].repeat(2, 0), data, sigma, mask, seg, None, 0.05)
    assert draws["gini"][0, 0] == draws["gini"][1, 0]
    assert int(obs["flags"][1]) & int(MorphFlag.CENTROID_MASKED)
    assert not int(obs["flags"][0]) & int(MorphFlag.CENTROID_MASKED)


def test_neighbours_are_excluded_from_draws_too():
    truth = gaussian_filter(scene(), 0.85)
    spoiled = truth.copy()
    spoiled[4:8, 40:44] += 50
    data, sigma = observe(scene())
    seg = (truth > 0.3).astype(np.int32)[None].repeat(2, 0)
    seg[:, 4:8, 40:44] = 2
    draws, _ = measure_posterior(np.stack([truth, spoiled])[:, None], data, sigma, None, seg, None, 0.05)
    assert draws["flux_njy"][0, 0] == pytest.approx(draws["flux_njy"][1, 0])


def test_psf_is_taken_out_of_the_observed_sersic_fit():
    truth = scene()
    data, sigma = observe(truth)
    seg = (truth > 0.3).astype(np.int32)[None].repeat(2, 0)
    y, x = np.mgrid[-10:11, -10:11]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))[None].repeat(2, 0)
    draws = gaussian_filter(truth, 0.85)[None, None].repeat(2, 0)
    with_psf = measure_posterior(draws, data, sigma, None, seg, psf, 0.05)
    without = measure_posterior(draws, data, sigma, None, seg, None, 0.05)
    true_n = 1.0
    assert (np.abs(with_psf[1]["sersic_n"] - true_n) < 0.12).all()
    assert (without[1]["sersic_n"] < with_psf[1]["sersic_n"]).all()
    np.testing.assert_allclose(with_psf[0]["sersic_r_e"][:, 0], with_psf[1]["sersic_r_e"], rtol=0.05)


@pytest.mark.parametrize("size", [40, 41])
@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.5, 2.0, 3.0, 4.0])
def test_psf_is_brought_to_the_pixels_with_its_centre_and_width(size, ratio):
    x = np.arange(size) - (size - 1) / 2
    psf = np.exp(-(x[:, None] ** 2 + x**2) / (2 * 4.0**2))[None]
    out = psf_on_grid(psf, 0.03 / ratio, 0.03)[0]
    at = np.arange(len(out)) - (len(out) - 1) / 2
    profile = out.sum(axis=0) / out.sum()
    assert profile @ at == pytest.approx(0, abs=1e-6)
    variance = (4.0 / ratio) ** 2 + (1 / 12 if ratio > 1 else 0)  # summing adds the variance of a pixel
    assert profile @ at**2 == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize(("samples", "sigma", "oversample", "match"), [
    (np.zeros((2, H, H)), np.ones((2, H, H)), 1, "samples"),
    (np.zeros((2, 3, H, H)), np.ones((2, H, 3)), 1, "sigma"),
    (np.zeros((2, 3, H, H)), np.ones((2, H, H)), 2, "oversample"),
])  # fmt: skip
def test_bad_calls_say_what_is_wrong(samples, sigma, oversample, match):
    with pytest.raises(InputError, match=match):
        measure_posterior(samples, np.zeros((2, H, H)), sigma, oversample=oversample)
