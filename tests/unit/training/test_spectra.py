"""Measurements of a denoiser, against a Gaussian field whose denoiser is known exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch

from galbatch.training.evaluate import bias_table, fit_sigma_map, response_table
from galbatch.training.spectra import (
    RadialBins,
    prior_spectrum,
    residual_spectrum,
    wiener_denoiser,
)

SIZE = 32
BINS = RadialBins(SIZE, 10)


def mode_power():
    f = np.fft.fftfreq(SIZE)
    k = np.hypot(f[:, None], f[None])
    return 4.0 * np.exp(-k / 0.08) + 1e-3


@pytest.fixture(scope="module")
def field():
    generator = torch.Generator().manual_seed(3)
    white = torch.randn(400, 1, SIZE, SIZE, generator=generator)
    return torch.fft.ifft2(torch.fft.fft2(white) * torch.from_numpy(mode_power()).sqrt().float()).real


def exact(x, sigma):
    power = torch.from_numpy(mode_power()).float()
    gain = power / (power + sigma.reshape(-1, 1, 1, 1) ** 2)
    return torch.fft.ifft2(torch.fft.fft2(x) * gain).real


def test_bins_cover_every_mode_once_and_flux_alone():
    index = BINS.index()
    assert (index == 0).sum() == 1 and index[0, 0] == 0
    assert set(np.unique(index)) == set(range(BINS.n)) and np.all(np.diff(BINS.centres()) > 0)


def test_prior_spectrum(field):
    spectrum, max_sd = prior_spectrum(field, BINS)
    np.testing.assert_allclose(spectrum["power"], BINS.average(mode_power()), rtol=0.2)
    assert max_sd == pytest.approx(np.sqrt(mode_power()[0, 0]), rel=0.1)


def test_residual_spectrum(field):
    sigmas = [0.05, 0.5]
    table = residual_spectrum(exact, field, sigmas, BINS)
    for sigma, power in zip(sigmas, table["power"], strict=True):
        left = mode_power() * sigma**2 / (mode_power() + sigma**2)
        np.testing.assert_allclose(power, BINS.average(left), rtol=0.2)


def test_error_equals_the_trace_of_the_jacobian(field, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks" / "science"))
    from prior_limits import jacobian_trace

    mse, trace = jacobian_trace(exact, field, 0.3, seed=1)
    assert trace == pytest.approx(mse, rel=0.02)
    mse, trace = jacobian_trace(lambda x, s: exact(x, 0.7 * s), field, 0.3, seed=1)
    assert trace > 1.1 * mse, "a denoiser told too little noise must be noticed"


def test_calibration_of_the_noise_level_is_found_and_undone(field):
    rows = response_table(exact, field[:200], sigmas=(0.05, 0.2, 0.8))
    assert all(abs(np.log(row["best_factor"])) < 0.03 for row in rows)
    wrong = response_table(lambda x, s: exact(x, 1.1 * s), field[:200], sigmas=(0.05, 0.2, 0.8))
    a, b = fit_sigma_map(wrong)
    for sigma in (0.05, 0.2, 0.8):
        assert np.exp(a + b * np.log(sigma)) == pytest.approx(1 / 1.1, abs=0.03)


def test_slopes_of_an_exact_denoiser_are_one(field):
    row = bias_table(exact, field, sigmas=(0.3,))[0]
    assert row["slope_pixel"] == pytest.approx(1, abs=0.02)
    half = bias_table(lambda x, s: 2 * exact(x, s), field, sigmas=(0.3,))[0]
    assert half["slope_pixel"] == pytest.approx(0.5, abs=0.05)


def test_wiener_filter_is_the_exact_denoiser(field):
    f = np.fft.fftfreq(SIZE)
    k = np.unique(np.hypot(f[:, None], f[None]).ravel())
    spectrum = {"k": k.tolist(), "power": (4.0 * np.exp(-k / 0.08) + 1e-3).tolist()}
    x, sigma = field[:2] + 0.2, torch.tensor([0.2, 0.5])
    wiener = wiener_denoiser(spectrum, SIZE, torch.zeros(1, 1, SIZE, SIZE))
    torch.testing.assert_close(wiener(x, sigma), exact(x, sigma), rtol=1e-3, atol=1e-4)
