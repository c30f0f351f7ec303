"""All bands at once, against exact posteriors of a Gaussian prior that knows how bands correlate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

import galbatch
from galbatch.errors import ConfigError, InputError
from galbatch.forward import forward_model, joint_model, steps_of, wavelengths_um
from galbatch.sampler.covariance import inverse_root, times
from galbatch.sampler.random import Normals
from galbatch.sampler.reference import with_reference
from galbatch.types import Flag, Observation

WAVELENGTHS = [0.9, 2.0, 4.4]


class JointField:
    """Stationary Gaussian fields on an n x n torus, one spectrum for all bands, correlated between them by
    their wavelengths: exact denoiser, exact covariance, no card."""

    channels, joint, target_fwhm_pix, flux_convention = 1, 8, 0.0, "none"

    def __init__(self, n, sd=0.5, mean=0.3, reach=3.0):
        f = np.fft.fftfreq(n) * n
        power = (f[:, None] ** 2 + f[None, :] ** 2 + 2.0) ** -2.0
        power *= sd**2 / power.mean()
        self.n, self.mean, self.reach = n, mean, reach
        self.power = torch.from_numpy(power[:, : n // 2 + 1].astype(np.float32))
        kernel, i = np.fft.ifft2(power).real, np.arange(n)
        dy = (i[:, None, None, None] - i[None, None, :, None]) % n
        dx = (i[None, :, None, None] - i[None, None, None, :]) % n
        self.one_band = kernel[dy, dx].reshape(n * n, n * n)

    def cross_correlation(self, bands, k=0.0):
        return np.exp(-np.abs(bands[:, None] - bands) / self.reach) * np.ones((*np.shape(k), 1, 1))

    def covariance(self, wavelengths):
        r = self.cross_correlation(np.log(wavelengths))
        return np.kron(r, self.one_band)

    def denoise(self, x, sigma, bands=None):
        r = (
            torch.eye(x.shape[1])
            if bands is None
            else torch.from_numpy(self.cross_correlation(bands.numpy())).float()
        )
        values, vectors = torch.linalg.eigh(r)
        z = torch.einsum("ji,bjyx->biyx", vectors.to(torch.complex64), torch.fft.rfft2(x - self.mean))
        p = values[:, None, None] * self.power
        z = z * (p / (p + sigma[:, None, None, None] ** 2))
        z = torch.einsum("ij,bjyx->biyx", vectors.to(torch.complex64), z)
        return self.mean + torch.fft.irfft2(z, s=x.shape[-2:])


def psfs(widths):
    y, x = np.mgrid[-5:6, -5:6]
    shapes = np.stack([np.exp(-0.5 * (y**2 / s**2 + x**2 / (0.8 * s) ** 2)) for s in widths])
    return shapes / shapes.sum((1, 2), keepdims=True)


def simulate(prior, rng, noise, widths, acf=None, sources=2):
    """Observations of draws of the prior in ``WAVELENGTHS``, and the truth (sources, c, n, n)."""
    n, c = prior.n, len(noise)
    wavelengths = WAVELENGTHS[:c]
    ramp = np.exp(0.5 * np.sin(np.linspace(0, 3, n))[:, None] + 0.3 * np.cos(np.linspace(0, 5, n)))
    sigma = np.broadcast_to(np.array(noise)[:, None, None] * ramp, (sources, c, n, n))
    mask = rng.random(sigma.shape) < 0.08
    truth = np.linalg.cholesky(prior.covariance(wavelengths)) @ rng.standard_normal((c * n * n, sources))
    truth = (prior.mean + truth.T).reshape(sources, c, n, n)
    acf = None if acf is None else np.repeat(acf[None], c, 0)
    blank = Observation(np.zeros(sigma.shape), sigma, psfs(widths), mask, 0.03, 0.03, acf)
    model = forward_model(blank, 1)[1]
    clean = model.apply(torch.from_numpy(truth[:, None].astype(np.float32)))[:, 0].numpy()
    normal = lambda *shape: torch.from_numpy(rng.standard_normal((sources, 1, *shape)).astype(np.float32))  # noqa: E731
    data = np.where(mask, np.nan, clean + model.noise.sample(normal)[:, 0].numpy())
    return replace(blank, data=data), truth


def exact_posterior(prior, observations, source, wavelengths):
    """Mean and covariance over pixels of all bands by dense linear algebra, operators as matrices."""
    n, d, c = prior.n, prior.n**2, len(wavelengths)
    rows, noises, data = [], [], []
    for obs, step in zip(observations, steps_of(observations, 1), strict=True):
        own = {name: getattr(obs, name) for name in ("data", "sigma", "mask", "psf", "shift_pix")}
        one = replace(obs, **{name: v if v is None else v[source][None] for name, v in own.items()})
        bands, h = one.data.shape[1], one.data.shape[2]
        unit = torch.eye(d).reshape(1, d, 1, n, n).expand(1, d, bands, n, n)
        seen = forward_model(one, step)[1].apply(unit)[0].double().numpy()  # (d, c, h, h)
        correlation = np.eye(h * h)
        if obs.noise_acf is not None:
            i = np.arange(h * h)
            dy, dx = i[:, None] // h - i // h, i[:, None] % h - i % h
            r = obs.noise_acf.shape[-1] // 2
            near = (abs(dy) <= r) & (abs(dx) <= r)
            correlation = np.where(near, obs.noise_acf[0][np.clip(dy, -r, r) + r, np.clip(dx, -r, r) + r], 0)
        for band in range(bands):
            good, s = one.valid[0, band].ravel(), one.sigma[0, band].ravel().astype(float)
            a = np.zeros((good.sum(), c * d))
            a[:, len(rows) * d : (len(rows) + 1) * d] = seen[:, band].reshape(d, -1).T[good]
            rows.append(a)
            noises.append((s[:, None] * correlation * s)[np.ix_(good, good)])
            data.append(one.data[0, band].ravel()[good])
    a, noise, y = np.concatenate(rows), block_diag(*noises), np.concatenate(data)
    covariance = prior.covariance(wavelengths)
    gain = covariance @ a.T @ np.linalg.inv(a @ covariance @ a.T + noise)
    mean = prior.mean + gain @ (y - a @ np.full(c * d, prior.mean))
    return mean, covariance - gain @ a @ covariance


def check(draws, mean, covariance):
    """Draws (k, c, n, n) are those of the law: whitened, standard normal; so are total light and colours."""
    k = len(draws)
    flat = draws.reshape(k, -1)
    d = flat.shape[1]
    white = np.linalg.solve(np.linalg.cholesky(covariance), (flat - mean).T)
    excess = k * (white.mean(1) ** 2).mean() - 1
    assert excess < 0.15 + 4 * np.sqrt(2 / d), f"mean off by {excess:.2f} of its Monte Carlo variance"
    assert (white**2).mean() == pytest.approx(1, abs=0.04 + 4 * np.sqrt(2 / (k * d)))
    assert np.sqrt(((np.cov(white) - np.eye(d)) ** 2).mean()) < 1.25 * np.sqrt(1 / k)
    c, pixels = draws.shape[1], draws[0, 0].size
    for weights in (*np.eye(c), *(np.eye(c)[i] - np.eye(c)[j] for i in range(c) for j in range(i))):
        w = np.repeat(weights, pixels)  # the light of a band, the difference of two
        z = (flat @ w - mean @ w) / np.sqrt(w @ covariance @ w)
        assert abs(z.mean()) < 4 / np.sqrt(k)
        assert z.std() == pytest.approx(1, abs=0.05 + 3 * np.sqrt(0.5 / k))


ACF = np.outer([0.1, 0.45, 1, 0.45, 0.1], [0.1, 0.45, 1, 0.45, 0.1])
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
    obs, _ = simulate(prior, np.random.default_rng(5), **arguments)
    wavelengths = WAVELENGTHS[: obs.data.shape[1]]
    post = galbatch.sample_posterior(
        prior, obs, draws=k, mode=mode, seed=1, joint=True, wavelengths=wavelengths
    )
    for source in range(2):
        mean, covariance = exact_posterior(prior, [obs], source, wavelengths)
        check(post.samples[source], mean, covariance)
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
        blank = Observation(0 * sigma, sigma, psfs([1.2]), mask, scale, scale, shift_pix=moved)
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
    check(samples, *exact_posterior(prior, observations, 0, WAVELENGTHS[:2]))
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
    here = Observation(0 * sigma, sigma, psfs([1.2]))
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
    errors = wide.noise.errors_of(Normals(1, [7], ["a", "b"], range(3)).draw)
    own = alone.noise.errors_of(Normals(1, [7], ["b"], range(3)).draw)
    torch.testing.assert_close(errors[:, :, 1:, :4, :4], own)
    assert (errors[:, :, 0] == 0).all()
    torch.testing.assert_close(wide.with_exact_psf().noise.precision(u)[:, :, 0], found[:, :, 0])
    assert wide.with_exact_psf().noise.modes is None
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
    obs, _ = simulate(
        prior, np.random.default_rng(6), noise=[0.05, 0.1, 0.1], widths=[1.0, 1.2, 1.5], sources=1
    )
    mask = obs.mask.copy()
    mask[0, 1] = True
    obs = replace(obs, mask=mask)
    post = galbatch.sample_posterior(prior, obs, draws=k, seed=1, joint=True, wavelengths=WAVELENGTHS)
    check(post.samples[0], *exact_posterior(prior, [obs], 0, WAVELENGTHS))
    predicted = Flag.PREDICTED | Flag.PRIOR_DRIVEN
    assert [int(f) & int(predicted) for f in post.band_flags[0]] == [0, int(predicted), 0]
    assert (post.prior_driven[0, 1] == 1).all() and post.flags[0] & Flag.PREDICTED
    assert np.isnan(post.chi2_p[0, 1]) and np.isfinite(post.chi2_p[0, [0, 2]]).all()
    assert np.isnan(post.chi2[0, 1])


def test_a_source_without_any_pixel_has_no_draws():
    prior = JointField(8)
    obs, _ = simulate(prior, np.random.default_rng(6), noise=[0.1, 0.1], widths=[1.0, 1.2])
    mask = obs.mask.copy()
    mask[0] = True
    post = galbatch.sample_posterior(
        prior, replace(obs, mask=mask), draws=3, mode="fast", joint=True, wavelengths=WAVELENGTHS[:2]
    )
    assert post.n_draws_ok.tolist() == [0, 3] and np.isnan(post.samples[0]).all()
    assert not post.flags[0] & Flag.PREDICTED


def test_one_band_is_the_same_joint_or_separate_and_evaluations_are_those_of_one_band():
    prior = JointField(8)
    obs, _ = simulate(prior, np.random.default_rng(7), noise=[0.1, 0.1], widths=[1.0, 1.2], sources=1)
    one = replace(obs, **{name: getattr(obs, name)[:, :1] for name in ("data", "sigma", "mask", "psf")})
    call = dict(draws=3, mode="fast", bands=["f200w"])
    separate = galbatch.sample_posterior(prior, one, **call)
    joint = galbatch.sample_posterior(prior, one, **call, joint=True)
    np.testing.assert_array_equal(joint.samples, separate.samples)
    both = galbatch.sample_posterior(prior, obs, draws=3, mode="fast", joint=True, bands=["f200w", "f115w"])
    assert both.n_evaluations[0] <= 14


def test_bad_joint_calls():
    prior = JointField(8)
    obs, _ = simulate(prior, np.random.default_rng(7), noise=[0.1, 0.1], widths=[1.0, 1.2], sources=1)
    with pytest.raises(InputError, match="wavelengths of bands 0, 1"):
        galbatch.sample_posterior(prior, obs, joint=True)
    with pytest.raises(InputError, match="one positive number"):
        galbatch.sample_posterior(prior, obs, joint=True, wavelengths=[2.0])
    prior.joint = 0
    with pytest.raises(ConfigError, match="one band at a time"):
        galbatch.sample_posterior(prior, obs, joint=True, wavelengths=[1.0, 2.0])


def test_names_say_wavelengths():
    names = [
        "f200w",
        "F444W",
        "f814w",
        "acs-f435w",
        "f430m",
        "f770w",
        "nisp_h",
        "HSC-I",
        "f160w",
        "f850lp",
        "f322w2",
    ]
    expected = [2.0, 4.44, 0.814, 0.435, 4.3, 7.7, 1.77, 0.76, 1.6, 0.85, 3.22]
    assert wavelengths_um(names) == pytest.approx(expected)


def test_inverse_root_of_a_matrix_per_mode():
    a = torch.randn(2, 3, 4, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m = (
        torch.einsum("bkilyx,bkjlyx->bkijyx", a, a)
        + 0.1 * torch.eye(4, dtype=torch.float64)[:, :, None, None]
    )
    root = inverse_root(m)
    z = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    again = times(m, times(root.transpose(-3, -4), times(root, z)))
    torch.testing.assert_close(again, z)
