"""The covariance of what a denoiser leaves: a stationary spectrum within the envelope of the galaxy."""

import numpy as np
import pytest
import torch

from galbatch.forward import forward_model
from galbatch.prior.spectra import RadialBins, envelope, residual_spectrum
from galbatch.sampler.solve import Solver
from galbatch.sampler.spectra import Spectra, measure_spectra
from galbatch.types import Observation

SIZE = 16


def blob(size=SIZE, radius=2.0):
    y, x = np.mgrid[:size, :size] - size // 2
    return torch.tensor(np.exp(-(x**2 + y**2) / (2 * radius**2)), dtype=torch.float32)


def test_envelope_is_the_root_of_the_smoothed_brightness():
    wide = envelope(blob(32, 3.0))
    assert wide[16, 16] == pytest.approx(np.sqrt(3**2 / (3**2 + 1)), rel=0.01)
    assert wide[0, 0] == pytest.approx(np.sqrt(1e-3), rel=0.05)
    assert torch.equal(envelope(-blob()), envelope(blob()))


def test_residuals_over_their_envelope_are_stationary():
    bright = blob(32, 4.0)[None, None]
    white = torch.randn(600, 1, 32, 32, generator=torch.Generator().manual_seed(4))
    stamps = bright + envelope(bright) * white
    table = residual_spectrum(lambda x, s: bright.expand_as(x), stamps, [0.1], RadialBins(32, 8), local=True)
    np.testing.assert_allclose(table["power"][0][1:], 1, rtol=0.05)
    plain = residual_spectrum(lambda x, s: bright.expand_as(x), stamps, [0.1], RadialBins(32, 8))
    assert max(plain["power"][0]) < 0.3


def test_a_brighter_stamp_has_a_larger_covariance_and_none_is_above_the_noise():
    flat = torch.ones(2, 1, SIZE, SIZE // 2 + 1)
    sigma = torch.tensor([0.1, 1.0])
    spectra = Spectra(flat[0], sigma, 1e-3 * flat, 1.0, torch.zeros(1, SIZE, SIZE), 0.1 * flat)
    d = torch.stack([0.5 * blob(), blob(), 1e4 * blob()])[None, :, None]
    v, w = spectra.covariance_at(torch.tensor([1.0]), d)
    np.testing.assert_allclose(w.square().mean((-1, -2)), 1, rtol=1e-4)
    assert v[0, 1].mean() == pytest.approx(2 * float(v[0, 0].mean()), rel=0.02)
    assert float(v[0, 2].max()) == 1.0
    plain, none = Spectra(flat[0], sigma, 1e-3 * flat, 1.0, torch.zeros(1)).covariance_at(sigma[:1], d, 2.0)
    assert none is None and float(plain.mean()) == pytest.approx(2e-3, rel=1e-3)


def test_solve_with_an_envelope_is_the_dense_answer():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[-3:4, -3:4]
    psf = np.exp(-(x**2 + y**2) / 4.0)
    sigma = rng.uniform(0.2, 0.6, (1, 1, SIZE, SIZE))
    data = rng.standard_normal((1, 1, SIZE, SIZE))
    _, model = forward_model(Observation(data, sigma, (psf / psf.sum())[None, None]), 1, 0, 1, 0.0)
    n = SIZE * SIZE
    unit = torch.eye(n).reshape(1, n, 1, SIZE, SIZE)
    q = model.normal(unit).reshape(n, n).double()
    v = torch.rand(1, 1, 1, SIZE, SIZE // 2 + 1, generator=torch.Generator().manual_seed(1)) + 0.1
    v[..., SIZE // 2 + 1 :, 0] = v[..., 1 : SIZE // 2, 0].flip(-1)  # a real field: v(-k) = v(k)
    v[..., SIZE // 2 + 1 :, -1] = v[..., 1 : SIZE // 2, -1].flip(-1)
    stationary = torch.fft.irfft2(torch.fft.rfft2(unit) * v, s=(SIZE, SIZE)).reshape(n, n).double()
    w = envelope(blob())
    w = w / w.square().mean().sqrt()
    covariance = w.flatten()[:, None].double() * stationary * w.flatten().double()
    r = torch.randn(1, 1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    exact = torch.linalg.solve(torch.linalg.inv(covariance) + q, r.flatten().double())
    solver = Solver(model, 500, tolerance=1e-5)
    c = solver.solve(v, r, w[None, None, None], exact=True).flatten().double()
    assert float((c - exact).norm() / exact.norm()) < 2e-3


class Located:
    """One blob of unknown brightness, at a known place."""

    target_fwhm_pix, flux_convention, sigma_max = 0.0, "none", 10.0

    def denoise(self, x, sigma):
        shape = blob()
        best = (x * shape).sum((-1, -2, -3), keepdim=True) / shape.square().sum()
        share = 1 / (1 + sigma.reshape(-1, 1, 1, 1) ** 2 / shape.square().sum())
        return (1 + share * (best - 1)) * shape


class White:
    target_fwhm_pix, flux_convention, sigma_max = 0.0, "none", 10.0

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


def test_priors_without_a_card_get_an_envelope_where_their_light_has_a_place():
    assert measure_spectra(Located(), 1, (SIZE, SIZE)).local is not None
    assert measure_spectra(White(), 1, (SIZE, SIZE)).local is None
