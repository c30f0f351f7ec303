"""Bands of other scales and frames, several tiles, bands and files that are missing."""

import pickle

import numpy as np
import pytest
from cutouts_field import (
    SCALE,
    noise_field,
    simple_survey,
    sources,
    stated,
    wcs_from,
    wcs_of,
    write_bands,
    write_image,
    write_psf,
)

from galbatch.cutouts import check_footprint, open_survey
from galbatch.errors import ConfigError
from galbatch.types import Flag


def two_scales(tmp_path, coarse_scale, shape):
    """A band at SCALE and one at ``coarse_scale`` on one sky, both the same smooth surface brightness."""
    fine = wcs_of()
    y, x = np.indices((300, 260))
    level = (1 + 0.002 * x + 0.003 * y).astype("f4")
    wcs = wcs_of(*shape, scale=coarse_scale)
    yc, xc = np.indices(shape)
    sky = wcs.all_pix2world(xc.ravel(), yc.ravel(), 0)
    xf, yf = fine.all_world2pix(*sky, 0)
    coarse = ((1 + 0.002 * xf + 0.003 * yf) * (coarse_scale / SCALE) ** 2).reshape(shape).astype("f4")
    path = write_bands(tmp_path, a=(level, fine, 0.1), b=(coarse, wcs, 0.1))
    return open_survey(path), level, coarse


def test_integer_ratio_stays_native(tmp_path):
    survey, _, coarse = two_scales(tmp_path, 2 * SCALE, (150, 130))
    assert survey.geometry()["b"].ratio == 2 and survey.stamp_pix(1.0) == 26
    batch = survey.cut(sources([130.5], [150.5]), 32)
    fine, band = batch.bands
    assert fine.data.shape == (1, 32, 32) and band.data.shape == (1, 16, 16) and band.ratio == 2
    x, y = 65, 75
    np.testing.assert_array_equal(band.data[0], coarse[y - 8 : y + 8, x - 8 : x + 8])
    assert not batch.flags[0] & Flag.RESAMPLED
    with pytest.raises(ConfigError, match="stamp_pix = 33 is not a multiple of 2"):
        survey.cut(sources([130.5], [150.5]), 33)


def test_other_ratios_are_resampled_with_flux_and_variance(tmp_path):
    survey, _, _ = two_scales(tmp_path, 1.7 * SCALE, (180, 160))
    g = survey.geometry()["b"]
    assert g.ratio == 2 and g.step == pytest.approx(2 / 1.7)
    batch = survey.cut(sources([130.0], [150.0]), 32)
    fine, band = batch.bands
    assert batch.flags[0] & Flag.RESAMPLED and band.pixel_scale_arcsec == pytest.approx(2 * SCALE)
    assert band.data[0, 8, 8] == pytest.approx(4 * fine.data[0, 16, 16], rel=0.01)
    assert band.data[0].sum() == pytest.approx(fine.data[0].sum(), rel=0.01)
    weights = np.array([0.0882, 1.0, 0.0882])
    expected = 0.01 * (weights**2).sum() ** 2
    assert band.sigma[0, 8, 8] ** 2 == pytest.approx(expected, rel=0.01)
    assert band.psf[0].sum() == pytest.approx(1, abs=1e-5)
    assert band.psf_scale_arcsec == pytest.approx(2 * SCALE)


