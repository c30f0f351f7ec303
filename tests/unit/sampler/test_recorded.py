"""The draws of a few small observations, held to what they were: to the last bit on the machine that made the
record, to the rounding of other machines elsewhere."""

import hashlib

import numpy as np
import pytest
import torch

import galbatch
from galbatch.errors import ConfigError
from galbatch.interfaces import Denoiser
from galbatch.sampler.prior import as_denoiser
from galbatch.types import Observation

RECORDED_ON = ("2.13.0+cpu", "AVX512")  # torch and the instructions of its kernels
ACF = np.outer([0.1, 0.45, 1, 0.45, 0.1], [0.1, 0.45, 1, 0.45, 0.1])


def example(peak: float, bands: int = 1, correlated: bool = False) -> Observation:
    """One round source of exponential profile on 24 pixels, with a masked corner and noise of one."""
    y, x = np.mgrid[:24, :24] - 11.5
    image = peak * np.exp(-np.hypot(y, 0.8 * x) / 2.5)
    axis = np.arange(11) - 5
    psf = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / 1.3**2)
    data = image + np.random.default_rng(3).standard_normal((1, bands, 24, 24))
    mask = np.zeros(data.shape, bool)
    mask[..., :2, :2] = True
    acf = np.repeat(ACF[None], bands, 0) if correlated else None
    white = np.full(data.shape, 0.5) if correlated else None
    psf = np.repeat(psf[None] / psf.sum(), bands, 0)
    return Observation(data, np.ones(data.shape), psf, mask, noise_acf=acf, sigma_white=white)


CASES = {
    "faint": (dict(peak=8.0), "25403b2a15c83785", 789.99),
    "bright": (dict(peak=3000.0), "92eaae4e83e1d688", 279205.64),
    "correlated": (dict(peak=40.0, correlated=True), "a53db18f6586de5e", 3835.52),
    "two bands": (dict(peak=20.0, bands=2), "8d7efbad69a188fb", 3781.10),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_are_what_they_were(name):
    arguments, digest, total = CASES[name]
    prior = galbatch.load_prior(device="cpu", backend="eager", precision="float32")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        posterior = galbatch.sample_posterior(prior, example(**arguments), draws=2, seed=11)
    finally:
        torch.set_num_threads(threads)
    samples = posterior.samples
    assert float(np.abs(samples).sum(dtype=np.float64)) == pytest.approx(total, rel=2e-3)
    if (torch.__version__, torch.backends.cpu.get_cpu_capability()) == RECORDED_ON:
        assert hashlib.sha256(samples.tobytes()).hexdigest()[:16] == digest


class Silent:
    """A denoiser that says nothing of itself and keeps track of how often it is asked."""

    def __init__(self):
        self.calls = 0

    def denoise(self, x, sigma):
        self.calls += 1
        return x / (1 + sigma[:, None, None, None] ** 2)


def test_a_prior_of_the_user_is_wrapped_and_left_as_it_is():
    prior = Silent()
    denoiser = as_denoiser(prior)
    assert isinstance(denoiser, Denoiser) and as_denoiser(denoiser) is denoiser
    assert denoiser.spec.name.endswith("Silent") and denoiser.spec.flux_convention == "data"
    obs = example(8.0)
    first = galbatch.sample_posterior(prior, obs, draws=2, mode="fast", seed=1)
    asked = prior.calls
    again = galbatch.sample_posterior(prior, obs, draws=2, mode="fast", seed=1)
    assert prior.calls - asked == first.n_evaluations[0], "spectra are measured once"
    np.testing.assert_array_equal(first.samples, again.samples)
    assert set(vars(prior)) == {"calls"}, "nothing is kept in the user's object"
    with pytest.raises(ConfigError, match="denoise"):
        as_denoiser("a path")


def test_spec_is_found_on_the_object_before_its_card():
    prior = Silent()
    prior.card, prior.margin_pix = {"margin_pix": 9, "target_fwhm_pix": 2}, 3
    spec = as_denoiser(prior).spec
    assert (spec.margin_pix, spec.target_fwhm_pix, spec.multiple_of) == (3, 2.0, 1)
