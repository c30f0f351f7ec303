"""All bands at once, against exact posteriors of a Gaussian prior that knows how bands correlate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian_field import ACF, JointField, check_draws, exact_posterior, gaussian_psf
from gaussian_field import simulate as simulate_bands

import galbatch
from galbatch.errors import ConfigError, InputError
from galbatch.forward import forward_model, joint_model, wavelengths_um
from galbatch.sampler.random import Normals
from galbatch.sampler.reference import with_reference
from galbatch.types import Flag, Observation

WAVELENGTHS = [0.9, 2.0, 4.4]


def simulate(prior, rng, noise, widths, acf=None, sources=2):
    psfs, wavelengths = [gaussian_psf(w) for w in widths], WAVELENGTHS[: len(noise)]
    return simulate_bands(prior, rng, noise, psfs, acf, sources, wavelengths)[0]


CASES = {
    "two bands": (dict(noise=[0.1, 0.1], widths=[1.1, 1.5]), "default"),
    "unequal noise and blur": (dict(noise=[0.03, 0.1, 1.0], widths=[0.8, 1.5, 2.5]), "default"),
    "correlated noise": (dict(noise=[0.1, 0.4], widths=[1.1, 1.5], acf=ACF), "default"),
    "accurate": (dict(noise=[0.1, 0.3], widths=[1.1, 2.0]), "accurate"),
}


@pytest.mark.parametrize("name", CASES)
def test_joint_draws_have_the_exact_posterior(name):
    arguments, mode = CASES[name]
    prior, k = JointField(8), 200
    obs = simulate(prior, np.random.default_rng(5), **arguments)
    wavelengths = WAVELENGTHS[: obs.data.shape[1]]
    post = galbatch.sample_posterior(
        prior, obs, draws=k, mode=mode, seed=1, joint=True, wavelengths=wavelengths
    )
    for source in range(2):
        check_draws(post.samples[source], *exact_posterior(prior, [obs], source, wavelengths))
    assert (post.flags & ~Flag.PRIOR_DRIVEN == 0).all() and (post.chi2_p > 1e-4).all()


def on_two_grids(rng, prior, shift=0.0, noise=(0.1, 0.8)):
    """One source in a band of 8 x 8 pixels and one of 4 x 4, the second stamp ``shift`` of its pixels off."""
    truth = np.linalg.cholesky(prior.covariance(WAVELENGTHS[:2])) @ rng.standard_normal(2 * 64)
    truth = torch.from_numpy((prior.mean + truth).reshape(2, 1, 1, 1, 8, 8).astype(np.float32))
    made = []
    for band, (h, scale) in enumerate([(8, 0.02), (4, 0.04)]):
        sigma = np.full((1, 1, h, h), noise[band])
        moved = np.full((1, 1, 2), shift) if band else None
        mask = rng.random(sigma.shape) < 0.1
        blank = Observation(0 * sigma, sigma, gaussian_psf(1.2)[None], mask, scale, scale, shift_pix=moved)
        clean = forward_model(blank, 8 // h)[1].apply(truth[band])[:, 0].numpy()
        made.append(replace(blank, data=clean + sigma * rng.standard_normal(sigma.shape)))
    return made


@pytest.mark.parametrize("shift", [0.0, -0.5])
def test_bands_of_other_pixels_are_sampled_on_the_finest_grid(shift):
    prior, k = JointField(8), 250
    observations = on_two_grids(np.random.default_rng(8), prior, shift)
    post = galbatch.sample_posterior(
        prior, observations, draws=k, seed=1, joint=True, wavelengths=WAVELENGTHS[:2]
    )
    assert post.samples.shape == (1, k, 2, 8, 8)
    samples = post.samples[0].copy()
    # each band comes in the frame of its own stamp: the torus of the prior is turned back
    samples[:, 1] = np.roll(samples[:, 1], (int(2 * shift), int(2 * shift)), (1, 2))
    check_draws(samples, *exact_posterior(prior, observations, 0, WAVELENGTHS[:2]))
    assert post.flags[0] & ~Flag.PRIOR_DRIVEN == 0
    apart = galbatch.sample_posterior(prior, observations, draws=3, mode="fast")
    alone = galbatch.sample_posterior(prior, observations[1], draws=3, mode="fast", oversample=2, bands=[1])
    np.testing.assert_array_equal(apart.samples[:, :, 1:], alone.samples)


def test_a_model_of_several_grids_is_linear_with_its_adjoint():
    observations = on_two_grids(np.random.default_rng(8), JointField(8), 0.3)
    data, model = joint_model(observations, [1, 2], (3, 2, 0.0), np.ones((1, 2)), "cpu")
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 2, *model.fine, generator=gen)
    u = torch.randn(1, 3, 2, *model.stamp, generator=gen)
    u[:, :, 1, 4:] = u[:, :, 1, :, 4:] = 0
    assert float((model.apply(x) * u).sum()) == pytest.approx(float((x * model.adjoint(u)).sum()), rel=1e-4)
    torch.testing.assert_close(model.normal(x), model.adjoint(model.noise.precision(model.apply(x))))
    assert data.shape == model.noise.weight.shape == (1, 1, 2, 8, 8)
    assert (model.noise.weight[:, :, 1, 4:] == 0).all()


def test_a_shift_moves_the_stamp_not_the_galaxy():
    rng = np.random.default_rng(3)
    sigma = np.ones((1, 1, 12, 12))
    image = torch.zeros(1, 1, 1, 20, 20)
    image[..., 6:14, 6:14] = torch.from_numpy(rng.random((8, 8)).astype(np.float32))
    here = Observation(0 * sigma, sigma, gaussian_psf(1.2)[None])
    there = replace(here, shift_pix=np.array([[[1.0, -2.0]]]))
    (_, at), (_, moved) = (forward_model(o, 1, margin=4) for o in (here, there))
    torch.testing.assert_close(moved.apply(image), at.apply(image.roll((-1, 2), (-2, -1))), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.crop(image), at.crop(image.roll((-1, 2), (-2, -1))), atol=1e-5, rtol=0)


def test_errors_of_a_psf_are_of_the_part_that_has_them():
    prior = JointField(8)
    one, two = on_two_grids(np.random.default_rng(8), prior, noise=(0.1, 0.02))
    two = replace(two, psf_error=np.array([[0.4, 0.2, 0.05, 0.02, 0.01]]))
    data, model = joint_model([one, two], [1, 2], (0, 1, 0.0), np.ones((1, 2)), "cpu")
    light = 1 + torch.rand(1, 1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    wide, shows = with_reference([one, two], model, data, light)
    alone, _ = with_reference([two], forward_model(two, 2)[1], data[:, :, 1:, :4, :4], light[:, :, 1:])
    assert shows.all()
    u = torch.randn(1, 3, 2, 8, 8)
    found = wide.noise.precision(u)
    torch.testing.assert_close(found[:, :, :1], u[:, :, :1] * model.noise.weight[:, :, :1])
    torch.testing.assert_close(found[:, :, 1:, :4, :4], alone.noise.precision(u[:, :, 1:, :4, :4]))
    exact = wide.noise.exact_precision(u)
    torch.testing.assert_close(exact[:, :, :1], found[:, :, :1])
    torch.testing.assert_close(exact[:, :, 1:, :4, :4], alone.noise.base.precision(u[:, :, 1:, :4, :4]))
    assert not torch.allclose(exact[:, :, 1:], found[:, :, 1:], rtol=1e-3)
    off = Normals(1, [7], ["a", "b"], range(3)).draw(2, 6)
    drawn, images = wide.with_psfs(off), torch.rand(1, 3, 2, 8, 8)
    torch.testing.assert_close(drawn.apply(images)[:, :, :1], model.apply(images)[:, :, :1])
    own = alone.with_psfs(off[:, :, 1:]).apply(images[:, :, 1:])
    torch.testing.assert_close(drawn.apply(images)[:, :, 1:, :4, :4], own)
    assert not torch.allclose(own, alone.apply(images[:, :, 1:]), rtol=1e-3)
    torch.testing.assert_close(drawn.noise.precision(u)[:, :, 0], found[:, :, 0])
    assert drawn.noise.modes is None and drawn.otf_fine.shape[:3] == (1, 3, 2)
    call = dict(draws=2, mode="fast", joint=True, wavelengths=WAVELENGTHS[:2])
    assert np.isfinite(galbatch.sample_posterior(prior, [one, two], **call).samples).all()


def test_stamps_of_unlike_squares_are_refused():
    prior = JointField(8)
    one, two = on_two_grids(np.random.default_rng(8), prior)
    for wrong in (replace(two, pixel_scale_arcsec=0.05), replace(two, pixel_scale_arcsec=0.08)):
        with pytest.raises(InputError, match="cover the same square"):
            galbatch.sample_posterior(prior, [one, wrong], joint=True, wavelengths=[1.0, 2.0])


def test_a_band_without_pixels_is_drawn_from_the_others_and_flagged():
    prior, k = JointField(8), 200
    obs = simulate(prior, np.random.default_rng(6), noise=[0.05, 0.1, 0.1], widths=[1.0, 1.2, 1.5], sources=1)
    mask = obs.mask.copy()
    mask[0, 1] = True
    obs = replace(obs, mask=mask)
    post = galbatch.sample_posterior(prior, obs, draws=k, seed=1, joint=True, wavelengths=WAVELENGTHS)
    check_draws(post.samples[0], *exact_posterior(prior, [obs], 0, WAVELENGTHS))
    predicted = Flag.PREDICTED | Flag.PRIOR_DRIVEN
    assert [int(f) & int(predicted) for f in post.band_flags[0]] == [0, int(predicted), 0]
    assert (post.prior_driven[0, 1] == 1).all() and post.flags[0] & Flag.PREDICTED
    assert np.isnan(post.chi2_p[0, 1]) and np.isfinite(post.chi2_p[0, [0, 2]]).all()
    assert np.isnan(post.chi2[0, 1])


def test_a_source_without_any_pixel_has_no_draws():
    prior = JointField(8)
    obs = simulate(prior, np.random.default_rng(6), noise=[0.1, 0.1], widths=[1.0, 1.2])
    mask = obs.mask.copy()
    mask[0] = True
    post = galbatch.sample_posterior(
        prior, replace(obs, mask=mask), draws=3, mode="fast", joint=True, wavelengths=WAVELENGTHS[:2]
    )
    assert post.n_draws_ok.tolist() == [0, 3] and np.isnan(post.samples[0]).all()
    assert not post.flags[0] & Flag.PREDICTED


def test_one_band_is_the_same_joint_or_separate_and_evaluations_are_those_of_one_band():
    prior = JointField(8)
    obs = simulate(prior, np.random.default_rng(7), noise=[0.1, 0.1], widths=[1.0, 1.2], sources=1)
    one = replace(obs, **{name: getattr(obs, name)[:, :1] for name in ("data", "sigma", "mask", "psf")})
    call = dict(draws=3, mode="fast", bands=["f200w"])
    separate = galbatch.sample_posterior(prior, one, **call)
    joint = galbatch.sample_posterior(prior, one, **call, joint=True)
    np.testing.assert_array_equal(joint.samples, separate.samples)
    both = galbatch.sample_posterior(prior, obs, draws=3, mode="fast", joint=True, bands=["f200w", "f115w"])
    assert both.n_evaluations[0] <= 14


def test_bad_joint_calls():
    prior = JointField(8)
    obs = simulate(prior, np.random.default_rng(7), noise=[0.1, 0.1], widths=[1.0, 1.2], sources=1)
    with pytest.raises(InputError, match="wavelengths of bands 0, 1"):
        galbatch.sample_posterior(prior, obs, joint=True)
    with pytest.raises(InputError, match="one positive number"):
        galbatch.sample_posterior(prior, obs, joint=True, wavelengths=[2.0])
    prior.joint = 0
    with pytest.raises(ConfigError, match="one band at a time"):
        galbatch.sample_posterior(prior, obs, joint=True, wavelengths=[1.0, 2.0])


def test_names_say_wavelengths():
    known = {"f200w": 2.0, "F444W": 4.44, "f814w": 0.814, "acs-f435w": 0.435, "f430m": 4.3, "f770w": 7.7}
    known |= {"nisp_h": 1.77, "HSC-I": 0.76, "f160w": 1.6, "f850lp": 0.85, "f322w2": 3.22}
    assert wavelengths_um(list(known)) == pytest.approx(list(known.values()))
