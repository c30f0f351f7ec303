"""Faint companions: how much of the light of a blob in the sky beside a compact galaxy do draws have, by the
significance of the blob to a filter that knows its shape?

The network alone, given the image in white noise, is the reference: a sampler that needs more weighs the
answers "there is one" and "there is none" wrongly. At a significance of zero the share is of a blob of 8
sigma.

python benchmarks/science/companions.py [--modes default fast] [--noises 4] [--draws 8] [--sn 0 6 8]
"""

import numpy as np
import torch

import galbatch
from galbatch.bench.timing import arguments
from galbatch.forward import forward_model
from galbatch.types import Observation
from galbatch.validate.mock import mock_psf

FWHM_PIX, HOST_SN, NETWORK_SIGMA = 3.0, 40.0, 0.05
Y, X = np.mgrid[:64, :64]
SKY = np.ones((1, 1, 64, 64), np.float32)


def blurred(image):
    model = forward_model(Observation(SKY, SKY, mock_psf(FWHM_PIX)[None, None]))[1]
    return model.apply(torch.from_numpy(image.astype(np.float32))[None, None, None])[0, 0, 0].numpy()


def scene(width, significance):
    """Host, blob and the pixels within three of its widths; noise of one a pixel."""
    host = np.exp(-0.5 * np.hypot(Y - 36, X - 36) ** 2 / 3.0**2)
    blob = np.exp(-0.5 * np.hypot(Y - 14, X - 16) ** 2 / width**2)
    blob *= significance / np.sqrt((blurred(blob) ** 2).sum())
    return HOST_SN * host / blurred(host).max(), blob, np.hypot(Y - 14, X - 16) < 3 * width


def share_of_draws(prior, mode, width, significance, noises, draws):
    """Mean over noises, spread over draws, evaluations."""
    host, blob, spot = scene(width, significance)
    whole = scene(width, significance or 8.0)[1][spot].sum()
    shares = []
    for seed in range(noises):
        data = blurred(host + blob) + np.random.default_rng(seed).standard_normal((64, 64))
        obs = Observation(data[None, None], SKY, mock_psf(FWHM_PIX)[None, None])
        posterior = galbatch.sample_posterior(prior, obs, draws=draws, mode=mode, seed=seed)
        shares.append(posterior.samples[0, :, 0][:, spot].sum(-1) / whole)
    return np.mean(shares), np.mean([s.std() for s in shares]), posterior.n_evaluations[0]


def share_of_the_network(prior, width, significance, noises=64):
    host = np.exp(-0.5 * np.hypot(Y - 36, X - 36) ** 2 / 3.0**2)
    blob = np.exp(-0.5 * np.hypot(Y - 14, X - 16) ** 2 / width**2)
    blob *= significance * NETWORK_SIGMA / np.sqrt((blob**2).sum())
    spot = np.hypot(Y - 14, X - 16) < 3 * width
    noise = torch.randn(noises, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    x = torch.from_numpy((host + blob).astype(np.float32)) + NETWORK_SIGMA * noise
    seen = prior.denoise(x, torch.full((noises,), NETWORK_SIGMA))[:, 0].numpy()
    return seen[:, spot].sum(-1).mean() / blob[spot].sum()


def main():
    args = arguments(__doc__, modes=["default", "fast"], sn=[0.0, 6.0, 8.0, 12.0], noises=4, draws=8)
    torch.set_num_threads(1)
    prior = galbatch.load_prior(device="cpu")
    for width in (1.0, 2.0):
        print(f"blob of sigma {width:g} pixels; significance {args.sn}")
        row = [f"{share_of_the_network(prior, width, s):.2f}" for s in args.sn if s]
        print("  network alone, without significance 0:", *row)
        for mode in args.modes:
            found = [share_of_draws(prior, mode, width, s, args.noises, args.draws) for s in args.sn]
            row = [f"{share:.2f} (draws +- {spread:.2f})" for share, spread, _ in found]
            print(f"  {mode}, {found[-1][2]:.0f} evaluations:", *row, flush=True)


if __name__ == "__main__":
    main()
