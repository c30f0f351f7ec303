"""Measured noise: known scales and correlations are found again, on simulated and on real mosaics."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cutouts_field import NX, NY, add_galaxy, noise_field, simple_survey, sources, wcs_of
from scipy import ndimage, signal

from galbatch.cutouts import open_survey
from galbatch.cutouts.check.planes import check_noise
from galbatch.cutouts.noise.measure import _spectrum, autocorrelation, positive_definite
from galbatch.cutouts.noise.variance import scale_sky, variance
from galbatch.cutouts.raw import input_size, resample_acf, resample_stamps
from galbatch.errors import InputError
from galbatch.types import Flag

MEASURE = 'err_scale = "measure"\nnoise_acf = "measure"'


def correlated(seed=0, ny=500, nx=500, width=0.45):
    """White noise smoothed as drizzling does, unit variance, and its exact autocorrelation (7, 7)."""
    kernel = ndimage.gaussian_filter(np.pad([[1.0]], 8), width)
    kernel /= np.sqrt((kernel**2).sum())
    noise = ndimage.convolve(np.random.default_rng(seed).normal(size=(ny, nx)), kernel, mode="wrap")
    acf = ndimage.correlate(np.pad(kernel, 8), kernel, mode="constant")
    middle = acf.shape[0] // 2
    return noise, acf[middle - 3 : middle + 4, middle - 3 : middle + 4]


def mosaic(seed=0, sigma=0.4, galaxies=40, **size):
    noise, acf = correlated(seed, **size)
    image = (noise * sigma).astype("f4")
    rng = np.random.default_rng(seed + 1)
    for _ in range(galaxies):
        add_galaxy(image, *rng.uniform(20, 480, 2), flux=rng.uniform(20, 600), fwhm=rng.uniform(3, 12))
    return image, acf


@pytest.mark.parametrize("galaxies", [0, 40])
def test_scale_and_correlation_are_found_among_galaxies(tmp_path, galaxies):
    image, acf = mosaic(galaxies=galaxies)
    survey = open_survey(simple_survey(tmp_path, image, np.full(image.shape, 1.0, "f4"), MEASURE))
    entry = survey.measure_noise()["f200w"]["0"]
    assert entry["err_scale"] == pytest.approx(0.4, rel=0.03)
    assert not entry["local"]
    np.testing.assert_allclose(entry["noise_acf"], acf, atol=0.03)
    stamps = survey.cut(sources([250], [250], wcs_of(500, 500)), 32).bands[0]
    assert np.median(stamps.sigma[np.isfinite(stamps.sigma)]) == pytest.approx(entry["err_scale"])
    np.testing.assert_allclose(stamps.noise_acf, entry["noise_acf"], atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_light_that_varies_slowly_is_no_noise(tmp_path, seed):
    """Wings of a galaxy that fills its tile, too faint and too many to be detected."""
    noise, acf = correlated(seed, ny=101, nx=101)
    light = ndimage.gaussian_filter(np.random.default_rng(seed + 9).normal(size=noise.shape), 6.0)
    image = (0.4 * (noise + 0.5 * light / light.std())).astype("f4")
    survey = open_survey(simple_survey(tmp_path, image, np.full(image.shape, 0.4, "f4"), MEASURE))
    entry = survey.measure_noise()["f200w"]["0"]
    assert entry["err_scale"] == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(entry["noise_acf"], acf, atol=0.06)


def test_measured_once_and_restored(tmp_path, monkeypatch):
    image, _ = mosaic()
    path = simple_survey(tmp_path, image, extra=MEASURE)
    measured = json.loads(json.dumps(open_survey(path).measure_noise()))
    monkeypatch.setattr(
        "galbatch.cutouts.survey.files.measure_tile", lambda tile: pytest.fail("measured again")
    )
    survey = open_survey(path, measured=measured)
    assert survey.measure_noise() == measured
    assert survey.err_scale("f200w", "0") == measured["f200w"]["0"]["err_scale"]


def test_a_constant_map_over_varying_depth_is_scaled_around_each_source(tmp_path):
    image, _ = mosaic(galaxies=0)
    image[:, 250:] *= 1.5
    survey = open_survey(simple_survey(tmp_path, image, np.full(image.shape, 1.0, "f4"), MEASURE))
    assert survey.measure_noise()["f200w"]["0"]["local"]
    sigma = np.median(
        survey.cut(sources([110, 390], [250, 250], wcs_of(500, 500)), 32).bands[0].sigma, axis=(1, 2)
    )
    np.testing.assert_allclose(sigma, [0.4, 0.6], rtol=0.04)


@pytest.mark.parametrize("around", [1.0, 1.5])
def test_noise_of_one_place_is_its_own(tmp_path, around):
    """One block of 160 pixels in a mosaic of uniform noise: too little for the spread of the whole."""
    image, _ = mosaic(galaxies=0, ny=1000, nx=1000)
    block = np.s_[420:580, 420:580]
    image[block] *= around
    survey = open_survey(simple_survey(tmp_path, image, np.full(image.shape, 1.0, "f4"), MEASURE))
    whole = survey.measure_noise()["f200w"]["0"]
    assert not whole["local"]
    for size in (32, 128):
        stamps = survey.cut(sources([200, 500], [200, 500], wcs_of(1000, 1000)), size).bands[0]
        np.testing.assert_array_equal(
            stamps.columns["err_scale"], np.nanmedian(np.where(stamps.mask, np.nan, stamps.sigma), (1, 2))
        )
        far, near = stamps.columns["err_scale"]
        assert far == np.float32(whole["err_scale"])  # a difference within chance changes nothing
        assert near == (far if around == 1 else pytest.approx(0.6, rel=0.04))


def test_wings_of_a_bright_galaxy_are_no_noise_around_it(tmp_path):
    """Of S/N 10,000: they reach as far as the stamp, beyond what counts as a source."""
    image, _ = mosaic(galaxies=0)
    y, x = np.mgrid[:500, :500] - 250
    image += (600 / (1 + (y**2 + x**2) / 16)).astype("f4")
    survey = open_survey(simple_survey(tmp_path, image, np.full(image.shape, 1.0, "f4"), MEASURE))
    stamps = survey.cut(sources([250], [250], wcs_of(500, 500)), 128).bands[0]
    assert stamps.columns["err_scale"][0] == pytest.approx(0.4, rel=0.08)


def test_too_few_blank_pixels_is_an_error_that_says_what_to_do(tmp_path):
    image, _ = mosaic()
    image[:, :480] = np.nan
    survey = open_survey(simple_survey(tmp_path, image[:80], extra=MEASURE))
    with pytest.raises(InputError, match=r"blank pixels in .*sci.fits.*Give err_scale as a number"):
        survey.measure_noise()
    batch = survey.cut(sources([490], [40], wcs_of(80, 500)), 16)
    assert batch.flags[0] and "blank pixels" in batch.failures[0].message


def test_autocorrelation_of_masked_noise_is_unbiased():
    noise, acf = correlated(5, 400, 400, 0.6)
    good = np.random.default_rng(0).random(noise.shape) > 0.3
    np.testing.assert_allclose(
        autocorrelation([(noise[:200], good[:200]), (noise[200:], good[200:])]), acf, atol=0.02
    )


def test_positive_definite():
    """A correlation that no noise can have becomes one that some noise has; a possible one stays as it is."""
    impossible = np.zeros((7, 7))
    impossible[3, 3], impossible[3, 2], impossible[3, 4] = 1, 0.8, 0.8
    assert _spectrum(impossible, 56).min() < -0.5
    fixed = positive_definite(impossible)
    assert _spectrum(fixed, 64).min() > 0 and fixed[3, 3] == pytest.approx(1)
    np.testing.assert_allclose(fixed, fixed[::-1, ::-1])
    _, possible = correlated()
    np.testing.assert_allclose(positive_definite(possible), possible, atol=2e-3)


def test_a_measured_scale_leaves_the_photon_noise_of_the_source_as_it_is():
    """By hand: sky variance 4, a square of light 100 with gain 5, so 4 + 20 there; measured scale 1/2."""
    sci = np.zeros((1, 20, 20), np.float32)
    sci[0, 8:12, 8:12] = 100.0
    var = 4.0 + sci / 5.0
    expected = np.full((20, 20), 1.0)
    expected[8:12, 8:12] = 0.25 * 4.0 + 20.0
    np.testing.assert_allclose(scale_sky(var, sci, 0.5)[0], expected, rtol=1e-12)
    expected[8:12, 8:12] = 9.0 * 4.0 + 20.0
    expected[expected == 1.0] = 36.0
    np.testing.assert_allclose(scale_sky(var, sci, np.full((1, 1, 1), 3.0))[0], expected, rtol=1e-12)


def test_a_map_cut_off_at_a_floor_still_has_the_photon_noise_that_its_light_asks_for():
    """True variance 1 + light / 5, the map is max(16, that): measured scale 1/4, and 16 hides the photons of
    light below 75."""
    light = np.zeros((20, 20), np.float32)
    light[2:12, 2:12], light[5:9, 5:9] = 30.0, 400.0
    true = 1.0 + light / 5.0
    out = scale_sky(np.maximum(16.0, true)[None].astype(float), light[None], 0.25)[0]
    assert out[0, 0] == 1.0
    # the brightest pixels say 65 / 400 a unit of light
    np.testing.assert_allclose(out[3, 3], true[3, 3], rtol=0.25)
    np.testing.assert_allclose(out[6, 6], true[6, 6], rtol=0.2)
    # nothing above the floor: the tile's value is used
    faint = np.where(light > 0, 40.0, 0.0)[None].astype(np.float32)
    faint_map = np.full(faint.shape, 16.0)
    assert scale_sky(faint_map, faint, 0.25)[0][6, 6] == 1.0
    assert scale_sky(faint_map, faint, 0.25, photon=0.2)[0][6, 6] == pytest.approx(9.0)


def test_shallower_sky_is_scaled_and_unknown_variance_stays_unknown():
    sci, var = np.zeros((2, 20, 20)), np.full((2, 20, 20), 4.0)
    var[0, :5], var[0, 19] = 16.0, np.inf
    var[1] = np.inf
    out = scale_sky(var, sci, 0.5)
    np.testing.assert_allclose(out[0, :5], 4.0)
    np.testing.assert_allclose(out[0, 5:19], 1.0)
    assert np.isinf(out[0, 19]).all() and np.isinf(out[1]).all()


def test_measured_scale_on_a_mosaic_with_photon_noise(tmp_path):
    """The map overstates the sky by two and holds the photon noise of one bright galaxy: chi of core and sky
    is 1."""
    rng = np.random.default_rng(3)
    truth = np.zeros((500, 500), np.float32)
    add_galaxy(truth, 250, 250, flux=20000.0, fwhm=8.0)
    true_var = 1.0 + truth / 2.0
    image = (truth + rng.normal(0, np.sqrt(true_var))).astype("f4")
    err = np.sqrt(4.0 + truth / 2.0).astype("f4")
    survey = open_survey(simple_survey(tmp_path, image, err, 'err_scale = "measure"\nnoise_acf = "none"'))
    stamp = survey.cut(sources([250], [250], wcs_of(500, 500)), 48).bands[0]
    ratio = stamp.sigma[0] ** 2 / true_var[250 - 24 : 274, 250 - 24 : 274]
    assert ratio.min() > 0.8 and ratio.max() < 1.35
    assert ratio[24, 24] == pytest.approx(1.0, abs=0.03)


def floor_of(tmp_path, image, setting, sigma=1.0):
    """The central stamp of an image cut with ``error_floor = setting``."""
    text = f'noise_acf = "none"\nerror_floor = {setting}'
    survey = open_survey(simple_survey(tmp_path, image, np.full(image.shape, sigma, "f4"), text))
    return survey.cut(sources([50], [50], wcs_of(100, 100)), 64).bands[0]


def test_an_error_floor_adds_a_white_fraction_of_the_light(tmp_path):
    image = np.zeros((100, 100), np.float32)
    image[40:60, 40:60] = 50.0
    stamp = floor_of(tmp_path, image, 0.1, sigma=2.0)
    assert stamp.sigma[0, 32, 32] == pytest.approx(np.sqrt(4.0 + 25.0), rel=1e-6)
    assert stamp.sigma_white[0, 32, 32] == pytest.approx(5.0, rel=1e-6)
    assert stamp.sigma[0, 2, 2] == pytest.approx(2.0, rel=1e-6) and stamp.sigma_white[0, 2, 2] == 0
    assert stamp.columns["error_floor"][0] == pytest.approx(0.1)


@pytest.mark.parametrize("error", [0.0, 0.05, 0.2])
def test_an_error_floor_is_measured_where_no_light_of_the_source_can_be(tmp_path, error):
    """Galaxies of S/N 300 blurred by the PSF, with errors in proportion to the local change of their
    light."""
    ratios = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        truth = np.zeros((100, 100), np.float64)
        add_galaxy(truth, 50, 50, flux=30000.0 * (1 + seed), fwhm=6.0 + seed)
        change = ndimage.generic_filter(truth, np.std, 3)
        image = truth + error * change * rng.standard_normal(truth.shape) + rng.standard_normal(truth.shape)
        stamp = floor_of(tmp_path, image.astype("f4"), '"measure"')
        bright = truth[18:82, 18:82] > 20
        ratios.append(stamp.sigma_white[0][bright].mean() / change[18:82, 18:82][bright].mean())
        told = np.sqrt((stamp.sigma_white[0][bright] ** 2).sum() / (truth[18:82, 18:82][bright] ** 2).sum())
        assert stamp.columns["error_floor"][0] == pytest.approx(told, rel=0.1, abs=1e-4)
    assert np.mean(ratios) == pytest.approx(error, rel=0.15, abs=0.005), ratios


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_of_a_detector_with_pixels_of_three_of_the_mosaic(tmp_path, seed):
    """Euclid's near infrared at 0.1 arcsec: the error of a sum over an aperture is that of the sky."""
    coarse, places = np.random.default_rng(seed).normal(size=(112, 112)), np.mgrid[:330, :330] / 3
    image = (0.4 * ndimage.map_coordinates(coarse, places, order=1)).astype("f4")
    survey = open_survey(simple_survey(tmp_path, image, np.full(image.shape, 1.0, "f4"), MEASURE))
    entry = survey.measure_noise()["f200w"]["0"]
    aperture = (np.hypot(*np.mgrid[-6:7, -6:7]) <= 6).astype(float)
    pairs, acf = signal.fftconvolve(aperture, aperture), np.array(entry["noise_acf"])
    reach, middle = len(acf) // 2, len(pairs) // 2
    pairs = pairs[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    found = entry["err_scale"] * np.sqrt((acf * pairs).sum())
    true = ndimage.convolve(image.astype(float), aperture)[10:-10, 10:-10].std()
    assert found == pytest.approx(true, rel=0.2)  # 4% by chance; peaks taken for sources lower it by some 12%


def test_tiles_may_differ_in_the_reach_of_their_correlation(tmp_path):
    blank = np.zeros((300, 260), "f4")
    survey = open_survey(simple_survey(tmp_path, blank, blank + 1, MEASURE))
    tile = survey.usable_tiles("f200w")[0]
    survey.usable_tiles = lambda band: [tile, replace(tile, name="1")]
    survey.measured_tile = lambda band, name: {
        "0": {"noise_acf": [[1.0]], "n_blank": 3000},
        "1": {"noise_acf": np.full((3, 3), 0.6) + 0.4 * np.pad([[1.0]], 1), "n_blank": 1000},
    }[name]
    acf = survey.noise_acf("f200w")
    assert acf.shape == (3, 3) and acf[1, 1] == 1 and acf[0, 0] == pytest.approx(0.15)


@pytest.mark.parametrize("width", [None, 0.6])
def test_noise_of_a_resampled_band(width):
    """Scatter and correlation of resampled noise, white or correlated, are as predicted."""
    if width is None:
        noise, acf = np.random.default_rng(1).normal(size=(500, 500)), None
    else:
        noise, acf = correlated(7, 500, 500, width)
    step, n = 1.3, 340
    side = input_size(n, step)
    block = noise[None, :side, :side]
    out, var, bad = resample_stamps(block, np.ones_like(block), np.zeros(block.shape, bool), n, n, step)
    expected, factor = resample_acf(acf, step)
    assert (factor == pytest.approx(1)) == (width is None)
    assert np.mean(out**2) / np.mean(var) == pytest.approx(factor, rel=0.03)
    np.testing.assert_allclose(autocorrelation([(out[0] / out.std(), ~bad[0])]), expected, atol=0.02)
    assert expected[3, 4] > (0.1 if width is None else 0.3)


def test_without_an_error_map_blank_sky_gives_one_sigma(tmp_path):
    """As if a true and uniform map were given, with the flag that photon noise is missing."""
    sci = noise_field(sigma=0.7)
    path = simple_survey(tmp_path, sci=sci)
    path.write_text(path.read_text().replace('"err.fits"', '"measure"').replace("err_scale = 1.0", ""))
    (tmp_path / "err.fits").unlink()
    survey = open_survey(path)
    assert not [f for f in survey.check() if f.level == "error"]
    rows = sources([100.0], [150.0])
    batch = survey.cut(rows, 32)
    n = NY * NX  # standard error of 1.4826 MAD: 1.17 sigma / sqrt(n)
    assert np.median(batch.bands[0].sigma) == pytest.approx(0.7, rel=5 * 1.17 / np.sqrt(n) + 0.01)
    assert batch.flags[0] & Flag.VARIANCE_APPROX
    assert not [e for e in survey.inputs() if e["role"] == "err"]
    assert "no error map" in " ".join(f.what for f in check_noise(survey))


def test_a_signalling_nan_in_a_noise_map_is_no_noise_and_no_warning():
    noise = np.array([[[0x7FA00000, 0x40000000]]], np.uint32).view(np.float32)  # such a NaN, and 2
    np.testing.assert_array_equal(variance("err", noise), [[[np.inf, 4.0]]])
