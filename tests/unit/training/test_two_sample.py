"""Whether samples can be told from galaxies, and whether held-out galaxies look like training ones: on sets
with known answers."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from galbatch.training.held_out import look_alikes, without
from galbatch.training.library import Library, SourceImage


@pytest.fixture
def told_apart(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks" / "science"))
    return importlib.import_module("told_apart")


def test_area_under_curve_of_known_scores(told_apart):
    assert (
        told_apart.area_under_curve(np.array([1.0, 2, 3, 4]), np.array([False, False, True, True]))[0] == 1.0
    )
    assert (
        told_apart.area_under_curve(np.array([1.0, 3, 2, 4]), np.array([False, False, True, True]))[0] == 0.75
    )
    rng = np.random.default_rng(0)
    label = rng.random(4000) < 0.5
    auc, error = told_apart.area_under_curve(rng.normal(size=4000) + label, label)
    assert auc == pytest.approx(0.760, abs=4 * error) and error < 0.01  # Phi(1 / sqrt 2)


def discs(n, ratio, seed):
    """Exponential discs of a fixed axis ratio at random angles: only the shape tells two sets apart."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((40, 40)) - 19.5
    images = []
    for angle in rng.uniform(0, np.pi, n):
        u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
        images.append(np.exp(-np.hypot(u, v / ratio) / rng.uniform(2.5, 4) / ratio**-0.5))
    return torch.from_numpy(np.stack(images)[:, None].astype(np.float32))


def test_pixels_tell_flat_from_round_and_not_equal_sets(told_apart):
    auc, error = told_apart.pixel_two_sample(discs(60, 0.4, 1), discs(60, 0.9, 2), folds=3, steps=80)
    assert auc > 0.9
    auc, error = told_apart.pixel_two_sample(discs(60, 0.6, 3), discs(60, 0.6, 4), folds=3, steps=80)
    assert abs(auc - 0.5) < 4 * max(error, 0.05)
    again = told_apart.pixel_two_sample(discs(60, 0.6, 3), discs(60, 0.6, 4), folds=3, steps=80)
    assert again == (auc, error)


def test_morphology_tells_what_it_measures(told_apart):
    def measure(images, *args, **kwargs):
        table = np.zeros(len(images), dtype=[("gini", float), ("m20", float)])
        table["gini"] = np.asarray(images)[:, 0, 0]
        table["m20"] = np.nan
        return table

    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.random((80, 1, 4, 4)).astype(np.float32)) for _ in range(2))
    assert abs(told_apart.morphology_two_sample(a, b, measure)[0] - 0.5) < 0.2
    b[:, :, 0, 0] += 2
    b[:, :, 1:, 1:] -= 2 / 9  # the same flux
    assert told_apart.morphology_two_sample(a, b, measure)[0] > 0.95


def shape(i, turn=0, mirror=False):
    """A lopsided galaxy of its own, turned by quarter turns."""
    rng = np.random.default_rng(i)
    y, x = np.indices((64, 64)) - 31.5
    image = np.exp(-np.hypot(x, y * rng.uniform(1, 2)) / 5)
    for _ in range(4):
        cx, cy = rng.normal(0, 9, 2)
        image += rng.uniform(0.1, 0.5) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
    image = np.rot90(image, turn)
    return image[:, ::-1] if mirror else image


def test_turned_mirrored_and_scaled_copies_are_found_and_left_out():
    train = Library((SourceImage(shape(i), f"t{i}", "sim") for i in range(12)), npix=64)
    images = [
        shape(3, 1),
        shape(5, 2, True),
        np.kron(shape(7)[8:-8, 8:-8], np.ones((2, 2))),
        shape(40),
        shape(41),
    ]
    held = Library((SourceImage(image, f"h{i}", "ab"[i % 2]) for i, image in enumerate(images)), npix=64)
    distance, alike = look_alikes(held, train, threshold=0.12)
    assert alike.tolist() == [True, True, True, False, False], distance
    rest = without(held, alike)
    assert rest.groups == ["h3", "h4"] and rest.levels[0].shape[0] == 2
    assert rest.probability.sum() == pytest.approx(1)
    assert without(held, alike, ("b",)).groups == ["h4"]
