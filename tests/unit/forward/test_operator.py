"""The forward model against dense, independent arithmetic."""

import numpy as np
import pytest
import scipy.signal
import torch

from galbatch.errors import InputError
from galbatch.forward import forward_model, noise_model, psf_offset, smoothed_peak_scale
from galbatch.forward.psf import FWHM_TO_SIGMA, TransferCache, over_target, target_transfer, transfer
from galbatch.types import Observation


def gaussian_psf(size=13, fwhm=3.0, shift=(0.0, 0.0), ellipse=1.2):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    s = fwhm / 2.3548
    psf = np.exp(-0.5 * (((y - shift[0]) / s) ** 2 + ((x - shift[1]) / (s * ellipse)) ** 2))
    return psf / psf.sum()


def observation(h=10, w=12, b=2, c=1, psf=None, rng=None, **kwargs):
    rng = rng or np.random.default_rng(0)
    sigma = 0.1 * np.exp(0.3 * rng.standard_normal((b, c, h, w)))
    mask = rng.random((b, c, h, w)) < 0.1
    psf = gaussian_psf()[None] if psf is None else psf
    return Observation(rng.standard_normal((b, c, h, w)), sigma, psf, mask, **kwargs)


@pytest.mark.parametrize("size", [5, 11])
@pytest.mark.parametrize("oversample", [1, 2, 3])
@pytest.mark.parametrize("margin", [0, 3])
def test_apply_is_linear_convolution_then_sum(margin, oversample, size):
    rng = np.random.default_rng(1)
    psf = rng.random((size, size)) * np.outer(np.hanning(size), np.hanning(size))  # no symmetry: a flip shows
    psf /= psf.sum()
    obs = observation(psf=psf[None], pixel_scale_arcsec=0.03, psf_scale_arcsec=0.03 / oversample)
    _, model = forward_model(obs, oversample, margin)
    x = torch.from_numpy(rng.standard_normal((2, 3, 1, *model.fine)).astype(np.float32))
    expected = np.stack(
        [scipy.signal.convolve(image, psf, mode="same") for image in x.reshape(-1, *model.fine).numpy()]
    )
    h, w = model.stamp
    expected = expected[:, margin : margin + oversample * h, margin : margin + oversample * w]
    expected = expected.reshape(-1, h, oversample, w, oversample).sum((2, 4)).reshape(2, 3, 1, h, w)
    np.testing.assert_allclose(model.apply(x).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("oversample", [1, 2, 3])
@pytest.mark.parametrize("correlated", [False, True])
def test_adjoint(oversample, correlated):
    psf = np.stack([gaussian_psf(shift=(0.7, -0.4)), gaussian_psf(fwhm=5, shift=(-1.0, 0.3))])  # a flip shows
    obs = observation(c=2, psf=psf, noise_acf=acf(2) if correlated else None)
    _, model = forward_model(obs, oversample, margin=3, multiple_of=4, target_fwhm_pix=2.0)
    gen = torch.Generator().manual_seed(0)
    x = torch.randn((2, 2, 2, *model.fine), generator=gen)
    u = torch.randn((2, 2, 2, *model.stamp), generator=gen)
    left = (model.apply(x) * u).sum(dtype=torch.float64)
    right = (x * model.adjoint(u)).sum(dtype=torch.float64)
    assert abs(left - right) < 1e-5 * x.norm() * u.norm()
    x2 = torch.randn(x.shape, generator=gen)
    left, right = (model.normal(x) * x2).sum(), (x * model.normal(x2)).sum()
    assert abs(left - right) < 1e-3 * model.normal(x).norm() * x2.norm()


def acf(c=1, lag=0.5):
    k = np.array([lag / 2, 1, lag / 2])
    k = scipy.signal.convolve2d(np.outer(k, k), np.outer(k, k))
    return np.repeat(k[None] / k.max(), c, 0)


KINDS = ["white", "correlated", "mixed"]


def noise_of(rng, h, w, kind):
    """Mask (h, w), covariance (h w, h w), and the noise model of it; mixed: pixels are white to various
    degrees."""
    sigma = np.exp(0.3 * rng.standard_normal((h, w)))
    mask = rng.random((h, w)) < 0.2
    fraction = rng.choice([0.1, 0.6, 1.0], (h, w)) if kind == "mixed" else np.ones((h, w))
    a = np.ones((1, 1)) if kind == "white" else acf()[0]
    r = a.shape[0] // 2
    cov = np.diag(((1 - fraction**2) * sigma**2).ravel())
    for i in range(h * w):
        for j in range(h * w):
            dy, dx = j // w - i // w, j % w - i % w
            if abs(dy) <= r and abs(dx) <= r:
                cov[i, j] += a[r + dy, r + dx] * (sigma * fraction).flat[i] * (sigma * fraction).flat[j]
    wide = lambda u: torch.from_numpy(u[None, None, None].astype(np.float32))  # noqa: E731
    how = {"white": (), "correlated": (acf(),), "mixed": (acf(), wide(fraction))}[kind]
    return mask, cov, noise_model(wide(np.where(mask, 0, sigma**-2)), *how)


@pytest.mark.parametrize("oversample", [1, 2])
def test_the_stationary_precision_has_the_mean_diagonal_of_the_normal_operator(oversample):
    flat = np.full((1, 1, 24, 24), 0.5)
    scale = 0.03 / oversample
    obs = Observation(
        np.zeros_like(flat), flat, gaussian_psf(fwhm=3.0 * oversample)[None], psf_scale_arcsec=scale
    )
    _, model = forward_model(obs, oversample)
    one = torch.zeros(1, 1, 1, *model.stamp)
    one[..., 12, 12] = 1.0
    diagonal = (
        float(model.adjoint(one).square().sum()) / 0.5**2 / oversample**2
    )  # fine pixels per detector pixel
    spectrum = torch.fft.irfft2(model.circulant_precision(), s=model.fine)
    assert float(spectrum[0, 0, 0, 0, 0]) == pytest.approx(diagonal, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_precision_is_the_inverse_of_the_valid_block(kind):
    h = w = 8
    rng = np.random.default_rng(2)
    mask, cov, noise = noise_of(rng, h, w, kind)
    v = ~mask.ravel()
    exact = np.linalg.inv(cov[np.ix_(v, v)])
    u = rng.standard_normal((1, 1, 1, h, w)).astype(np.float32)
    got = noise.precision(torch.from_numpy(u)).numpy().ravel()
    assert (got[~v] == 0).all()
    expected = exact @ u.ravel()[v]
    assert np.linalg.norm(got[v] - expected) < 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_drawn_with_its_covariance(kind):
    rng, n = np.random.default_rng(3), 40_000
    mask, cov, noise = noise_of(rng, 5, 6, kind)
    drawn = noise.sample(
        lambda *shape: torch.from_numpy(rng.standard_normal((1, n, *shape)).astype(np.float32))
    )
    drawn = drawn.numpy().reshape(n, -1)
    v = ~mask.ravel()
    assert (drawn[:, ~v] == 0).all()
    got, cov = np.cov(drawn[:, v].T), cov[np.ix_(v, v)]
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    assert (np.abs(got - cov) < 5 * error).all()


def test_flux_is_conserved_and_nothing_wraps():
    psf = gaussian_psf(21, 4.0)[None] * 0.9  # the norm of the PSF is kept, not forced to one
    obs = Observation(np.zeros((1, 1, 32, 32)), np.ones((1, 1, 32, 32)), psf, pixel_scale_arcsec=0.03)
    _, model = forward_model(obs, 2, target_fwhm_pix=2.0)
    x = torch.zeros(1, 1, 1, 64, 64)
    x[..., 32, 31] = 1.0
    target = torch.fft.irfft2(
        torch.fft.rfft2(x) * torch.from_numpy(target_transfer(2.0, (64, 64))), s=(64, 64)
    )
    assert model.apply(target).sum().item() == pytest.approx(0.9, rel=1e-3)
    x = torch.zeros(1, 1, 1, 64, 64)
    x[..., 0:2, 30] = 1.0  # light at the lower edge must not appear at the upper one
    assert model.apply(x)[..., 20:, :].abs().max() < 1e-3 * model.apply(x).max()


def test_a_psf_sampled_at_detector_pixels_is_reproduced_by_the_oversampled_model():
    psf = gaussian_psf(25, 4.0, ellipse=1.3)
    one = np.zeros((1, 1, 25, 25), np.float32)
    obs = Observation(one, one + 1, psf[None], pixel_scale_arcsec=0.03)
    _, model = forward_model(obs, 3)
    x = torch.zeros(1, 1, 1, 75, 75)
    x[..., 37, 37] = 1.0  # the centre of detector pixel 12
    np.testing.assert_allclose(model.apply(x)[0, 0, 0].numpy(), psf, atol=2e-5)


def test_even_psf_is_centred_between_pixels_and_resampling_keeps_flux():
    fine = gaussian_psf(60, 8.0, ellipse=1.0)
    assert np.abs(psf_offset(fine[None])).max() < 0.02
    otf = transfer(fine[None], 0.01, 0.03, (40, 40))[0]
    kernel = np.fft.irfft2(otf, s=(40, 40))
    assert kernel.sum() == pytest.approx(1, rel=1e-5)
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (0, 0)
    np.testing.assert_allclose(kernel, np.roll(kernel[::-1, ::-1], (1, 1), (0, 1)), atol=1e-6)
    corner = gaussian_psf(61, 8.0, ellipse=1.0)[:60, :60]  # even image with its centre on pixel p/2
    other = np.fft.irfft2(transfer(corner[None], 0.01, 0.03, (40, 40))[0], s=(40, 40))
    np.testing.assert_allclose(kernel, other, atol=1e-5)


def test_division_by_target_is_exact_where_the_target_passes_and_bounded_elsewhere():
    psf = gaussian_psf(31, 5.0, ellipse=1.0)[None]
    grid = (64, 64)
    otf = transfer(psf, 1, 1, grid)
    ratio = (otf * over_target(2.0, grid))[0]
    t = target_transfer(2.0, grid)
    strong = t > 0.1
    np.testing.assert_allclose((ratio * t)[strong], otf[0][strong], rtol=0.011, atol=1e-4)
    assert ratio[0, 0] == pytest.approx(otf[0, 0, 0])
    # noise of a measured PSF is not blown up
    noisy = psf + 1e-4 * np.random.default_rng(0).standard_normal(psf.shape)
    assert np.abs(transfer(noisy, 1, 1, grid) * over_target(2.0, grid)).max() < 1.1


def test_bad_psf_raises():
    psf = gaussian_psf()[None].copy()
    psf[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        forward_model(observation(psf=psf))


def test_transfer_cache_counts_hits_and_forgets_the_oldest():
    cache = TransferCache(capacity=2)
    psfs = np.stack([gaussian_psf(fwhm=f) for f in (2, 3, 4)])
    cache.get(psfs, 1, 1, (16, 16), 2.0)
    cache.get(psfs[2:], 1, 1, (16, 16), 2.0)
    assert (cache.hits, cache.misses) == (1, 3)
    cache.get(psfs[:1], 1, 1, (16, 16), 2.0)
    assert cache.misses == 4


def test_a_point_source_has_one_scale_whatever_the_psf_and_the_grid():
    """The peak of a unit point source smoothed to 6 fine pixels FWHM, for narrow, broader, elliptical and
    winged PSFs."""
    y, x = np.mgrid[:49, :49] - 24
    moffat = (1 + (y**2 + (1.2 * x) ** 2) / 2.5**2) ** -2.2
    psfs = np.stack([gaussian_psf(49, 2.2), gaussian_psf(49, 4.5), moffat / moffat.sum()])[:, None]
    data = 7.0 * np.roll(psfs, (2, -3), axis=(2, 3))
    obs = Observation(data, np.full_like(data, 1e-4), psfs)
    expected = 7.0 / (2 * np.pi * (6.0 * FWHM_TO_SIGMA) ** 2)
    np.testing.assert_allclose(smoothed_peak_scale(obs)[:, 0], expected, rtol=0.01)
    # fine pixels half as large: 3 pixels FWHM, and a quarter of the flux in each
    narrow = Observation(data[:1], obs.sigma[:1], psfs[:1])
    np.testing.assert_allclose(
        smoothed_peak_scale(narrow, 2)[:, 0], 7.0 / (2 * np.pi * (3.0 * FWHM_TO_SIGMA) ** 2) / 4, rtol=0.01
    )


def test_scale_ignores_masked_pixels_and_has_a_floor():
    psf = gaussian_psf(15, 3.0)[None]
    y, x = np.mgrid[:32, :32] - 16
    data = np.exp(-0.5 * (y**2 + x**2) / 3.0**2)[None, None]
    sigma = np.full_like(data, 0.01)
    expected = smoothed_peak_scale(Observation(data, sigma, psf))[0, 0]
    bad, mask = data.copy(), np.zeros(data.shape, bool)
    bad[..., 10, 10], mask[..., 10, 10] = 1e6, True
    assert smoothed_peak_scale(Observation(bad, sigma, psf, mask))[0, 0] == pytest.approx(expected, rel=1e-2)
    empty = smoothed_peak_scale(Observation(np.zeros_like(data), sigma, psf))[0, 0]
    # noise of a mean under a Gaussian of sigma s: sigma / (2 sqrt(pi) s)
    s = np.sqrt(6.0**2 - 3.0**2 * 1.2) * FWHM_TO_SIGMA
    assert empty == pytest.approx(3 * 0.01 / (2 * np.sqrt(np.pi) * s), rel=0.03)
    assert np.isnan(smoothed_peak_scale(Observation(data, sigma, psf, np.ones(data.shape, bool)))[0, 0])
