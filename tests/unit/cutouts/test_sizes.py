"""Stamps that fit their sources: which outgrow a class, and runs with stamps of several sizes."""

import numpy as np
import pytest
from cutouts_field import SCALE, add_galaxy, noise_field, simple_survey, sources
from pyarrow import parquet, table
from toys import RedPrior

from galbatch import open_run
from galbatch.cutouts import classes, cut_fitting, open_survey, outgrown, outgrows
from galbatch.errors import ConfigError
from galbatch.run import process
from galbatch.store.posterior import open_store
from galbatch.store.verify import _not_finite
from galbatch.types import Flag

PLACES = [(60.0, 150.0), (150.0, 80.0), (180.0, 220.0)]  # compact, large, a star's wing
SIDES = (64, 96, 128)


def disc(image, y, x, flux, scale, axis_ratio=1.0):
    yy, xx = np.indices(image.shape)
    r = np.hypot(xx - x, (yy - y) / axis_ratio)
    image += (flux * np.exp(-r / scale) / (2 * np.pi * axis_ratio * scale**2)).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A compact galaxy; a disc of which a stamp of 64 pixels loses 9% and one of 96 2%; a galaxy 40 pixels
    from a star far brighter than itself."""
    folder = tmp_path_factory.mktemp("sizes")
    image = noise_field(ny=300, nx=260)
    (y1, x1), (y2, x2), (y3, x3) = PLACES
    add_galaxy(image, y1, x1, 1500)
    disc(image, y2, x2, 20000, 8.0)
    add_galaxy(image, y3, x3, 1500)
    disc(image, y3, x3 + 44, 300000, 4.0)
    simple_survey(folder, image)
    rows = sources([x for _, x in PLACES], [y for y, _ in PLACES])
    parquet.write_table(table(rows), folder / "c.parquet")
    return folder


def rows_of(**more):
    return sources([x for _, x in PLACES], [y for y, _ in PLACES]) | more


def test_a_source_grows_until_it_fits_and_a_star_makes_none_grow(folder):
    survey = open_survey(folder / "survey.toml")
    pieces = cut_fitting(survey.cut, rows_of(), SIDES, SCALE)
    sides = {int(i): s.bands[0].data.shape[1] for places, s in pieces for i in places}
    assert sides == {0: 64, 1: 96, 2: 64}
    small = survey.cut(rows_of(), 64)
    assert outgrown(small).tolist() == [False, True, False]
    assert not outgrown(survey.cut(rows_of(), 96))[1]


def test_a_source_s_stamp_does_not_depend_on_the_others(folder):
    survey = open_survey(folder / "survey.toml")
    together = cut_fitting(survey.cut, rows_of(), SIDES, SCALE)
    for i in range(3):
        one = {k: v[i : i + 1] for k, v in rows_of().items()}
        [(_, alone)] = cut_fitting(survey.cut, one, SIDES, SCALE)
        places, stamps = next((p, s) for p, s in together if i in p)
        n = places.tolist().index(i)
        for name in ("data", "sigma", "mask", "seg", "psf", "wcs", "to_scene", "flags"):
            mine, other = getattr(stamps.bands[0], name), getattr(alone.bands[0], name)
            np.testing.assert_array_equal(mine[n], other[0])
        assert stamps.flags[n] == alone.flags[0] and stamps.source_id[n] == alone.source_id[0]


def test_a_row_s_own_size_chooses_its_class(folder):
    survey = open_survey(folder / "survey.toml")
    wanted = np.array([100 * SCALE, 40 * SCALE, np.nan])
    pieces = cut_fitting(survey.cut, rows_of(stamp_arcsec=wanted), SIDES, SCALE)
    sides = {int(i): s.bands[0].data.shape[1] for places, s in pieces for i in places}
    assert sides == {0: 128, 1: 64, 2: 64}  # a source that outgrows the size it was given is not cut again


def test_an_edge_on_disc_is_seen_by_its_two_ends(tmp_path):
    image = noise_field()
    disc(image, 150, 120, 9000, 10.0, 0.15)
    survey = open_survey(simple_survey(tmp_path, image))
    assert outgrown(survey.cut(sources([120], [150]), 64))[0]


def stamp_of(image, y, x, side=64):
    half = side // 2
    data = image[y - half : y + half, x - half : x + half]
    return data, np.ones_like(data), np.ones(data.shape, bool)


@pytest.mark.parametrize(("peak_sn", "lost"), [(6.0, 0.25), (50.0, 0.25)])
def test_faint_light_on_all_sides_is_light_lost(peak_sn, lost):
    """A disc of low surface brightness: its border is lost in the noise of a pixel, not in that of all."""
    light = np.zeros((300, 300), "f4")
    disc(light, 150, 150, 1.0, 14.0)
    inside = stamp_of(light, 150, 150)[0].sum()
    assert 1 - inside / light.sum() > lost
    noise = np.random.default_rng(3).normal(size=light.shape).astype("f4")
    assert outgrows(*stamp_of(light * peak_sn / light.max() + noise, 150, 150))


def test_a_disc_edge_on_through_two_sides_outgrows_its_stamp():
    image = np.random.default_rng(4).normal(size=(300, 300)).astype("f4")
    disc(image, 150, 150, 40000, 16.0, 0.12)
    assert outgrows(*stamp_of(image, 150, 150)) and outgrows(*stamp_of(image.T, 150, 150))


def test_light_beyond_the_edge_of_the_image_is_missed_too():
    image = np.random.default_rng(5).normal(size=(300, 300)).astype("f4")
    disc(image, 150, 150, 20000, 12.0)
    data, sigma, used = stamp_of(image, 150, 150, 128)
    used[:40], used[-40:], used[:, :40], used[:, -40:] = False, False, False, False  # an image of 48 pixels
    assert outgrows(data, sigma, used)


def test_what_one_side_or_one_corner_has_alone_is_another_s():
    """A star beyond one side, one beyond a corner (its wings are on two sides), and a level of the sky."""
    for y, x in ((150, 190), (188, 188)):
        image = np.random.default_rng(6).normal(size=(300, 300)).astype("f4")
        disc(image, 150, 150, 1500, 2.0)
        disc(image, y, x, 30000, 5.0)
        assert not outgrows(*stamp_of(image, 150, 150))
    image = np.random.default_rng(7).normal(size=(300, 300)).astype("f4") + np.float32(0.4)
    disc(image, 150, 150, 1500, 2.0)
    assert not outgrows(*stamp_of(image, 150, 150))


def test_what_the_image_does_not_have_is_not_asked_for(tmp_path):
    """A source that fills an image of 80 pixels is flagged, and not cut again: there is nothing to read."""
    image = noise_field()
    disc(image, 150, 120, 60000, 12.0)
    inside = np.zeros(image.shape, bool)
    inside[110:190, 80:160] = True
    image[~inside] = np.nan
    survey = open_survey(simple_survey(tmp_path, image))
    pieces = cut_fitting(survey.cut, sources([120], [150]), SIDES, SCALE)
    assert [s.bands[0].data.shape[1] for _, s in pieces] == [96]


def test_classes_leave_whole_pixels_of_every_band_on_either_side():
    assert classes([1]) == (64, 96, 128) and classes([1, 2]) == (64, 96, 128)
    assert classes([1, 3]) == (66, 96, 132)
    assert classes([1], 48) == (48,) and classes([1], 300) == (64, 96, 128, 300)


def test_auto_and_a_size_are_a_contradiction(tmp_path):
    for size in ("stamp_pix = 64", "stamp_arcsec = 2.0"):
        path = simple_survey(tmp_path, head=f'stamp = "auto"\n{size}')
        with pytest.raises(ConfigError, match='stamp = "auto" leaves the size'):
            open_survey(path)
    assert open_survey(simple_survey(tmp_path, head='stamp = "auto"')).config.stamp_auto


def run_of(folder, name, **more):
    options = dict(prior=RedPrior(), cluster="none", draws=2, mode="fast", batch=2) | more
    return process(folder / "c.parquet", folder / "survey.toml", folder / f"{name}.run", **options)


@pytest.fixture(scope="module")
def runs(folder):
    """By itself, and with all stamps of 96 pixels."""
    return run_of(folder, "auto"), run_of(folder, "fixed", stamp_pix=96)


def test_a_run_keeps_each_stamp_in_its_own_size(runs):
    auto, fixed = runs
    assert auto.layout.sides == SIDES and auto.layout.stamp_pix == 128 and fixed.layout.sides == ()
    assert [auto.stamp_pix(i) for i in (1, 2, 3)] == [64, 96, 64]
    for name in ("observed", "sigma", "mask", "mean", "samples", "model"):
        mine, other = getattr(auto, name)(2, "f200w"), getattr(fixed, name)(2, "f200w")
        assert mine.shape == other.shape and mine.shape[-1] == 96
        np.testing.assert_array_equal(mine, other)
    assert auto.wcs(2).wcs == fixed.wcs(2).wcs
    np.testing.assert_array_equal(auto.observed(1, "f200w"), fixed.observed(1, "f200w")[16:80, 16:80])
    x, y = auto.wcs(1).all_world2pix(*fixed.wcs(1).all_pix2world(48, 48, 0), 0)
    assert (float(x), float(y)) == pytest.approx((32, 32), abs=1e-6)


def test_the_store_is_empty_outside_of_stamps(runs):
    group = runs[0].to_xarray()
    place = [str(i) for i in group["source_id"].values].index("1")
    assert int(group["stamp_pix"][place]) == 64
    outside = np.ones((128, 128), bool)
    outside[32:96, 32:96] = False
    assert np.isnan(group["mean"].values[place, 0][outside]).all()
    assert (group["mask"].values[place, 0][outside] == 1).all()
    assert np.isfinite(group["mean"].values[place, 0][~outside]).all()


def test_what_grew_is_as_good_as_what_was_cut_so_and_what_did_not_is_flagged(runs, folder):
    auto = runs[0]
    names = [n for n in auto.catalog.colnames if auto.catalog[n].dtype.kind in "fi"]
    one, two = (run.catalog[np.asarray(run.catalog["source_id"]) == 2] for run in runs)
    for name in names:
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(two[name]), err_msg=name)
    small = run_of(folder, "small", stamp_pix=48)
    assert small.flags(2) & Flag.STAMP_TOO_SMALL
    assert not open_run(auto.paths.root).flags(2) & Flag.STAMP_TOO_SMALL


def test_the_stamps_of_a_run_can_be_cut_again(runs):
    from galbatch.report.read import RunReader

    stamp, _ = RunReader(runs[0]).stamp(2, "f200w")
    np.testing.assert_array_equal(stamp.data[0], runs[0].observed(2, "f200w"))


def test_what_is_outside_of_a_stamp_is_no_damage(runs):
    """`verify` looks for means that are not finite inside of stamps: around a small one there is nothing."""
    auto, _ = runs
    arrays = {name: values[:] for name, values in open_store(auto.paths.posterior).arrays()}
    inside = auto.layout.place(64)
    assert _not_finite(auto.layout, arrays, slice(0, 2)) == []
    arrays["mean"][0, 0, inside.start, inside.start] = np.nan
    assert _not_finite(auto.layout, arrays, slice(0, 2)) == [0]
