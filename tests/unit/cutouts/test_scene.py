"""One segmentation for all bands: the same segments in bands of other depths, scales and frames."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from cutouts_field import SCALE, add_galaxy, noise_field, sources, wcs_of, write_bands, write_image

from galbatch.cutouts import load_survey, open_survey
from galbatch.cutouts.scene import Step, View, combine
from galbatch.types import Flag

SIGMA = 0.5


def survey_of(folder, extra=None, **bands):
    return open_survey(write_bands(folder, extra, **bands))


def image_of(*galaxies, seed=0, sigma=SIGMA, shape=(300, 260), fwhm=5.0):
    image = noise_field(seed, *shape, sigma=sigma)
    for y, x, flux in galaxies:
        add_galaxy(image, y, x, flux, fwhm)
    return image


def test_a_neighbour_that_one_band_shows_is_masked_in_all(tmp_path):
    """The neighbour has a hundredth of the light in b: b alone takes the blend for one source."""
    a = image_of((150, 120, 900), (150, 130, 900))
    b = image_of((150, 120, 900), (150, 130, 9), seed=1)
    survey = survey_of(tmp_path, a=(a, wcs_of(), SIGMA), b=(b, wcs_of(), SIGMA))
    batch = survey.cut(sources([120], [150]), 48)
    one, two = batch.bands
    np.testing.assert_array_equal(one.seg, two.seg)
    assert one.seg[0, 24, 24] == 1 and one.seg[0, 24, 34] == 2
    np.testing.assert_array_equal(one.mask, two.mask)
    assert all(band.flags[0] & Flag.BLENDED_SEG for band in batch.bands)
    fluxes = [np.where(band.seg == 1, band.data, 0).sum() for band in batch.bands]
    assert fluxes[0] == pytest.approx(fluxes[1], rel=0.1)


def test_a_band_that_does_not_lead_changes_no_segment_but_where_no_other_has_pixels(tmp_path):
    """Band a shows one source, b a neighbour too; the second source lies where a has no pixel."""
    a, b = image_of((150, 70, 900)), image_of((150, 70, 900), (150, 81, 900), (150, 200, 900), seed=1)
    a[:, 150:] = np.nan
    write = {"a": (a, wcs_of(), SIGMA), "b": (b, wcs_of(), SIGMA)}
    path = write_bands(tmp_path, None, **write)
    rows = sources([70, 200], [150, 150])
    together = open_survey(path).cut(rows, 48).bands
    alone = open_survey(load_survey(path, ["a"])).cut(rows, 48).bands[0]
    path.write_text('segment_bands = ["a"]\n' + path.read_text())
    led = open_survey(path).cut(rows, 48).bands
    assert led[0].seg[0].max() == 1 and together[0].seg[0].max() == 2
    for name in ("seg", "mask", "sigma", "data"):
        np.testing.assert_array_equal(getattr(led[0], name)[0], getattr(alone, name)[0])
        np.testing.assert_array_equal(getattr(led[1], name)[1], getattr(together[1], name)[1])
    np.testing.assert_array_equal(led[0].seg[0], led[1].seg[0])
    assert led[1].seg[1, 24, 24] == 1


def test_bands_together_see_what_none_sees_alone(tmp_path):
    images = {name: image_of((150, 120, 6), seed=k) for k, name in enumerate("abcdefghi")}
    alone = []
    for name, image in images.items():
        (tmp_path / name).mkdir()
        survey = survey_of(tmp_path / name, a=(image, wcs_of(), SIGMA))
        alone.append((survey.cut(sources([120], [150]), 48).bands[0].seg == 1).sum())
    survey = survey_of(tmp_path, **{name: (image, wcs_of(), SIGMA) for name, image in images.items()})
    together = survey.cut(sources([120], [150]), 48)
    assert (together.bands[0].seg == 1).sum() > 30
    assert np.median(alone) < 15


@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_segments_lie_at_one_place_on_the_sky(tmp_path, angle):
    """A band of twice the pixel, turned and off by a fraction of a pixel: an arc of light and a neighbour."""
    fine = wcs_of()
    coarse = wcs_of(151, 131, scale=2 * SCALE, angle=angle)
    a = image_of((150.3, 120.4, 1500), (158, 126, 1200), (168, 110, 2000))
    there = coarse.all_world2pix(*fine.all_pix2world([120.4, 126, 110], [150.3, 158, 168], 0), 0)
    b = image_of(
        *zip(there[1], there[0], (1500, 1200, 2000), strict=True), seed=1, shape=(151, 131), fwhm=2.5
    )
    survey = survey_of(tmp_path, a=(a, fine, SIGMA), b=(b, coarse, SIGMA))
    batch = survey.cut(sources([120.4], [150.3]), 64)
    for label in (1, 2, 3):
        places = []
        for band in batch.bands:
            y, x = np.nonzero(band.seg[0] == label)
            crpix, cd = band.wcs[0, :2], band.wcs[0, 4:].reshape(2, 2)
            dx, dy = cd @ (np.array([x.mean(), y.mean()]) + 1 - crpix) * 3600 / SCALE
            places.append((dx, dy, len(x) * band.ratio**2))
        assert np.hypot(*np.subtract(places[0], places[1])[:2]) < 0.5  # fine pixels
        assert places[0][2] == pytest.approx(places[1][2], rel=0.15)  # half of the edge


def test_a_map_of_one_band_serves_the_others(tmp_path):
    labels = np.zeros((300, 260), np.int64)
    labels[140:160, 110:130], labels[160:170, 110:130] = 7, 5
    write_image(tmp_path / "seg.fits", labels, wcs_of())
    image = image_of((150, 120, 800))
    survey = survey_of(
        tmp_path,
        {"b": 'seg = "seg.fits"'},
        a=(image, wcs_of(), SIGMA),
        b=(image, wcs_of(), SIGMA),
    )
    for wanted, own, other in ((7, 1, 2), (5, 2, 1)):
        batch = survey.cut(sources([120], [150], segmap_id=np.array([wanted])), 48)
        for band in batch.bands:
            assert np.all(band.seg[0, 14:34, 14:34] == own) and np.all(band.seg[0, 34:44, 14:34] == other)


def test_a_source_off_the_finest_band_has_the_scene_of_the_others(tmp_path):
    fine, coarse = wcs_of(100, 100), wcs_of(150, 130, scale=2 * SCALE)
    b = image_of((40.2, 65.3, 900), (48, 72, 900), shape=(150, 130), fwhm=2.5)
    survey = survey_of(tmp_path, a=(image_of(shape=(100, 100)), fine, SIGMA), b=(b, coarse, SIGMA))
    batch = survey.cut(sources([65.3], [40.2], coarse), 48)
    band = batch.bands[1]
    assert not batch.failures and batch.bands[0].mask.all()
    assert band.seg[0, 12, 12] == 1 and band.seg[0, 20, 19] == 2
    assert 5 < (band.seg[0] == 1).sum() < 70


def test_bands_without_a_wcs_are_taken_to_be_aligned(tmp_path):
    """Pixel positions in a band with a turned WCS that is used, and in one whose WCS is left out."""
    a = image_of((150, 120, 900), (150, 130, 900))
    write = {"a": (a, wcs_of(angle=30), SIGMA), "b": (a, wcs_of(scale=SCALE / 3), SIGMA)}
    survey_of(tmp_path, {"b": f"pixel_scale_arcsec = {SCALE}"}, **write)
    path = tmp_path / "s.toml"
    path.write_text("pixel_columns = true\n" + path.read_text())
    rows = {"source_id": np.array([1]), "x": np.array([120.2]), "y": np.array([150.1])}
    one, two = open_survey(path).cut(rows, 48).bands
    np.testing.assert_array_equal(one.seg, two.seg)
    assert one.seg[0, 24, 34] == 2


def test_the_scene_has_the_noise_that_it_states():
    """Of bands of one and of two pixels: chi2 of blank sky smoothed over the larger pixel is one."""
    rng = np.random.default_rng(0)
    n, shift = 400, 0.3
    views = []
    for side, sigma, ratio in ((32, 2.0, 1), (16, 3.0, 2)):
        shape = (n, side, side)
        planes = rng.normal(0, sigma, shape), np.full(shape, sigma), np.zeros(shape, bool)
        views.append(View(*planes, None, None, None, ratio))
    steps = [Step(np.eye(2), np.zeros(2)), Step(2 * np.eye(2), np.full(2, shift))]
    means, errors = [], []
    for i in range(n):
        light, sigma, bad = combine(views, i, steps, 32)
        box = np.s_[8:24, 8:24]
        assert not bad[box].any()
        weight = 1 / sigma[box] ** 2
        means.append((light[box] * weight).sum() / weight.sum())
        errors.append(weight.sum() ** -0.5)
    assert np.std(means) / np.mean(errors) == pytest.approx(1, abs=4 / np.sqrt(2 * n))


def test_a_faint_band_of_a_real_galaxy_has_the_segments_of_the_deep_one(tmp_path, shared_data):
    """An HSC cutout in r, and the same sky with eight times the noise, where a band by itself sees other
    segments and so other fluxes."""
    with fits.open(next(Path(shared_data / "hsc_cutout").glob("cutout*.fits"))) as hdus:
        image = np.nan_to_num(hdus[1].data.astype("f4"))
    size = min(image.shape)
    image = image[:size, :size]
    sigma = 1.4826 * np.median(np.abs(image - np.median(image)))
    faint = image + np.random.default_rng(0).normal(0, 8 * sigma, image.shape)
    wcs = wcs_of(size, size, scale=0.168)
    y, x = np.unravel_index(np.argmax(image[30:-30, 30:-30]), (size - 60, size - 60))
    rows = sources([x + 30], [y + 30], wcs)
    bands = {"r": (image, wcs, sigma), "g": (faint, wcs, 8 * sigma)}
    batch = survey_of(tmp_path, **bands).cut(rows, 64)
    np.testing.assert_array_equal(batch.bands[0].mask, batch.bands[1].mask)
    np.testing.assert_array_equal(batch.bands[0].seg, batch.bands[1].seg)
    fluxes = [np.where((b.seg == 1), b.data, 0).sum() for b in batch.bands]
    noise = np.sqrt(65) * sigma * np.sqrt((batch.bands[0].seg == 1).sum())
    assert abs(fluxes[0] - fluxes[1]) < 4 * noise
