"""What the shipped prior must not be confident about: wrong noise, wrong PSFs, pictures that are no galaxies,
planted features.

Bounds are from a few draws of a few sources: far from what right cases give, and right cases are tested
beside the wrong ones.
"""

import numpy as np
import pytest
import torch

import galbatch
from galbatch.flags import quality_of
from galbatch.forward import forward_model
from galbatch.prior import load_prior
from galbatch.types import Flag, Observation
from galbatch.validate import make_mocks
from galbatch.validate.mock import mock_psf, sample_mocks

Y, X = np.mgrid[:64, :64]


@pytest.fixture(scope="module")
def prior():
    return load_prior()


@pytest.fixture(scope="module")
def galaxy(prior):
    """An extended galaxy of the held-out mocks, peak one."""
    mocks = make_mocks(prior, 6, sn_range=(30.0, 100.0))
    image = mocks.image[int(np.argsort(mocks.radius_pix)[3])]
    return image / image.max()


def clean(image, fwhm):
    padded = np.zeros((1, 1, 1, 72, 72), np.float32)
    padded[..., 4:68, 4:68] = image
    blank = np.ones((1, 1, 64, 64), np.float32)
    model = forward_model(Observation(blank, blank, mock_psf(fwhm)[None, None]), 1, 4, 8, 2.0)[1]
    return model.apply(torch.from_numpy(padded))[0, 0, 0].numpy()


def observe(image, fwhm=3.0, sn=50.0, seed=0, sigma=1.0, told_fwhm=None):
    """Unit noise, blurred peak ``sn``; the sampler is told ``sigma`` and ``told_fwhm``. Returns the
    observation and the flux unit."""
    blurred = clean(image, fwhm)
    unit = sn / blurred.max()
    data = blurred * unit + np.random.default_rng(seed).standard_normal((64, 64))
    return Observation(
        data[None, None], np.full((1, 1, 64, 64), sigma), mock_psf(told_fwhm or fwhm)[None, None]
    ), unit


def sample(prior, obs, draws=5):
    return galbatch.sample_posterior(prior, obs, draws=draws, mode="default")


def star():
    return np.exp(-0.5 * ((Y - 31.3) ** 2 + (X - 32.4) ** 2) / (2 / 2.3548) ** 2)


