"""Light of neighbours taken out of draws: known divisions, and draws that have none."""

import numpy as np
import pytest

from galbatch.morphology import own_light, second_source
from galbatch.morphology.separate import highest_pass, own_share

Y, X = np.indices((64, 64))


def galaxy(y, x, flux, scale=3.0, ratio=0.7, angle=0.4):
    """An inclined exponential disc."""
    u = np.cos(angle) * (X - x) + np.sin(angle) * (Y - y)
    v = (np.cos(angle) * (Y - y) - np.sin(angle) * (X - x)) / ratio
    image = np.exp(-np.hypot(np.hypot(u, v), 0.7) / scale)
    return flux * image / image.sum()


def scene(distance=14, flux=1.0, draws=16):
    """Draws (1, k, 64, 64) of a source and its neighbour, segments of pixels where each is brighter, and the
    source alone."""
    own, other = (
        galaxy(32, 32, 100),
        galaxy(32 + 0.6 * distance, 32 + 0.8 * distance, 100 * flux, 2.5, 0.9, 2),
    )
    seg = np.where(own > other, 1, 2) * (own + other > 0.02)
    draws = (own + other)[None, None].repeat(draws, 1).astype(np.float32)
    return draws, seg[None].astype(np.int32), own


@pytest.mark.parametrize("distance", [14, 20])
@pytest.mark.parametrize("flux", [0.3, 1.0, 3.0])
def test_the_light_of_a_source_is_found_and_its_error_spans_the_truth(distance, flux):
    draws, seg, own = scene(distance, flux)
    assert abs(draws[0, 0][seg[0] == 1].sum() / own.sum() - 1) > 0.01  # the segment alone does not do
    found = own_light(draws, seg, np.zeros(seg.shape, bool))
    light = found.samples[0].sum((1, 2))
    assert np.median(light) == pytest.approx(own.sum(), rel=0.03)
    assert light.min() < own.sum() < light.max()
    assert not (found.seg > 1).any() and list(found.share) == [0] and not found.disputed[0]
    np.testing.assert_array_equal(draws, scene(distance, flux)[0])  # not changed in place


def test_the_closer_two_are_the_more_draws_differ():
    spread = [
        np.std(np.log(own_light(*scene(d)[:2], np.zeros((1, 64, 64), bool)).samples.sum((2, 3))))
        for d in (10, 14, 24)
    ]
    assert spread[0] > 1.5 * spread[1] > 3 * spread[2]


def test_a_piece_of_the_galaxy_itself_is_uncertain_though_little_light_is_in_dispute():
    """Knots in a disc, of which SEP takes one away: no valley parts the pieces."""
    knots = [galaxy(32 + side * 9.2, 32 + side * 3.9, 10, 1.5, 1.0) for side in (-1, 1)]
    image = galaxy(32, 32, 100, 4.0) + sum(knots)
    seg = (np.where(np.hypot(Y - 41.2, X - 35.9) < 5, 2, 1) * (image > 0.02))[None].astype(np.int32)
    draws = image[None, None].repeat(16, 1).astype(np.float32)
    found = own_light(draws, seg, np.zeros(seg.shape, bool))
    dispute = (draws * np.minimum(found.share[0], 1 - found.share[0])).sum() / found.samples.sum()
    assert found.disputed[0] and dispute < 0.2 and found.samples[0].sum((1, 2)).mean() < 0.85 * image.sum()
    assert highest_pass(image, seg[0]) > 0.7 > 3 * highest_pass(scene(20)[0][0, 0], scene(20)[1][0])


def test_overlapping_neighbours_are_uncertain_and_bright_ones_are_not_for_being_bright():
    nothing = np.zeros((1, 64, 64), bool)
    assert own_light(*scene(7, 1.0)[:2], nothing).disputed[0]
    assert own_light(*scene(14, 8.0)[:2], nothing).disputed[0]
    draws, seg, _ = scene(26, 8.0)
    found = own_light(draws, seg, nothing)
    assert not found.disputed[0] and np.median(found.samples[0].sum((1, 2))) == pytest.approx(100, rel=0.03)


def test_draws_without_fitted_neighbours_stay_as_they_are():
    draws, seg, _ = scene()
    masked = own_light(draws, seg, seg == 2)
    alone = own_light(draws, np.minimum(seg, 1), np.zeros(seg.shape, bool))
    for found in (masked, alone):
        assert found.samples is draws and not found.share
    np.testing.assert_array_equal(masked.seg, seg)


def test_shares_of_all_add_up_on_fine_pixels_and_beside_missing_draws():
    draws, seg, _ = scene()
    draws[0, 3] = np.nan
    coarse = seg[:, ::2, ::2]
    found = own_light(draws, coarse, np.zeros(coarse.shape, bool), 2)
    assert np.isnan(found.samples[0, 3]).all() and np.isfinite(found.samples[0, :3]).all()
    fine = coarse[0].repeat(2, 0).repeat(2, 1)
    one, two = own_share(draws[0, :2], fine), own_share(draws[0, :2], np.where(fine > 0, 3 - fine, 0))
    assert (one >= 0).all() and (one <= 1).all()
    assert np.abs(one + two - 1).mean() < 0.1  # the factor of the source is not that of the neighbour


def test_a_stamp_edge_beside_the_neighbour_does_not_give_it_the_source():
    own, other = galaxy(32, 32, 100), galaxy(32, 58, 60)
    seg = (np.where(own > other, 1, 2) * (own + other > 0.02))[None].astype(np.int32)
    draws = (own + other)[None, None].repeat(8, 1).astype(np.float32)
    found = own_light(draws, seg, np.zeros(seg.shape, bool))
    assert np.median(found.samples.sum((2, 3))) == pytest.approx(100, rel=0.03)


def clumpy(rng, clumps=25, each=0.01):
    """A disc of flux 100 with clumps of one per cent of its light anywhere in it."""
    image = galaxy(32, 32, 100, 4.0)
    for _ in range(clumps):
        y, x = 32 + 5 * rng.standard_normal(2)
        image = image + 100 * each * np.exp(-((Y - y) ** 2 + (X - x) ** 2) / 2) / (2 * np.pi)
    return image


def test_a_second_galaxy_in_the_segment_shows_and_clumps_do_not():
    def share(image, seg=None):
        seg = (image > 0.01).astype(np.int32) if seg is None else seg
        return second_source(image, seg, 2.0)

    one = galaxy(32, 32, 100)
    assert share(one) < 0.01
    assert max(share(clumpy(np.random.default_rng(i))) for i in range(8)) < 0.05
    for flux in (0.3, 1.0, 3.0):
        other = galaxy(40, 40, 100 * flux, 2.5, 0.9, 2)
        assert share(one + other) > 0.05
    # beside a masked neighbour, and where that is not the source's
    other = galaxy(46, 44, 100, 2.0)
    seg = np.where(one > other, 1, 2) * (one + other > 0.01)
    assert share(one + other, seg) < 0.05 < share(one + other)
    assert share(np.full((64, 64), np.nan)) == 0 and share(one, np.zeros((64, 64))) == 0
