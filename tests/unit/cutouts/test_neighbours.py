"""Segmentation, neighbours and sky of single stamps, with the survey's map and without."""

import numpy as np
import pytest
from cutouts_field import add_galaxy, noise_field, simple_survey, sources, wcs_of, write_image

from galbatch.cutouts import open_survey
from galbatch.cutouts.neighbours import describe_neighbours, segment
from galbatch.morphology.separate import fitted_neighbours
from galbatch.types import Flag


def field(*galaxies, sky=0.0):
    image = noise_field(sigma=0.5) + np.float32(sky)
    for y, x, flux in galaxies:
        add_galaxy(image, y, x, flux)
    return image


def cut(tmp_path, image, head="", extra="", size=48, **columns):
    survey = open_survey(simple_survey(tmp_path, image, head=head, extra=extra))
    batch = survey.cut(sources([120], [150], **columns), size)
    return batch.bands[0], Flag(int(batch.flags[0]))


def test_an_isolated_galaxy(tmp_path):
    stamps, flags = cut(tmp_path, field((150, 120, 800)))
    assert stamps.seg[0, 24, 24] == 1 and set(np.unique(stamps.seg)) == {0, 1}
    assert 60 < (stamps.seg == 1).sum() < 400
    assert stamps.columns["neighbour_frac"][0] == 0 and stamps.columns["n_neighbours"][0] == 0
    assert not stamps.mask.any() and not flags
    assert abs(stamps.columns["background_njy"][0]) < 4 * stamps.columns["background_err_njy"][0]


def test_neighbours_that_touch_are_fitted_and_others_masked(tmp_path):
    image = field((150, 120, 900), (150, 128, 700), (168, 138, 800))
    stamps, _ = cut(tmp_path, image)
    assert stamps.seg[0, 24, 33] > 1 and stamps.seg[0, 42, 42] > 1
    assert not stamps.mask[0, 24, 33] and stamps.mask[0, 42, 42]
    fitted = fitted_neighbours(stamps.seg[0], stamps.mask[0])
    assert fitted[24, 33] and not fitted[42, 42] and not fitted[24, 24]


@pytest.mark.parametrize("policy", ["mask", "keep"])
def test_a_neighbour_is_masked_or_kept(tmp_path, policy):
    stamps, flags = cut(tmp_path, field((150, 120, 800), (163, 133, 800)), head=f'neighbours = "{policy}"')
    assert stamps.seg[0, 24, 24] == 1 and stamps.seg[0, 37, 37] == 2
    assert stamps.columns["n_neighbours"][0] == 1
    assert stamps.columns["neighbour_frac"][0] == pytest.approx(0.5, abs=0.06)
    assert Flag.NEIGHBOUR in flags
    assert stamps.mask[0, 37, 37] == (policy == "mask") and not stamps.mask[0, 24, 24]
    assert np.isfinite(stamps.data[0, 37, 37])
    near = stamps.seg[0] >= 2
    assert stamps.mask[0].sum() > near.sum() if policy == "mask" else not stamps.mask.any()


def test_nothing_there(tmp_path):
    stamps, flags = cut(tmp_path, field())
    assert Flag.NO_SEG in flags and not np.any(stamps.seg == 1)


@pytest.mark.parametrize("name", ["own", "centre"])
def test_the_surveys_map(tmp_path, name):
    labels = np.zeros((300, 260), np.int64)
    labels[140:160, 110:130], labels[160:170, 110:130] = 2**40 + 7, 5
    write_image(tmp_path / "seg.fits", labels, wcs_of())
    columns = {"segmap_id": np.array([5 if name == "own" else -1])}
    stamps, flags = cut(tmp_path, field((150, 120, 800)), extra='seg = "seg.fits"', **columns)
    inner = stamps.seg[0, 14:34, 14:34]
    assert np.all(inner == (2 if name == "own" else 1))
    assert np.all(stamps.seg[0, 34:44, 14:34] == (1 if name == "own" else 2))
    assert Flag.NO_SEG not in flags and stamps.columns["n_neighbours"][0] == 1


def test_a_crowded_stamp_does_not_overflow_the_deblender(tmp_path):
    image = np.random.default_rng(0).exponential(50, (300, 260)).astype("f4")
    stamps, _ = cut(tmp_path, image, size=64)
    assert stamps.columns["n_neighbours"][0] > 0


def exponential(scale, flux=1.0, side=64):
    y, x = np.mgrid[:side, :side] - (side // 2)
    return flux * np.exp(-np.hypot(y, x) / scale)


def describe(image):
    """What is said of a stamp with noise of 1."""
    data, sigma, bad = image.astype("f4"), np.ones((64, 64), "f4"), np.zeros((64, 64), bool)
    seg, _ = segment(data, sigma, bad)
    return describe_neighbours(data[None], sigma[None], bad[None], seg[None])


@pytest.mark.parametrize("scale", [4.0, 8.0, 12.0])
def test_wings_that_fill_the_stamp_are_not_called_sky(scale):
    noise = np.random.default_rng(1).normal(0, 1, (64, 64))
    assert not describe(noise + exponential(scale, 200.0)).flags[0] & Flag.BACKGROUND


@pytest.mark.parametrize("level", [-1.0, 1.0])
def test_a_sky_level_under_a_galaxy_is_found(level):
    noise = np.random.default_rng(2).normal(0, 1, (64, 64))
    found = describe(noise + level + exponential(3.0, 200.0))
    assert found.flags[0] & Flag.BACKGROUND
    assert found.columns["background_njy"][0] == pytest.approx(level, abs=0.2)


@pytest.mark.parametrize("beyond", [44, 45, 46])
def test_two_galaxies_at_the_edge_of_an_image_are_separated(beyond):
    y, x = np.indices((64, 64))
    image = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    for b, a, peak, size in ((32, 32, 8, 2.2), (38, 44, 14, 2.6)):
        image += np.float32(peak) * np.exp(-((y - b) ** 2 + (x - a) ** 2) / (2 * size**2)).astype(np.float32)
    bad = y >= beyond
    seg, _ = segment(np.where(bad, np.nan, image), np.ones_like(image), bad)
    assert seg[32, 32] == 1 and seg[38, 44] > 1 and not seg[bad].any()


@pytest.mark.parametrize("width", [1, 2, 3])
def test_bad_columns_do_not_part_a_galaxy(width):
    y, x = np.indices((64, 64)) - 32
    galaxy = 20 * np.exp(-np.hypot(x / 8, y / 4))
    image = (galaxy + np.random.default_rng(2).standard_normal((64, 64))).astype(np.float32)
    bad = (x >= 4) & (x < 4 + width)
    seg, blended = segment(np.where(bad, np.nan, image), np.ones_like(image), bad)
    assert not blended and seg[32, 24] == seg[32, 42] == 1 and not seg[bad].any()
