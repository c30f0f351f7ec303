"""Random numbers: the published integers, the same ones in numba and in torch, one stream per name."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from galbatch.sampler import random
from galbatch.sampler.random import Normals, standard_normals, stream_keys, torch_normals, torch_words

# Random123, kat_vectors, philox4x32 of 10 rounds: counter, key, result
KNOWN = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)


def words_of(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize("vector", KNOWN)
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_integers_are_the_published_ones(vector, backend):
    counter, key, expected = map(words_of, vector)
    if backend == "torch":
        found = [int(w) for w in random._philox(*(torch.tensor([w]) for w in (*counter, *key)))]
    else:
        found = list(random._cpu_philox(*counter, *key))
    assert found == expected


def stream(n=3, bands=("a", "b"), draws=4):
    keys = stream_keys(11, [5, -1, "name"][:n], bands)
    return keys, torch.arange(draws) + 2, torch.arange(len(keys)) * (1 << 20)


def test_numba_and_torch_have_the_same_integers_and_normals():
    keys, draws, stage = stream()
    words = torch.stack(torch_words(keys, draws, stage, 50), -1)
    for i, j, band, block in ((0, 0, 0, 0), (1, 3, 1, 49), (2, 2, 0, 17)):
        counter = (block, int(stage[i]), int(draws[j]), int(keys[i, band, 2]))
        expected = random._cpu_philox(*counter, *map(int, keys[i, band, :2]))
        assert words[i, j, band, block].tolist() == list(expected)
    for size in (1, 3, 4, 5186):
        ours, theirs = (make(keys, draws, stage, size).double() for make in (standard_normals, torch_normals))
        assert ours.shape == (3, 4, 2, size)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_normals_are_box_muller_of_the_integers():
    """Against double precision; u itself is a float, and the largest counts as one."""
    keys, draws, stage = stream(2, ["a"])
    a, b, c, d = (w.numpy() for w in torch_words(keys, draws, stage, 5000))
    expected = []
    for radius, angle in ((a, b), (c, d)):
        u = (radius.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)).astype(float)
        r, t = np.sqrt(-2 * np.log(u)), (angle / 2.0**32 - 0.125) * 2 * np.pi
        expected += [r * np.cos(t), r * np.sin(t)]
    found = standard_normals(keys, draws, stage, 20000).unflatten(-1, (5000, 4))
    np.testing.assert_allclose(found, np.stack(expected, -1), rtol=0, atol=2e-6)


def test_the_extremes_of_the_integers_are_finite_and_bounded():
    top = (1 << 32) - 1
    for a in (0, 1, top):
        for b in (0, 1, 1 << 30, 1 << 31, top):
            torch_pair = random._torch_pair(torch.tensor([a]), torch.tensor([b]))
            for values in (random._cpu_pair(a, b), [float(x) for x in torch_pair]):
                radius = np.hypot(*values)
                assert radius == pytest.approx(np.sqrt(66 * np.log(2)) if a == 0 else radius, rel=1e-6)
                assert np.isfinite(radius) and radius < 6.77 and (a != top or radius == 0)


def test_normals_are_standard_and_adjacent_streams_do_not_know_of_each_other():
    n = 4096
    x = []
    for seed in (0, 1):
        normals = Normals(seed, [1, 2], ["a", "b"], range(2))
        x += [normals.draw(2, 64, 64) for _ in range(2)]
    every = torch.stack(x).double()
    assert kstest(every.flatten().numpy(), "norm").pvalue > 1e-3
    flat = every.flatten(0, 3).flatten(1).numpy()  # 32 streams that differ in one part of their name
    away = np.triu_indices(len(flat), 1)
    z = np.corrcoef(flat)[away] * np.sqrt(n)
    assert np.abs(z).max() < 4.5 and z.std() == pytest.approx(1, abs=0.15)
    squares = np.corrcoef(flat**2)[away] * np.sqrt(n)
    assert np.abs(squares).max() < 4.5
    for lag in (1, 2, 3, 4, 64):
        assert abs((flat[:, lag:] * flat[:, :-lag]).mean()) * np.sqrt(flat.size) < 4.5
    many = Normals(0, range(16), ["a"], range(16)).draw(1, 100, 200).numpy()
    far, expected = (np.abs(many) > 4).sum(), 2 * norm.sf(4) * many.size
    assert far == pytest.approx(expected, abs=5 * np.sqrt(expected))


def test_a_stream_is_named_by_source_band_draw_and_stage_alone():
    whole = Normals(3, [1, "x"], ["r", "g"], range(4))
    first, second = whole.draw(2, 7, 9), whole.draw(2, 7, 9)
    alone = Normals(3, ["x"], ["g"], range(2, 3), first_stage=1)
    assert torch.equal(alone.draw(1, 7, 9)[0, 0, 0], second[1, 2, 1])
    assert not torch.equal(first, second)
    names = [(3, 1, "r"), (4, 1, "r"), (3, "1", "r"), (3, 1, "g"), (3, 1, 0), (3, 1, "0"), (3, '1, "r"', "")]
    assert len({tuple(stream_keys(s, [i], [b]).flatten().tolist()) for s, i, b in names}) == len(names)
    assert torch.equal(stream_keys(3, [np.int64(7)], [np.str_("r")]), stream_keys(3, [7], ["r"]))


def test_the_torch_form_is_one_graph():
    explained = torch._dynamo.explain(torch_normals)(*stream(), 36)
    assert explained.graph_break_count == 0, explained.break_reasons
