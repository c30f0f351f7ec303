"""Stamps of batches: positions, edges, causes of bad pixels, tiles, ratios, PSFs; one bad source never
spoils another."""

import pickle

import numpy as np
import pytest
from astropy.nddata import Cutout2D
from cutouts_field import (
    SCALE,
    add_galaxy,
    gaussian_psf,
    noise_field,
    simple_survey,
    sources,
    wcs_from,
    write_image,
)

from galbatch.cutouts import check_footprint, open_survey
from galbatch.errors import InputError
from galbatch.types import Flag


def same(a, b, i, j=None):
    """Source i of batch a equals source j of batch b in every array."""
    j = i if j is None else j
    assert a.flags[i] == b.flags[j]
    for p, q in zip(a.bands, b.bands, strict=True):
        for name in ("data", "sigma", "mask", "seg", "psf", "wcs"):
            np.testing.assert_array_equal(getattr(p, name)[i], getattr(q, name)[j], err_msg=name)
        for name in p.columns:
            np.testing.assert_array_equal(p.columns[name][i], q.columns[name][j], err_msg=name)


def test_stamps_are_cutout2d_with_the_same_wcs(tmp_path):
    sci = noise_field()
    survey = open_survey(simple_survey(tmp_path, sci))
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-10, 270, 50), rng.uniform(-10, 310, 50)
    rows = sources(x, y)
    batch = survey.cut(rows, 32)
    stamps = batch.bands[0]
    for i in range(50):
        cx, cy = int(np.floor(x[i] + 0.5)), int(np.floor(y[i] + 0.5))
        want = np.full((32, 32), np.nan)
        for r in range(32):
            for c in range(32):
                py, px = cy - 16 + r, cx - 16 + c
                if 0 <= py < 300 and 0 <= px < 260:
                    want[r, c] = sci[py, px]
        inside = -0.5 < x[i] < 259.5 and -0.5 < y[i] < 299.5
        np.testing.assert_array_equal(
            stamps.data[i], want.astype("f4") if inside else np.full((32, 32), np.nan, "f4")
        )
        if inside:
            px, py = wcs_from(stamps.wcs[i]).all_world2pix(rows["ra"][i], rows["dec"][i], 0)
            assert (float(px - 16), float(py - 16)) == pytest.approx((x[i] - cx, y[i] - cy), abs=1e-6)
    odd = survey.cut(sources([100.2], [120.7]), 33).bands[0]
    np.testing.assert_array_equal(odd.data[0], Cutout2D(sci, (100.2, 120.7), 33).data)


def test_located_positions(tmp_path):
    survey = open_survey(simple_survey(tmp_path))
    rows = sources([10.25, 259.4, 259.6, np.nan, 100], [20.5, 5, 5, 5, 100])
    rows["ra"][4], rows["dec"][4] = rows["ra"][4] + 180, -rows["dec"][4]
    found = survey.locate(rows["ra"], rows["dec"])
    np.testing.assert_allclose(found.x[:2], [10.25, 259.4], atol=1e-6)
    assert found.tile.tolist() == ["0", "0", "0", "", ""]
    assert [bool(f & Flag.OFF_IMAGE) for f in found.flags] == [False, False, True, True, True]


def test_batches_orders_and_processes_give_the_same(tmp_path):
    sci = noise_field()
    rng = np.random.default_rng(0)
    x, y = rng.uniform(20, 240, 12), rng.uniform(20, 280, 12)
    for a, b in zip(x, y, strict=True):
        add_galaxy(sci, b, a, flux=rng.uniform(50, 500))
    survey = open_survey(simple_survey(tmp_path, sci, extra='err_scale = "measure"\nnoise_acf = "measure"'))
    rows = sources(x, y)
    batch = survey.cut(rows, 32)
    order = rng.permutation(12)
    shuffled = pickle.loads(pickle.dumps(survey)).cut({k: v[order] for k, v in rows.items()}, 32)
    for k, i in enumerate(order):
        same(batch, shuffled, i, k)
    again = open_survey(survey.config, measured=survey.measured, pins=survey.pins)
    same(batch, again.cut({k: v[3:4] for k, v in rows.items()}, 32), 3, 0)
    np.testing.assert_array_equal(batch.bands[0].noise_acf, shuffled.bands[0].noise_acf)


def test_planes_of_different_shape_are_refused(tmp_path):
    path = simple_survey(tmp_path, err=np.ones((300, 259), "f4"))
    with pytest.raises(InputError, match=r"err.fits \(err of f200w\) has \(300, 259\).*\(300, 260\)"):
        open_survey(path).tile("f200w", "0")


@pytest.mark.parametrize("given", [0.0401, 0.0399, 0.02, 0.041])
def test_a_pixel_scale_that_is_not_the_wcs_s_is_an_error_with_both_values(tmp_path, given):
    survey = open_survey(simple_survey(tmp_path, extra=f"pixel_scale_arcsec = {given}"))
    (error,) = [f for f in survey.check() if f.code == "tile"]
    assert error.level == "error" and f"= {given}," in error.what and "0.04 arcsec" in error.what
    with pytest.raises(InputError, match="Remove pixel_scale_arcsec"):
        survey.geometry()