def test_a_stamp_of_a_resampled_band_keeps_its_place_on_the_sky(tmp_path):
    survey, _, _ = two_scales(tmp_path, 1.7 * SCALE, (180, 160))
    rows = sources([100.3], [120.9])
    for stamps in survey.cut(rows, 32).bands:
        x, y = wcs_from(stamps.wcs[0]).all_world2pix(rows["ra"], rows["dec"], 0)
        assert abs(x[0] - stamps.data.shape[2] // 2) <= 0.5 and abs(y[0] - stamps.data.shape[1] // 2) <= 0.5


def tiled(tmp_path, gap=False):
    """Two overlapping tiles of one band; in the second, columns are missing near its left edge."""
    sci = noise_field()
    full = wcs_of()
    for name, x0, x1 in (("w", 0, 160), ("e", 100, 260)):
        part = sci[:, x0:x1].copy()
        if name == "e" and gap:
            part[:, :50] = np.nan
        wcs = full.deepcopy()
        wcs.wcs.crpix[0] -= x0
        write_image(tmp_path / f"{name}.fits", part, wcs, BUNIT="nJy")
        write_image(
            tmp_path / f"{name}_err.fits", np.full(part.shape, 0.5 if name == "w" else 0.6, "f4"), wcs
        )
    write_psf(tmp_path / "psf.fits")
    path = tmp_path / "s.toml"
    path.write_text(
        'tiles = ["w", "e"]\n[bands.f]\nsci = "{tile}.fits"\nerr = "{tile}_err.fits"\npsf = "psf.fits"\n'
        + stated()
    )
    return open_survey(path), sci


def test_the_best_covered_tile_wins(tmp_path):
    survey, sci = tiled(tmp_path, gap=True)
    rows = sources([20, 140, 240, 120], [150, 150, 150, 150])
    assert survey.locate(rows["ra"], rows["dec"]).tile.tolist() == ["w", "e", "e", "w"]
    stamps = survey.cut(rows, 24).bands[0]
    np.testing.assert_array_equal(stamps.data[1], sci[138:162, 128:152])
    assert [float(s[12, 12]) for s in stamps.sigma] == pytest.approx([0.5, 0.5, 0.6, 0.5])
    rows["tile"] = np.array(["w", "e", "e", "e"], dtype=object)
    assert survey.cut(rows, 24).bands[0].mask[3].mean() > 0.5


def test_a_tile_that_cannot_be_read_fails_only_its_own_sources(tmp_path):
    survey, _ = tiled(tmp_path)
    (tmp_path / "e_err.fits").write_bytes((tmp_path / "e_err.fits").read_bytes()[:5000])
    rows = sources([20, 240], [150, 150])
    batch = survey.cut(rows, 24)
    assert list(batch.failures) == [1] and batch.failures[1].code == "READ_ERROR"
    assert "e_err.fits is truncated" in batch.failures[1].message and batch.flags[1] & Flag.READ_ERROR
    assert not batch.bands[0].mask[0].all()
    assert any(f.level == "error" and "e_err.fits" in f.what for f in survey.check())


def test_files_that_only_a_worker_cannot_read_fail_their_sources(tmp_path):
    survey, _ = tiled(tmp_path)
    rows = sources([20, 240], [150, 150])
    survey.stamp_pix()
    elsewhere = pickle.loads(pickle.dumps(survey))
    for name in ("e.fits", "w.fits"):
        (tmp_path / name).unlink()
    batch = elsewhere.cut(rows, 24)
    assert [f.code for f in batch.failures.values()] == ["READ_ERROR"] * 2
    assert "cannot be opened" in batch.failures[0].message


def test_a_missing_band_is_flagged_and_the_rest_goes_on(tmp_path):
    half = wcs_of(300, 130)
    half.wcs.crpix[0] = 130.5
    bands = {"f200w": (noise_field(), wcs_of(), 0.5), "z": (noise_field()[:, :130], half, 0.5)}
    survey = open_survey(write_bands(tmp_path, **bands))
    batch = survey.cut(sources([60, 200], [150, 150]), 24)
    assert [bool(f & Flag.BAND_MISSING) for f in batch.flags] == [False, True] and not batch.failures
    assert batch.bands[1].mask[1].all() and not batch.flags[1] & Flag.OFF_IMAGE
    found = check_footprint(survey, [(0, sources([60, 200], [150, 150]))])
    assert any(f.subject == "z" and f.what.startswith("1 sources of 2") for f in found)


def test_a_turned_band_keeps_its_frame_and_is_flagged(tmp_path):
    turned = wcs_of(angle=30)
    bands = {"f200w": (noise_field(), wcs_of(), 0.5), "z": (noise_field(1), turned, 0.5)}
    survey = open_survey(write_bands(tmp_path, **bands))
    assert any(f.code == "rotation" and "30.00 deg" in f.what for f in survey.check())
    batch = survey.cut(sources([140], [160]), 24)
    assert batch.flags[0] & Flag.GRID_MISMATCH and not batch.flags[0] & Flag.RESAMPLED
    x, y = turned.all_world2pix(*wcs_of().all_pix2world(140, 160, 0), 0)
    cx, cy = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    np.testing.assert_array_equal(
        batch.bands[1].data[0], noise_field(1)[cy - 12 : cy + 12, cx - 12 : cx + 12]
    )
    assert (
        not open_survey(simple_survey(tmp_path)).cut(sources([140], [160]), 24).flags[0] & Flag.GRID_MISMATCH
    )
