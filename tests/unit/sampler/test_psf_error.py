"""Errors of the PSF: what they do to the data, their noise against dense algebra, and draws of a Gaussian
prior against the exact law."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian_field import GaussianField, whitened

import galbatch
from galbatch.errors import InputError
from galbatch.forward import forward_model, full_width, with_psf_error
from galbatch.sampler.diagnostics import chi2_misfit, chi2_of_draws
from galbatch.sampler.guidance import CompactFilter
from galbatch.sampler.reference import photon_variance, with_reference
from galbatch.types import Observation

N = 12
ERROR = np.array([[0.3, 0.1, 0.03, 0.03, 0.02]])


def gaussian(fwhm: float, dy: float = 0.0, size: int = 21) -> np.ndarray:
    axis = np.arange(size) - size // 2
    image = np.exp(-4 * np.log(2) * ((axis[:, None] - dy) ** 2 + axis**2) / fwhm**2)
    return image / image.sum()


def moffat(fwhm: float, size: int = 21) -> np.ndarray:
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / 2.5) - 1))
    image = (1 + (np.hypot(*(np.mgrid[:size, :size] - size // 2)) / alpha) ** 2) ** -2.5
    return image / image.sum()


def observed(psf: np.ndarray, **more) -> Observation:
    blank = np.zeros((1, 1, 24, 24))
    return Observation(blank, blank + 1, psf[None, None], **more)


def source() -> torch.Tensor:
    y, x = np.mgrid[:24, :24] - 11.3
    return torch.from_numpy(100 * np.exp(-np.hypot(y, 0.7 * x) / 2).astype(np.float32))[None, None, None]


def test_modes_are_what_another_psf_does_to_the_data():
    x = source()
    model = forward_model(observed(gaussian(3.5)))[1]
    modes = with_psf_error(model, x, ERROR, np.array([[3.5]])).noise.modes[0, :, 0]
    seen = model.apply(x)[0, 0, 0]
    broader = forward_model(observed(gaussian(3.8)))[1].apply(x)[0, 0, 0] - seen
    moved = forward_model(observed(gaussian(3.5, dy=0.1)))[1].apply(x)[0, 0, 0] - seen
    assert (modes[0] - broader).norm() < 5e-3 * broader.norm()
    assert (modes[1] - moved).norm() < 0.05 * moved.norm()


def test_draws_are_seen_through_the_psfs_that_they_are_given():
    x = source()
    model = with_psf_error(forward_model(observed(gaussian(3.5)))[1], x, ERROR, np.array([[3.5]]))
    off = torch.zeros(1, 4, 1, 6)
    off[0, 1, 0, 0], off[0, 2, 0, 0], off[0, 3, 0, 1] = 2.0, -1.5, -3.0
    seen = model.with_psfs(off).apply(x)[0, :, 0]
    for found, psf in zip(
        seen, (gaussian(3.5), gaussian(4.1), gaussian(3.05), gaussian(3.5, dy=-0.3)), strict=True
    ):
        wanted = forward_model(observed(psf))[1].apply(x)[0, 0, 0]
        assert (found - wanted).norm() < 2e-3 * wanted.norm()
    narrow = model.with_psfs(torch.tensor([-40.0, 0, 0, 0, 0, 0]).expand(1, 1, 1, 6)).apply(x)[0, 0, 0]
    wanted = forward_model(observed(gaussian(1.75)))[1].apply(x)[0, 0, 0]  # no narrower than half
    assert (narrow - wanted).norm() < 0.02 * wanted.norm()


def test_modes_are_draws_one_standard_deviation_off_and_leave_the_flux():
    x, psf = source(), moffat(3.5)
    model = with_psf_error(
        forward_model(observed(0.9 * psf), target_fwhm_pix=2.0)[1], x, ERROR, np.array([[3.5]])
    )
    drawn = model.with_psfs(torch.eye(6)[None, :, None])
    torch.testing.assert_close(drawn.apply(x) - model.apply(x), model.noise.modes, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(drawn.otf[..., 0, 0], model.otf[..., 0, 0].expand(1, 6, 1))
    assert (model.noise.modes.square().mean((-1, -2)) > 1e-4).all()


def test_a_psf_with_wings_is_never_sharpened_beyond_one():
    """Its transfer function falls more slowly than a Gaussian's, which would raise its last modes
    enormously."""
    model = with_psf_error(forward_model(observed(moffat(3.5)))[1], source(), ERROR, np.array([[3.5]]))
    off = torch.tensor([-3.0, 0, 0, 2, -2, 0]).expand(1, 1, 1, 6)
    assert 1.2 < (model.with_psfs(off).otf / model.otf).abs().max()
    assert model.with_psfs(off).otf.abs().max() < 1.0001


def test_what_is_only_the_noise_of_a_psf_image_is_not_sharpened():
    """Beyond where the telescope sees nothing: a power below one of so little would be a lot."""
    rng = np.random.default_rng(0)
    noisy = gaussian(4.8) + 2e-6 * rng.standard_normal((21, 21))
    model = with_psf_error(forward_model(observed(noisy))[1], source(), ERROR, np.array([[4.8]]))
    drawn = model.with_psfs(torch.tensor([-3.0, 0, 0, 0, 0, 0]).expand(1, 1, 1, 6))
    seen, found = model.otf.abs(), (drawn.otf / model.otf).abs()
    assert (seen < 1e-4).float().mean() > 0.2 and found[seen < 1e-4].max() < 1.01
    assert found[(seen > 0.05) & (seen < 0.1)].min() > 1.5


def test_full_width_of_a_gaussian():
    np.testing.assert_allclose(full_width(np.stack([gaussian(3.5), gaussian(7.0)])), [3.5, 7.0], rtol=0.06)


@pytest.mark.parametrize("acf", [None, np.outer([0.3, 1, 0.3], [0.3, 1, 0.3])[None]])
def test_noise_against_dense_algebra(acf):
    mask = np.zeros((1, 1, 24, 24), bool)
    mask[..., 10, :5] = True
    model = forward_model(observed(gaussian(3.5), mask=mask, noise_acf=acf))[1]
    noise = with_psf_error(model, source(), ERROR, np.array([[3.5]])).noise
    assert float(noise.sum_inflation) == pytest.approx(1 if acf is None else acf.sum(), rel=1e-4)
    valid = ~mask.ravel()
    unit = torch.eye(24 * 24)[valid].reshape(1, -1, 1, 24, 24)
    base = np.linalg.inv(noise.base.precision(unit)[0, :, 0].flatten(1)[:, valid].double().numpy())
    modes = noise.modes[0, :, 0].flatten(1)[:, valid].double().numpy()
    u = torch.randn(1, 1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    flat = (u * ~torch.from_numpy(mask)[:, None]).flatten()[valid].double().numpy()
    wanted = np.linalg.solve(base + modes.T @ modes, flat)
    got = noise.precision(u).flatten()[valid].double().numpy()
    assert np.abs(got - wanted).max() < 0.01 * np.abs(wanted).max()
    corrected = noise.corrected(u).flatten()[valid].double().numpy()
    assert np.abs(corrected - base @ wanted).max() < 0.01 * np.abs(flat).max()


def field(snr: float) -> tuple[GaussianField, Observation]:
    prior, rng = GaussianField(N, sd=1.0, mean=3.0), np.random.default_rng(5)
    truth = prior.mean + np.linalg.cholesky(prior.covariance()) @ rng.standard_normal(N * N)
    blank = np.zeros((1, 1, N, N))
    obs = Observation(blank, blank + 1 / snr, gaussian(3.0, size=11)[None, None])
    clean = forward_model(obs)[1].apply(torch.from_numpy(truth.reshape(1, 1, 1, N, N).astype(np.float32)))
    return prior, replace(obs, data=clean[:, 0].numpy() + rng.standard_normal(blank.shape) / snr)


def test_draws_have_the_spread_of_psfs_that_may_be():
    """With the gain G of the exact PSF a draw is the posterior mean for its PSF, G (y - U c), and the rest of
    the exact PSF's posterior: covariance C + G U U^T G^T."""
    (prior, obs), k = field(50.0), 200
    post = galbatch.sample_posterior(prior, replace(obs, psf_error=ERROR), draws=k, seed=1)
    exact = galbatch.sample_posterior(prior, obs, draws=k, seed=1)
    unit = torch.eye(N * N).reshape(1, N * N, 1, N, N)
    model = forward_model(obs)[1]
    a = model.apply(unit)[0].reshape(N * N, N * N).T.double().numpy()
    light = torch.from_numpy(exact.mean[:, None])
    noise = with_psf_error(model, light, ERROR, full_width(obs.psf)).noise
    u = noise.modes[0].reshape(6, -1).T.double().numpy()
    diagonal = np.diag(1 / noise.weight.flatten().double().numpy())
    law = prior.covariance()
    gain = law @ a.T @ np.linalg.inv(a @ law @ a.T + diagonal)
    mean = prior.mean + gain @ (obs.data.ravel() - a @ np.full(N * N, prior.mean))
    narrow = law - gain @ a @ law
    covariance = narrow + gain @ u @ u.T @ gain.T
    draws = post.samples[0, :, 0].reshape(k, -1)
    white = whitened(draws, mean, covariance)
    assert (white**2).mean() == pytest.approx(1, abs=0.08)
    for direction in (gain @ u).T:  # what an error of the PSF does to the image
        wanted = np.sqrt(direction @ covariance @ direction)
        assert ((draws - mean) @ direction / wanted).std() == pytest.approx(1, abs=0.2)
    widest = (gain @ u)[:, 0]
    assert widest @ covariance @ widest > 4 * (widest @ narrow @ widest), "the test sees the PSF's error"
    assert (post.flags == 0).all() and post.chi2_p[0, 0] > 1e-3


