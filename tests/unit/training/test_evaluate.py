"""Evaluation of a prior: the whole of it on a tiny network, and the parts that can be known exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tiny import CARD, NETWORK

import galbatch.training
from galbatch.errors import InputError
from galbatch.prior.card import Card
from galbatch.prior.model import Prior
from galbatch.prior.network import Denoiser
from galbatch.training.evaluate import (
    brightness_bias,
    contact_sheet,
    evaluate_prior,
    nearest_neighbour,
    sample_prior,
)
from galbatch.training.fit import load_config
from galbatch.training.library import Library, SourceImage
from galbatch.training.stamps import StampSource

CONFIGS = sorted((Path(galbatch.training.__file__).parent / "configs").glob("*.toml"))


@pytest.fixture(scope="module")
def library():
    y, x = np.indices((64, 64)) - 32
    return Library(
        (SourceImage(np.exp(-np.hypot(x, q * y) / s), f"{q}-{s}", "t") for q in (1, 2, 3) for s in (3, 5, 8)),
        npix=64,
    )


def test_everything_is_measured_and_written(tmp_path, library):
    library.save(tmp_path / "held.npz")
    card = Card(**CARD | {"spectrum": {"k": [0.0, 0.7], "power": [1.0, 1e-4]}}, sha256="")
    prior = Prior(Denoiser(NETWORK), card, backend="eager")
    y, x = np.indices((64, 64)) - 32
    half = (x > 0) * np.exp(-np.hypot(x, y) / 4)
    other = (np.exp(-((x / a) ** 2) - (y / 4) ** 2) + half for a in (3, 9))
    Library((SourceImage(image, "o", "t") for image in other), npix=64).save(tmp_path / "train.npz")
    result = evaluate_prior(prior, tmp_path / "held.npz", tmp_path / "out", tmp_path / "train.npz", 8, 4)
    assert result == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    rows = {row["sigma"]: row for row in result["denoising"]}
    for sigma, row in rows.items():
        shrink = sigma**2 / (sigma**2 + 0.04)  # an untrained network is its skip connection
        assert row["network"] >= 0.9 * (1 - shrink) ** 2
    assert rows[0.5]["wiener"] < rows[0.5]["network"]
    assert {"denoising", "bias", "response", "nearest_neighbour"} <= set(result)
    assert result["look_alikes"]["left_out"] == 0 and set(result["by_origin"]) == {"t"}
    with pytest.raises(InputError, match="nothing is held out"):
        evaluate_prior(prior, tmp_path / "held.npz", tmp_path / "out", tmp_path / "held.npz", 8, 0)
    assert imread(tmp_path / "out" / "samples.png").shape == (72, 4 * 72)


class Gaussian:
    """Denoiser of independent pixels of mean 0.5 and standard deviation 0.3."""

    def denoise(self, x, sigma):
        v = sigma.reshape(-1, 1, 1, 1) ** 2
        return (0.09 * x + v * 0.5) / (0.09 + v)


def test_unconditional_samples_have_the_law_of_the_prior():
    samples = sample_prior(Gaussian(), 16, 32, seed=1)
    assert float(samples.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(samples.std()) == pytest.approx(0.3, rel=0.04)


def test_an_exact_denoiser_is_unbiased_at_every_brightness():
    stamps = 0.5 + 0.3 * torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    rows = brightness_bias(Gaussian().denoise, stamps, sigmas=(0.2,))
    assert len(rows) >= 3
    for row in rows:
        assert abs(row["mean_in_sigma"]) < 4 * row["rms_in_sigma"] / row["pixels"] ** 0.5
    halved = brightness_bias(lambda x, s: 0.5 * Gaussian().denoise(x, s), stamps, sigmas=(0.2,))
    assert max(abs(row["mean_in_sigma"]) for row in halved) > 0.5


def test_copies_of_training_images_are_noticed(library):
    source = StampSource(library)
    copies = source.draw(256, 32, (2000, 0))[:6]
    other = source.draw(6, 32, (1, 1))
    found = nearest_neighbour(copies, other, source, n_train=256)
    assert found["median_samples"] < 1e-2 < found["median_held_out"]


def test_contact_sheet_shows_every_image(tmp_path):
    images = torch.zeros(6, 1, 8, 8)
    images[:, :, 4, 4] = torch.arange(1.0, 7.0)[:, None]
    contact_sheet(images, tmp_path / "s.png", columns=3)
    pixels = imread(tmp_path / "s.png")
    assert pixels.shape == (16, 24)
    assert np.isclose(pixels[4::8, 4::8], 1.0).all() and pixels.mean() < 0.1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configurations_are_valid(path):
    config = load_config(path)
    assert config.name == path.stem and config.card["limits"]
    assert all(entry.credit and entry.licence for entry in config.data)
