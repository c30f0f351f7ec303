"""Whether the bands of a galaxy agree about their PSFs."""

import numpy as np
import pytest
import torch

import galbatch
from galbatch.forward import forward_model
from galbatch.sampler.agreement import psf_doubted
from galbatch.types import Flag, Observation
from galbatch.validate.mock import mock_psf

FWHM, SIDE, MARGIN, TARGET = (2.3, 3.5, 5.0), 40, 4, 2.0
WAVES = [0.6, 1.0, 1.6]


def blob(radius, at=(0.0, 0.0), flux=1000.0):
    """(48, 48) Gaussian light of an rms ``radius`` in pixels of the fine grid."""
    y, x = np.mgrid[:48, :48] - 23.5
    image = np.exp(-0.5 * ((y - at[0]) ** 2 + (x - at[1]) ** 2) / radius**2)
    return flux * image / image.sum()


def galaxy(clump=0.0):
    """A bulge whose share rises over three bands, in a disc with knots, and a ``clump`` in the bluest."""
    shares = np.array([0.2, 0.3, 0.4])[:, None, None]
    knots = sum(blob(1.2, at, 100.0) for at in ((4, -5), (-6, 1), (2, 6), (-3, -4)))
    image = shares * blob(1.5) + (1 - shares) * (0.6 * blob(5.0) + knots)
    image[0] += clump * blob(1.0, (7.0, 2.0))
    return image[None].astype(np.float32)


def observed(truth, seen_fwhm, noise=0.3, seed=0):
    """(observation, data, model) of ``truth`` (1, 3, 48, 48), with PSFs of ``seen_fwhm``."""
    psf = lambda widths: np.stack([mock_psf(f) for f in widths])[None]  # noqa: E731
    blank = np.zeros((1, 3, SIDE, SIDE))
    seen = forward_model(Observation(blank, blank + 1, psf(seen_fwhm)), 1, MARGIN, 8, TARGET)[1]
    clean = seen.apply(torch.from_numpy(truth[:, None]))[:, 0].numpy()
    data = clean + noise * np.random.default_rng(seed).standard_normal(clean.shape)
    obs = Observation(data, np.full(data.shape, noise), psf(FWHM))
    return obs, *forward_model(obs, 1, MARGIN, 8, TARGET)


@pytest.mark.parametrize("clump", [0.0, 0.15])
def test_galaxies_that_differ_from_band_to_band_are_not_doubted(clump):
    """Each band is described by the mean of all draws, here the truth."""
    truth = galaxy(clump)
    _, data, model = observed(truth, FWHM)
    assert not psf_doubted(model, data, torch.from_numpy(truth), TARGET).any()


@pytest.mark.parametrize("factor", [1.3, 0.75])
def test_a_psf_of_another_width_is_doubted_in_its_band_alone(factor):
    truth = galaxy()
    _, data, model = observed(truth, (*FWHM[:2], factor * FWHM[2]))
    assert psf_doubted(model, data, torch.from_numpy(truth), TARGET).tolist() == [[False, False, True]]
    there = torch.zeros((1, 1, 3, SIDE, SIDE), dtype=torch.bool)
    assert not psf_doubted(model, data, torch.from_numpy(truth), TARGET, there).any(), "nothing is looked at"


def test_a_wide_psf_of_one_band_is_flagged_where_bands_are_sampled_together():
    prior = galbatch.load_prior("small", device="cpu")
    call = {"draws": 4, "mode": "fast", "joint": True, "wavelengths": WAVES}
    for factor, expected in ((1.3, [False, False, True]), (1.0, [False] * 3)):
        obs, _, _ = observed(galaxy(), (*FWHM[:2], factor * FWHM[2]))
        flags = galbatch.sample_posterior(prior, obs, **call).band_flags[0]
        assert [bool(f & Flag.PSF_DOUBTED) for f in flags] == expected
    flags = galbatch.sample_posterior(prior, obs, **{**call, "joint": False}).band_flags
    assert not (flags & int(Flag.PSF_DOUBTED)).any()


@pytest.mark.parametrize("planted", ["clump", "core"])
def test_what_one_band_alone_shows_is_found_there_and_not_copied(planted):
    """A clump of 150 in the bluest band, or a core of which it has lost seven tenths: light within 3 pixels
    of it, less that of the plain galaxy, over what was planted."""
    plain, at = galaxy(), (7.0, 2.0) if planted == "clump" else (0.0, 0.0)
    truth = galaxy(0.15) if planted == "clump" else plain.copy()
    if planted == "core":
        truth[0, 0] *= 1 - 0.7 * blob(2.0) / blob(2.0).max()
    obs, _, _ = observed(truth, FWHM)
    prior = galbatch.load_prior("small", device="cpu")
    post = galbatch.sample_posterior(prior, obs, draws=4, mode="fast", joint=True, wavelengths=WAVES)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    place = np.hypot(y - at[0], x - at[1]) < 3
    inside = np.s_[0, :, MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE]
    put = (truth - plain)[inside][0][place].sum()
    found = (post.mean[0] - plain[inside])[:, place].sum(-1) / put
    assert found[0] == pytest.approx(1, abs=0.1)
    assert np.abs(found[1:]).max() < 0.2, "other bands stay as they are"