def test_an_allowance_that_was_not_needed_is_no_misfit():
    prior, obs = field(50.0)
    post = galbatch.sample_posterior(prior, replace(obs, psf_error=ERROR), draws=6, mode="fast", seed=1)
    assert post.chi2[0, 0] < 0.8 and post.chi2_p[0, 0] == 1 and post.flags[0] == 0


@pytest.mark.parametrize(
    ("given", "fitted", "wrong"), [(1.0, 1.0, False), (1.25, 1.0, True), (1.0, 0.0, False)]
)
def test_noise_given_too_large_is_a_misfit_whatever_the_psf_may_be(given, fitted, wrong):
    """The light of a PSF in error covers a part of the stamp: draws may fit all of that (``fitted`` 0) and
    the rest of the stamp still tells what the noise is."""
    _, light, (data, model) = disc_with_photons(0.0, held=True)
    wide = with_psf_error(model, light, np.array([[0.3, 0.1, 0.03, 0.03, 0.2]]), np.array([[3.5]]))
    residual = data - model.apply(light)
    few = wide.noise.owed < 0.5
    assert 0.02 < few.float().mean() < 0.3
    data = model.apply(light) + torch.where(few, fitted, 1.0) * residual / given
    draws = light + 0 * light.expand(-1, 4, -1, -1, -1)
    chi2, count = chi2_of_draws(wide.noise, data, wide.apply(draws))
    found = chi2_misfit(
        wide, data, draws, wide.apply(draws), chi2.mean(1), count[:, 0], CompactFilter(model, 2.0)
    )
    assert bool(found.noise[0, 0]) is wrong and not found.source.any()