@pytest.mark.parametrize("given", [0.04, 0.04002, 0.03998])
def test_a_pixel_scale_never_moves_a_source(tmp_path, given):
    """The corner of the mosaic, where a rescaled WCS would miss by the most."""
    rows = sources([259.0], [299.0])
    survey = open_survey(simple_survey(tmp_path, extra=f"pixel_scale_arcsec = {given}"))
    found = survey.locate(rows["ra"], rows["dec"])
    assert found.x[0] == pytest.approx(259, abs=1e-6) and found.y[0] == pytest.approx(299, abs=1e-6)


def test_with_pixel_columns_a_pixel_scale_stands_for_a_wcs_that_lost_its_terms(tmp_path):
    path = simple_survey(tmp_path, head="pixel_columns = true", extra="pixel_scale_arcsec = 0.02")
    survey = open_survey(path)
    assert survey.geometry()["f200w"].scale_arcsec == 0.02
    (warning,) = [f for f in survey.check() if f.code == "pixel_scale"]
    assert "0.02 is used" in warning.what and "0.04000" in warning.what and warning.remedy
    found = survey.locate(None, None, x=np.array([250.0]), y=np.array([20.0]))
    assert (found.x[0], found.y[0]) == (250, 20)


def test_a_bad_psf_fails_only_its_sources(tmp_path):
    path = simple_survey(tmp_path)
    cube = np.stack([gaussian_psf(), gaussian_psf() * np.nan, gaussian_psf(dx=0.7)])
    write_image(tmp_path / "psf.fits", cube, PIXSCALE=SCALE)
    survey = open_survey(path)
    rows = sources([100, 110, 120, 130, 140], [100] * 5, psf_index=np.array([0, 1, 2, 7, -1]))
    batch = survey.cut(rows, 24)
    assert [bool(f & Flag.PSF_BAD) for f in batch.flags] == [False, True, True, True, True]
    assert {f.code for f in batch.failures.values()} == {"PSF_BAD"} and list(batch.failures) == [1, 2, 3, 4]
    found = {f.code: f for f in survey.check(["source_id"])}
    assert found["psf_column"].level == "error" and "2 of 3 PSFs" in found["psf_bad"].what


def test_saturation_limit_and_key(tmp_path):
    sci = noise_field()
    sci[100, 100] = 900
    survey = open_survey(simple_survey(tmp_path, sci, SATURATE=800.0))
    batch = survey.cut(sources([100, 150], [100, 150]), 24)
    assert [bool(f & Flag.SATURATED) for f in batch.flags] == [True, False]
    assert batch.bands[0].mask[0, 12, 12]


def test_footprint_guesses(tmp_path):
    survey = open_survey(simple_survey(tmp_path))
    rows = sources(np.linspace(20, 240, 30), np.linspace(20, 280, 30))
    good = check_footprint(survey, [(0, rows)])
    assert [f.level for f in good] == ["info"] and "30 of 30" in good[0].what
    for change, hint in (
        (lambda r, d: (d, r), "swapped"),
        (lambda r, d: (np.radians(r), np.radians(d)), "radians"),
        (lambda r, d: (r / 15, d), "hours"),
        (lambda r, d: (r + 3, d), "right survey file"),
    ):
        ra, dec = change(rows["ra"], rows["dec"])
        bad = check_footprint(survey, [(0, {**rows, "ra": ra, "dec": dec})])
        assert [f.level for f in bad] == ["error"] and hint in bad[0].remedy


def test_empty_batch(tmp_path):
    batch = open_survey(simple_survey(tmp_path)).cut(sources([], []), 24)
    assert batch.flags.shape == (0,) and batch.bands[0].data.shape == (0, 24, 24)


def test_a_row_may_ask_for_a_smaller_stamp_than_the_others(tmp_path):
    """11 pixels of 0.04 arcsec: a square of five to each side of the centre; NaN and zero ask for nothing."""
    survey = open_survey(simple_survey(tmp_path, head='neighbours = "keep"'))
    rows = sources([100, 100, 100], [100, 100, 100], stamp_arcsec=np.array([0.44, np.nan, 0.0]))
    mask = survey.cut(rows, 32).bands[0].mask
    inner = np.zeros((32, 32), bool)
    inner[11:22, 11:22] = True
    np.testing.assert_array_equal(mask[0], ~inner)
    assert not mask[1:].any()


def test_a_signalling_nan_and_a_number_beyond_float32_are_masked_without_a_warning(tmp_path):
    """1e38 is finite in the file and not in nJy."""
    sci = noise_field()
    sci[100, 90], sci[100, 110] = np.uint32(0x7FA00000).view(np.float32), 1e38
    path = simple_survey(tmp_path, sci, extra='unit = "uJy"')
    stamps = open_survey(path).cut(sources([100], [100]), 32).bands[0]
    assert stamps.mask[0, 16, 6] and stamps.mask[0, 16, 26] and not stamps.mask[0, 16, 16]
    assert np.isfinite(stamps.data[0][~stamps.mask[0]]).all()
