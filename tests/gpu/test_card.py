"""What must hold on a card: ``pytest -m gpu``. With GALBATCH_CARD=cpu the same tests run on the CPU, which
shows that they are ready."""

import os

import numpy as np
import pytest
import torch

import galbatch
from galbatch.sampler import draw, levels, random
from galbatch.types import Observation

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def card():
    name = os.environ.get("GALBATCH_CARD", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA card is visible: these tests need one")
    return torch.device(name)


@pytest.fixture(scope="module")
def observation():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16] - 7.5
    psf = np.exp(-0.5 * (np.mgrid[-5:6, -5:6] ** 2).sum(0) / 1.3**2)
    image = np.array([40.0])[:, None, None] * np.exp(-np.hypot(y, 0.8 * x) / 2.5)
    data = (image + rng.standard_normal(image.shape))[:, None]
    row = np.array([0.1, 0.4, 1, 0.4, 0.1])
    psf = np.broadcast_to(psf / psf.sum(), (1, 1, 11, 11))
    return Observation(
        data, np.ones_like(data), psf, rng.random(data.shape) < 0.01, noise_acf=np.outer(row, row)[None]
    )


def test_random_numbers_are_those_of_a_cpu(card):
    keys = random.stream_keys(5, [1, "b"], ["r", "g"])
    where = keys, torch.arange(3), torch.tensor([0, 1 << 20])
    here = random.standard_normals(*where, 1001)
    there = random.standard_normals(*(t.to(card) for t in where), 1001).cpu()
    words = random.torch_words(*where, 100), random.torch_words(*(t.to(card) for t in where), 100)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(*words, strict=True))
    np.testing.assert_allclose(there, here, rtol=0, atol=2e-6)


def test_the_network_in_float32_is_float32(card):
    x = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((4,), 0.03)
    options = {"backend": "eager", "precision": "float32"}
    here, there = (galbatch.load_prior("small", device=str(d), **options) for d in ("cpu", card))
    off = there.denoise(x.to(card), sigma.to(card)).cpu() - here.denoise(x, sigma)
    assert off.square().mean().sqrt() < 1e-5 * 0.03


def test_draws_are_those_of_a_cpu(card, observation):
    options = {"backend": "eager", "precision": "float32"}
    posteriors = [
        galbatch.sample_posterior(
            galbatch.load_prior("small", device=str(d), **options), observation, draws=2, mode="fast"
        )
        for d in ("cpu", card)
    ]
    here, there = posteriors
    np.testing.assert_array_equal(here.n_evaluations, there.n_evaluations)
    off = (there.samples - here.samples) / here.std[:, None].mean()
    assert np.sqrt((off**2).mean()) < 0.05


def test_the_loop_does_not_wait(card, observation, monkeypatch):
    run, loops = draw.run_levels, []

    def watched(*args):
        loops.append(args)
        if card.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            return run(*args)
        finally:
            if card.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    prior = galbatch.load_prior("small", device=str(card), backend="eager")
    galbatch.sample_posterior(prior, observation, draws=1, mode="fast")
    monkeypatch.setattr(draw, "run_levels", watched)
    galbatch.sample_posterior(prior, observation, draws=1, mode="fast")
    assert loops


def test_a_level_replays_as_a_graph(card, observation):
    def as_it_is(function, inputs):
        outputs = function(*inputs)
        return outputs, lambda: [a.copy_(b) for a, b in zip(outputs, function(*inputs), strict=True)]

    prior = galbatch.load_prior("small", device=str(card), backend="eager")
    replay = levels.Replayed(levels.cuda_graph if card.type == "cuda" else as_it_is)
    for seed in (1, 2):
        options = {"draws": 1, "mode": "fast", "seed": seed}
        plain = galbatch.sample_posterior(prior, observation, **options)
        graph = galbatch.sample_posterior(prior, observation, replay=replay, **options)
        np.testing.assert_allclose(graph.samples, plain.samples, atol=1e-3 * plain.samples.max())