@pytest.mark.parametrize("core", [0.0, 1.5])
def test_a_core_that_fits_as_it_is_is_no_misfit_though_light_far_off_suggests_another_psf(core):
    """A neighbour's residuals of a broader PSF make one expect them in the source's core, too."""
    y, x = np.mgrid[:24, :24]
    light = 200 * sum(np.exp(-((np.hypot(y - at, x - at) / 2.5) ** 2)) for at in (5, 19))
    light = torch.from_numpy(light.astype(np.float32))[None, None, None]
    model = forward_model(observed(gaussian(3.5)))[1]
    wide = with_psf_error(model, light, np.array([[0.3, 0, 0, 0, 0.0]]), np.array([[3.5]]))
    own = torch.from_numpy(x + y < 24)[None, None, None]
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((24, 24)).astype(np.float32))
    # what no width explains in the core: a residual of its sign in the one and the other galaxy
    residual = wide.noise.modes[:, :1] * torch.where(own, -core, 1.5) + noise
    seen, draws = wide.apply(light), light.expand(-1, 4, -1, -1, -1)
    chi2, count = chi2_of_draws(wide.noise, seen + residual, wide.apply(draws))
    found = chi2_misfit(
        wide,
        seen + residual,
        draws,
        wide.apply(draws),
        chi2.mean(1),
        count[:, 0],
        CompactFilter(model, 2.0),
        own,
    )
    assert bool(found.source[0, 0]) is (core > 0)