def picture():
    """No galaxy: a checkerboard under a Gaussian."""
    return ((Y // 4 + X // 4) % 2) * np.exp(-0.5 * ((Y - 32.0) ** 2 + (X - 32.0) ** 2) / 100)


def test_a_right_model_is_not_flagged(prior, galaxy):
    post = sample(prior, observe(galaxy)[0])
    assert post.chi2[0, 0] == pytest.approx(1, abs=0.09)  # 4 sigma of 4096 pixels
    assert quality_of(post.flags)[0] == 0


def test_right_models_under_correlated_noise_fit_their_cores(prior):
    """Correlated noise hides much of a core's light in a few modes. With the place of the light unknown to
    the solves, five of these thirty missed a bright core by many sigma (docs/decisions/0010)."""
    mocks = make_mocks(prior, 6, seed=7_000_003, correlated=True, sn_range=(15.0, 300.0))
    p = []
    for seed in range(5):
        p += [post.chi2_p[0, 0] for post in sample_mocks(prior, mocks, 2, "default", seed=seed)]
    assert len(p) == 30 and np.sum(np.array(p) < 1e-4) <= 1, sorted(p)[:6]


@pytest.mark.parametrize("sigma", [1 / 1.15, 1.15])
def test_noise_maps_that_are_wrong_by_15_percent_are_flagged(prior, galaxy, sigma):
    post = sample(prior, observe(galaxy, sigma=sigma)[0])
    assert post.flags[0] & Flag.NOISE_LEVEL and quality_of(post.flags)[0] >= 1
    assert post.chi2[0, 0] == pytest.approx(1 / sigma**2, rel=0.1)


def test_a_psf_broader_than_the_source_is_flagged(prior):
    """Nothing can be as sharp as a star seen with a PSF narrower than the one that is claimed."""
    right = sample(prior, observe(star(), 4.2, 60)[0])
    wrong = sample(prior, observe(star(), 4.2, 60, told_fwhm=5.0)[0])
    assert not right.flags[0] & Flag.SAMPLER_CHI2 and wrong.flags[0] & Flag.SAMPLER_CHI2


def test_a_star_comes_back_as_a_star(prior):
    obs, unit = observe(star(), 3.0, 60)
    post = sample(prior, obs)
    truth = star() * unit
    error = post.mean[0, 0] - truth
    assert (error**2).sum() < 0.02 * (truth**2).sum()
    assert post.samples[0, :, 0].sum((-1, -2)) == pytest.approx(truth.sum(), rel=0.12)
    assert post.mean[0, 0].sum() == pytest.approx(truth.sum(), rel=0.05)


def test_pictures_that_are_no_galaxies_are_flagged(prior):
    post = sample(prior, observe(picture())[0])
    assert post.flags[0] & Flag.SAMPLER_CHI2 and post.chi2[0, 0] > 1.1


def test_a_neighbour_that_nobody_masked_is_neither_lost_nor_smeared(prior, galaxy):
    both = galaxy + 0.8 * np.exp(-0.5 * ((Y - 12) ** 2 + (X - 50) ** 2) / 2.0)
    obs, unit = observe(both)
    post = sample(prior, obs)
    near = (slice(8, 17), slice(46, 55))
    assert post.samples[0, :, 0][:, *near].sum((-1, -2)) == pytest.approx(both[near].sum() * unit, rel=0.1)
    assert not post.flags[0] & Flag.SAMPLER_CHI2


def planted(level, width=1.0):
    """A blob of this peak, over the noise of a pixel, in the sky beside a compact galaxy of 40: image, the
    blob and the pixels within three of its widths."""
    host = np.exp(-0.5 * ((Y - 36) ** 2 + (X - 36) ** 2) / 3.0**2)
    blob = np.exp(-0.5 * ((Y - 14) ** 2 + (X - 16) ** 2) / width**2)
    blob = level * blob / clean(blob, 3.0).max()
    return 40 * host / clean(host, 3.0).max() + blob, blob, (Y - 14) ** 2 + (X - 16) ** 2 < (3 * width) ** 2


def test_planted_features_below_the_noise_are_prior_driven_and_bright_ones_are_not(prior):
    """At a tenth to sixty times the noise of a pixel; the median of three noises, since one may look like
    a feature."""
    driven = {}
    for level in (0.1, 1.0, 20.0, 60.0):
        image, _, spot = planted(level)
        maps = []
        for seed in range(3):
            obs, unit = observe(image, sn=clean(image, 3.0).max(), seed=seed)
            assert unit == pytest.approx(1)
            maps.append(sample(prior, obs, 8).prior_driven[0, 0][spot].mean())
        driven[level] = float(np.median(maps))
    assert min(driven[0.1], driven[1.0]) > 0.5 and max(driven[20.0], driven[60.0]) < 0.25, driven


def test_companions_that_the_data_show_are_in_the_draws(prior):
    """Eight sigma to a filter that knows the shape, where the denoiser alone finds one in nine of ten images:
    Gaussian guidance gave them 0.4 and 0.7 of their flux (docs/decisions/0011)."""
    for width, least in ((1.0, 0.55), (2.0, 0.85)):
        image, blob, spot = planted(1.0, width)
        seen = np.sqrt((clean(blob, 3.0) ** 2).sum())
        image, blob = image + (8 / seen - 1) * blob, 8 / seen * blob
        flux = []
        for seed in range(4):
            obs, _ = observe(image, sn=clean(image, 3.0).max(), seed=seed)
            draws = sample(prior, obs, 8).samples[0, :, 0]
            flux.append(draws[:, spot].sum(-1).mean() / blob[spot].sum())
        assert least < np.mean(flux) < 1.2, flux


def test_a_source_lost_in_the_noise_is_owed_to_the_prior(prior, galaxy):
    """The map's mean over the light of the posterior mean, at S/N 1 and 50."""
    share = []
    for sn in (0.7, 50):
        post = sample(prior, observe(galaxy, 6.0, sn)[0], 8)
        light = post.mean[0, 0].clip(min=0)
        share.append(float((light * post.prior_driven[0, 0]).sum() / light.sum()))
    assert share[1] < 0.15 and share[0] > 3 * share[1], share
