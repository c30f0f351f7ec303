"""What the sampler's levels are made of: linear solves under an envelope, their preconditioner, and the
filter for compact light."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from galbatch.cutouts.noise.measure import autocorrelation, positive_definite
from galbatch.forward import forward_model
from galbatch.sampler.diagnostics import chi2_misfit, chi2_of_draws
from galbatch.sampler.guidance import CompactFilter, envelope, found_light
from galbatch.sampler.solve import Preconditioner, Solver
from galbatch.types import Observation


@pytest.mark.parametrize("correlated", [False, True])
def test_a_solve_with_an_envelope_is_that_of_the_dense_system(correlated):
    """((W v W)^-1 + Q) c = r, against numpy with the operator written out."""
    rng = np.random.default_rng(5)
    n = 12
    psf = np.exp(-(np.hypot(*np.mgrid[-4:5, -4:5]) ** 2) / 3)
    row = np.array([0.3, 1, 0.3])
    acf = np.outer(row, row)[None] if correlated else None
    sigma = rng.uniform(0.8, 1.2, (1, 1, n, n))
    blank = Observation(np.zeros_like(sigma), sigma, psf[None, None] / psf.sum(), noise_acf=acf)
    model = forward_model(blank)[1]
    unit = torch.eye(n * n).reshape(1, n * n, 1, n, n)
    q = model.quick_normal(unit).reshape(n * n, n * n).double().numpy().T
    k = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n))
    v = torch.tensor(0.5 * np.exp(-3 * k), dtype=torch.float32)[None, None, None]
    power = torch.fft.irfft2(torch.fft.rfft2(unit) * v, s=(n, n)).reshape(n * n, n * n).double().numpy()
    y, x = np.mgrid[:n, :n] - 5.0
    window = envelope(torch.tensor(np.exp(-(x**2 + y**2) / 6), dtype=torch.float32)[None, None, None])
    w = window.flatten().double().numpy()
    r = torch.tensor(rng.standard_normal((1, 1, 1, n, n)), dtype=torch.float32)
    covariance = w[:, None] * power * w
    expected = covariance @ np.linalg.solve(np.eye(n * n) + q @ covariance, r.flatten().double().numpy())
    found = Solver(model, 500, tolerance=1e-6).correction(v, r, window).flatten().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def uneven(correlated):
    """A forward model with a PSF, an uneven noise map and a masked corner, and its normals."""
    rng = np.random.default_rng(8)
    n = 32
    psf = np.exp(-(np.hypot(*np.mgrid[-8:9, -8:9]) ** 2) / 6)
    acf = np.outer(*[[0.2, 0.6, 1, 0.6, 0.2]] * 2)[None] if correlated else None
    sigma = np.ones((1, 1, n, n)) * np.linspace(0.5, 2, n)
    mask = np.zeros(sigma.shape, bool)
    mask[..., :6, :6] = True
    blank = Observation(np.zeros_like(sigma), sigma, psf[None, None] / psf.sum(), mask, noise_acf=acf)
    _, model = forward_model(blank, margin=4, target_fwhm_pix=2.0)
    normal = lambda *shape: torch.from_numpy(rng.standard_normal((1, 300, *shape)).astype(np.float32))  # noqa: E731
    return model, model.noise.sample(normal)


def misfit(model, data, draws, own=None, chi2=None):
    """``chi2_misfit`` of one source in one band; ``chi2`` (of the draws, pixels): one of 1024 where None."""
    chi2, count = chi2 or (torch.ones(1, 1, 1), torch.full((1, 1, 1), 1024.0))
    seen, compact = model.apply(draws), CompactFilter(model, 2.0)
    return chi2_misfit(model, data, draws, seen, chi2.mean(1), count[:, 0], compact, own)


def point(model, y, x):
    """A point at the resolution of the image, of height one, (1, 1, 1, H, W)."""
    rows, columns = np.mgrid[: model.fine[0], : model.fine[1]]
    image = np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / (2 / 2.3548) ** 2)
    return torch.from_numpy(image.astype(np.float32))[None, None, None]


@pytest.mark.parametrize("correlated", [False, True])
def test_the_filter_for_compact_light_has_unit_variance_and_finds_heights(correlated):
    model, noise = uneven(correlated)
    compact = CompactFilter(model, 2.0)
    significance, _ = compact(model.adjoint(model.noise.precision(noise)))
    spread = significance[0].std(0)[compact.seen[0, 0]]
    assert compact.seen.float().mean() == pytest.approx((32 * 32 - 36) / 40**2, rel=0.05)
    assert spread.mean() == pytest.approx(1, abs=0.02 + 0.05 * correlated)  # 300 draws; the stationary part
    assert spread.min() > 0.8 and spread.max() < (1.4 if correlated else 1.2)
    significance, height = compact(model.normal(3 * point(model, 20, 24)))
    assert np.unravel_index(int(significance[0, 0, 0].argmax()), model.fine) == (20, 24)
    assert height[0, 0, 0, 20, 24] == pytest.approx(3, rel=0.03 + 0.1 * correlated)


def test_light_is_found_only_where_it_is_significant():
    model, noise = uneven(False)
    compact = CompactFilter(model, 2.0)
    image = point(model, 20, 16)
    one = compact(model.normal(image))[0].max()
    for significance, share in ((3.0, (0, 0.1)), (8.0, (0.9, 1))):
        data = model.apply(significance / one * image) + noise
        light = found_light(compact, model.adjoint(model.noise.precision(data)))
        at = (light[0, :, 0, 20, 16] > 0).float().mean()
        assert share[0] <= at <= share[1]
        elsewhere = light[0, :, 0, :12].flatten(1).amax(1) > 0
        assert elsewhere.float().mean() < 0.02


def test_compact_light_that_draws_miss_is_a_misfit_however_small_its_part_of_chi2():
    """Nine sigma in one place are 81 of 1024 degrees of freedom: two standard deviations of chi2."""
    model, noise = uneven(False)
    compact = CompactFilter(model, 2.0)
    truth = point(model, 20, 16)
    truth = 9 / compact(model.normal(truth))[0].max() * truth
    for i in range(3):
        data = model.apply(truth) + noise[:, i : i + 1]
        for x0, missed in ((truth, False), (torch.zeros_like(truth), True)):
            draws = x0 + 0 * truth.expand(-1, 4, -1, -1, -1)
            residual = data - model.apply(draws)
            count = (model.noise.weight > 0).sum((-1, -2)).float()
            chi2 = (residual * model.noise.precision(residual)).sum((-1, -2)) / count
            found = misfit(model, data, draws, chi2=(chi2, count))
            assert bool(found.source[0, 0]) is missed and (found.p[0, 0] < 1e-6) is np.bool_(missed)


@pytest.mark.parametrize("map_is", [1.0, 2.0])
def test_modes_that_resampling_left_without_noise_do_not_say_that_the_noise_map_is_off(map_is):
    """White noise of pixels three times as large: most of the modes hold nothing."""
    image = ndimage.zoom(np.random.default_rng(3).normal(size=(112, 112)), 3, order=3)
    image /= image.std()
    acf = positive_definite(autocorrelation([(image, np.ones(image.shape, bool))], 15))[None]
    data = torch.from_numpy(image[:40, :40].astype(np.float32))[None, None, None]
    psf = np.exp(-(np.hypot(*np.mgrid[-8:9, -8:9]) ** 2) / 6)[None, None]
    sigma = np.full((1, 1, 40, 40), map_is)
    _, model = forward_model(Observation(np.zeros_like(sigma), sigma, psf / psf.sum(), noise_acf=acf))
    draws = torch.zeros(1, 4, 1, *model.fine)
    chi2, count = chi2_of_draws(model.noise, data, model.apply(draws))
    assert chi2.mean() < 0.5
    found = misfit(model, data, draws, chi2=(chi2, count))
    assert (bool(found.noise[0, 0]), bool(found.source[0, 0])) == (map_is > 1, map_is > 1)


def test_a_compact_residual_away_from_a_bright_source_is_told_apart_from_one_on_it():
    model, noise = uneven(False)
    compact = CompactFilter(model, 2.0)
    source = point(model, 12, 12)
    source = 400 / compact(model.normal(source))[0].max() * source
    for place, (on, off) in {(12, 12): (True, False), (22, 22): (False, True)}.items():
        feature = point(model, *place)
        feature = (30 if on else 9) / compact(model.normal(feature))[0].max() * feature
        data = model.apply(source + feature) + noise[:, :1]
        draws = source + 0 * source.expand(-1, 4, -1, -1, -1)
        found = misfit(model, data, draws)
        assert (bool(found.source[0, 0]), bool(found.elsewhere[0, 0])) == (on, off)


def test_a_faint_feature_in_the_outskirts_of_a_bright_galaxy_is_no_misfit_of_it():
    """Twelve pixels from the centre of a galaxy of S/N 100 a pixel; the core counts whatever it holds."""
    model, noise = uneven(False)
    y, x = np.mgrid[: model.fine[0], : model.fine[1]] - 20
    source = 100 * torch.from_numpy(np.exp(-(y**2 + x**2) / 50).astype(np.float32))[None, None, None]
    for place, share, on in ((32, 0.006, False), (32, 0.03, True), (20, 0.006, True)):
        feature = point(model, place, 20)
        feature = feature * share * source.sum() / feature.sum()
        data = model.apply(source + feature) + noise[:, :1]
        draws = source + 0 * source.expand(-1, 4, -1, -1, -1)
        if place == 20:  # five per cent of the light there is what no PSF is known better than
            draws = draws - 8 * feature
        found = misfit(model, data, draws)
        assert bool(found.source[0, 0]) == on and (on or found.elsewhere[0, 0])


def test_a_compact_residual_on_a_neighbour_is_elsewhere():
    model, noise = uneven(False)
    compact = CompactFilter(model, 2.0)
    source = point(model, 12, 12)
    source = 400 / compact(model.normal(source))[0].max() * source
    feature = point(model, 22, 22)
    feature = 60 / compact(model.normal(feature))[0].max() * feature  # 15% of the light of all
    data = model.apply(source + feature) + noise[:, :1]
    draws = source + 0 * source.expand(-1, 4, -1, -1, -1)
    own = torch.ones(data.shape, dtype=torch.bool)
    there = slice(22 - model.margin - 6, 22 - model.margin + 7)
    own[..., there, there] = False
    for pixels, wrong in ((None, True), (own, False)):
        found = misfit(model, data, draws, pixels)
        assert bool(found.source[0, 0]) is wrong and (wrong or found.elsewhere[0, 0])


def test_what_a_neighbour_leaves_does_not_say_that_the_noise_map_is_wrong():
    model, noise = uneven(False)
    own = torch.ones(noise[:, :1].shape, dtype=torch.bool)
    own[..., -9:, -9:] = False
    draws = torch.zeros(1, 4, 1, *model.fine)
    for star, times, wrong in ((6.0, 1.0, False), (6.0, 1.3, True), (1.0, 1.0, False)):
        data = times * torch.where(own, 1.0, star) * noise[:, :1]
        chi2, count = chi2_of_draws(model.noise, data, model.apply(draws))
        assert star == 1 or chi2.mean() > 1.5
        found = misfit(model, data, draws, own, (chi2, count))
        assert bool(found.noise[0, 0]) is wrong
        alone = misfit(model, data, draws, chi2=(chi2, count))
        assert bool(alone.noise[0, 0]) is (star > 1)


def test_the_preconditioner_follows_the_weight_of_the_data_from_place_to_place(monkeypatch):
    """A core four times noisier than the sky under an envelope: after twenty iterations the error is less
    than 0.6 of that with one weight everywhere, the mean or the middle one."""
    n = 32
    y, x = np.mgrid[:n, :n] - n / 2
    radius2 = y**2 + x**2
    psf = np.exp(-(np.hypot(*np.mgrid[-8:9, -8:9]) ** 2) / 6)
    sigma = (0.01 + 0.03 * np.exp(-radius2 / 8))[None, None]
    blank = Observation(np.zeros_like(sigma), sigma, psf[None, None] / psf.sum())
    model = forward_model(blank, margin=4)[1]
    rows, columns = np.mgrid[: model.fine[0], : model.fine[1]] - model.fine[0] / 2
    image = torch.tensor(np.exp(-(rows**2 + columns**2) / 12), dtype=torch.float32)[None, None, None]
    window = envelope(image)
    k = np.hypot(np.fft.fftfreq(model.fine[0])[:, None], np.fft.rfftfreq(model.fine[1]))
    v = torch.tensor(0.1 * np.exp(-12 * k), dtype=torch.float32)[None, None, None]
    generator = torch.Generator().manual_seed(3)
    noise = model.noise.sample(lambda *shape: torch.randn(1, 1, *shape, generator=generator))
    r = model.adjoint(model.noise.precision(model.apply(image) + noise))
    exact = Solver(model, 3000, tolerance=0).correction(v, r, window, relative=1e-6)

    def error():
        e = Solver(model, 20, tolerance=0).correction(v, r, window) - exact
        z = torch.fft.rfft2(e / window)
        prior = torch.fft.irfft2(z / v, s=model.fine) / window
        return (e * (prior + model.normal(e))).sum().sqrt()

    ours = error()
    weight = window.square() * Preconditioner(model).local
    for constant in (1.0, (weight.amin() * weight.amax()).sqrt()):
        monkeypatch.setattr(
            Preconditioner,
            "inverse_of",
            lambda self, inverse, window=None, s=constant: lambda r: r / (inverse + s * self.precision),
        )
        assert ours < 0.6 * error()
