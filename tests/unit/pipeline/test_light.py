"""Masked pixels count where the light is, and light at the border counts as lost."""

import numpy as np
import pytest

from galbatch.flags import Flag, quality_of
from galbatch.morphology import OwnLight
from galbatch.pipeline.light import contaminated, light_flags, outgrows, second_sources, still_measured
from galbatch.types import BandStamps

Y, X = np.mgrid[:48, :48] - 24


def stamps(image, bad=None, seg=None):
    mask = np.zeros((1, 48, 48), bool) if bad is None else bad[None]
    seg = np.zeros((48, 48), np.int32) if seg is None else seg
    sigma = np.where(mask, np.inf, 1.0)
    noise = np.random.default_rng(0).standard_normal(image.shape)
    psf = np.ones((1, 3, 3))
    return BandStamps(
        "b", (image + noise)[None], sigma, mask, seg[None], psf, np.array(["p"]), 0.03, 0.03, np.zeros((1, 8))
    )


def disc(scale=4.0):
    return 100 * np.exp(-np.hypot(Y, X) / scale)


@pytest.mark.parametrize(("bad", "flag", "quality"), [
    (np.hypot(Y - 20, X - 20) < 3, 0, 0),  # far from the galaxy
    ((np.abs(Y) > 21) & (X > 0), 0, 0),
    ((Y == 0) & (X == 0), 0, 0),  # a hot pixel
    (np.abs(X - 4) < 2, Flag.MASKED_LIGHT, 1),
    (np.hypot(Y, X) < 4, Flag.MASKED_CORE, 2),
    (X > 0, Flag.MASKED_CORE, 2),
])  # fmt: skip
def test_masked_pixels_count_where_the_light_is(bad, flag, quality):
    found = light_flags(stamps(disc(), bad), np.array([0]), disc()[None])
    assert found.tolist() == [int(flag)] and quality_of(found)[0] == quality


def test_light_of_a_masked_neighbour_is_not_the_sources():
    other = 300 * np.exp(-np.hypot(Y - 16, X - 16) / 2)
    near = np.hypot(Y - 16, X - 16) < 8
    found = light_flags(
        stamps(disc(3.0) + other, near, np.where(near, 2, 0)), np.array([0]), (disc(3.0) + other)[None]
    )
    assert found.tolist() == [0]


def test_the_saturated_middle_of_a_fitted_star_is_not_the_sources():
    star = 3000 * np.exp(-np.hypot(Y - 14, X - 14) / 2)
    middle, seg = np.hypot(Y - 14, X - 14) < 3, np.where(np.hypot(Y, X) < 9, 1, 0)
    for label, flag in ((2, 0), (1, Flag.MASKED_CORE)):  # the star's, or a part of the source itself
        labels = np.where((np.hypot(Y - 14, X - 14) < 8) & ~middle, label, seg).astype(np.int32)
        found = light_flags(stamps(disc(3.0) + star, middle, labels), np.array([0]), (disc(3.0) + star)[None])
        assert found.tolist()[0] & int(Flag.MASKED_CORE) == int(flag)


@pytest.mark.parametrize(("image", "flag"), [
    (300 * np.exp(-np.hypot(Y - 15, X) / 2), Flag.OFF_SOURCE),  # a position in the halo of a bright galaxy
    (300 * np.exp(-np.hypot(Y - 7, X) / 2), Flag.SECOND_SOURCE),  # beside one, in its segment
    (300 * np.exp(-np.hypot(Y - 3, X) / 2), 0),  # off by some pixels
    (100 * np.exp(-(((np.hypot(Y, X) - 8) / 3.5) ** 2) / 2), 0),  # a ring
])  # fmt: skip
def test_a_segment_whose_light_is_elsewhere_is_another_sources(image, flag):
    found = light_flags(stamps(image, seg=np.ones((48, 48), np.int32)), np.array([0]), image[None])
    assert found.tolist() == [int(flag)]
    assert quality_of(found)[0] == {0: 0, Flag.SECOND_SOURCE: 1, Flag.OFF_SOURCE: 2}[flag]


def test_what_is_brighter_may_be_a_neighbours_that_is_parted_in_the_draws():
    image, seg = 300 * np.exp(-np.hypot(Y - 7, X) / 2), np.ones((48, 48), np.int32)
    seg[40:] = 2
    for masked, flag in ((seg == 2, Flag.SECOND_SOURCE), (np.zeros_like(seg, bool), 0)):
        found = light_flags(stamps(image, masked, seg), np.array([0]), image[None])
        assert found.tolist() == [int(flag)]


def test_a_source_that_outgrows_its_stamp_is_seen_and_a_neighbour_on_one_side_is_not_it():
    used, one = np.ones((48, 48), bool), np.ones((48, 48))
    noise = np.random.default_rng(0).standard_normal((48, 48))
    assert not outgrows(disc(4.0) + noise, one, used)
    assert outgrows(disc(9.0) + noise, one, used)
    assert outgrows(disc(9.0) + noise, one, used & (X > -20))
    assert not outgrows(disc(4.0) + 60 * np.exp(-np.hypot(Y, X - 23) / 3) + noise, one, used)


def test_what_is_lost_beyond_the_aperture_is_not_missed():
    """Up to a Petrosian radius of 0.325 of the stamp's side."""
    band, small = stamps(disc()), int(Flag.STAMP_TOO_SMALL)
    side = 48 * band.pixel_scale_arcsec
    flags, radii = np.array([small | 1, small, small, 0]), np.array([0.32, 0.33, np.nan, 0.33])
    assert still_measured(flags, radii * side, band).tolist() == [1, small, small, 0]


def test_a_neighbour_counts_where_it_touches_and_is_not_lost_in_the_noise():
    """Blended; blended and faint; faint and outshone from afar; blended, faint and outshone; outshone from
    afar."""
    blended, faint = int(Flag.BLENDED_SEG), int(Flag.LOW_SNR)
    flags = np.array([blended, blended | faint, faint, blended | faint, 0])
    share, no, images = np.array([0.1, 0.1, 0.6, 0.6, 0.9]), np.zeros(5, bool), np.ones((5, 1, 1, 1))

    def found(parted, disputed=no):
        shares = dict.fromkeys(range(5 if parted else 0))
        own = OwnLight(images, images[:, 0], shares, disputed)
        return (contaminated(flags, share, own) != 0).tolist()

    assert found(False) == [True, False, False, True, False]
    assert not any(found(True)) and all(found(True, disputed=~no))


def test_another_galaxy_in_the_segment_is_a_caution_on_any_grid():
    two = disc(3.0) + 60 * np.exp(-np.hypot(Y - 9, X - 8) / 2.5)
    for fine in (1, 2):
        draws = np.stack([disc(3.0), two])[:, None].repeat(fine, 2).repeat(fine, 3)
        seg = (two > 1).astype(np.int32)[None].repeat(2, 0)
        own = OwnLight(draws, seg, {}, np.zeros(2, bool))
        found = second_sources(own, 2.0 * fine)
        assert found.tolist() == [0, int(Flag.SECOND_SOURCE)] and quality_of(found).tolist() == [0, 1]