def test_where_the_error_of_the_psf_drowns_in_the_noise_the_draws_are_those_without():
    prior, obs = field(0.2)
    with_it = galbatch.sample_posterior(prior, replace(obs, psf_error=ERROR), draws=4, mode="fast", seed=3)
    without = galbatch.sample_posterior(prior, obs, draws=4, mode="fast", seed=3)
    np.testing.assert_array_equal(with_it.samples, without.samples)


def test_each_source_is_judged_by_itself():
    prior, bright = field(50.0)
    faint = field(0.2)[1]
    both = Observation(
        np.concatenate([bright.data, faint.data]),
        np.concatenate([bright.sigma, faint.sigma]),
        np.concatenate([bright.psf, faint.psf]),
        psf_error=ERROR,
    )
    ask = dict(draws=3, mode="fast", seed=3)
    together = galbatch.sample_posterior(prior, both, source_ids=[1, 2], batch=2, **ask)
    alone = galbatch.sample_posterior(prior, replace(bright, psf_error=ERROR), source_ids=[1], **ask)
    quiet = galbatch.sample_posterior(prior, faint, source_ids=[2], **ask)
    np.testing.assert_allclose(together.samples[0], alone.samples[0], atol=2e-3)
    np.testing.assert_array_equal(together.samples[1], quiet.samples[0])


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="psf_error"):
        observed(gaussian(3.0), psf_error=-ERROR)
    with pytest.raises(InputError, match="width"):
        observed(gaussian(3.0), psf_error=ERROR[:, :3])


def disc_with_photons(per_sn: float, held: bool, seed: int = 0):
    """A galaxy of peak S/N 30 under noise of the sky, its photons ``per_sn`` of that variance for each unit
    of S/N: the observation (``held``: in its map), its light, its model and its data."""
    y, x = np.mgrid[:64, :64] - 31.5
    light = torch.from_numpy(75 * np.exp(-np.hypot(y, 0.7 * x) / 6).astype(np.float32))[None, None, None]
    rng = np.random.default_rng(seed)
    psf = gaussian(3.5)[None, None]
    blank = np.zeros((1, 1, 64, 64))
    seen = forward_model(Observation(blank, blank + 1, psf))[1].apply(light)[0, 0].numpy()[None]
    sigma = 0.5 * np.sqrt(1 + per_sn * seen)
    data = 0.5 * seen + sigma * rng.standard_normal(seen.shape)
    obs = Observation(data, sigma if held else 0 * sigma + 0.5, psf, psf_error=ERROR)
    return obs, 0.5 * light, forward_model(obs)


@pytest.mark.parametrize(("per_sn", "held"), [(0.1, False), (0.1, True), (0.0, False)])
def test_photons_that_the_noise_map_lacks_are_found_in_the_residuals(per_sn, held):
    found = []
    for seed in range(4):
        obs, light, (data, model) = disc_with_photons(per_sn, held, seed)
        noise = with_psf_error(model, light, ERROR, np.array([[3.5]])).noise
        photons = photon_variance(obs, noise, model.noise.weight, data, model.apply(light))
        found.append(float((photons / (0.5 * model.apply(light))).mean()))
    assert found == pytest.approx([0.0 if held else per_sn] * 4, abs=0.03)
    wide, shows = with_reference([obs], model, data, light)
    assert (wide.noise.weight < 0.9 * noise.weight).any() == (per_sn > 0 and not held)
    assert shows.all()


def test_photons_are_no_more_than_the_noise_of_the_sky_allows():
    obs, light, (data, model) = disc_with_photons(0.5, False)
    coarse = replace(obs, pixel_scale_arcsec=0.17, psf_scale_arcsec=0.17)  # 42 nJy of the darkest sky
    noise = with_psf_error(model, light, ERROR, np.array([[3.5]])).noise
    photons = photon_variance(coarse, noise, model.noise.weight, data, model.apply(light))
    assert float((photons / model.apply(light)).max()) < 0.5 * 1.01 * 0.5 / 42
