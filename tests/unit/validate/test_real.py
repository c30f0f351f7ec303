"""Real galaxies as truth, on files of the same layout made here, and on the real ones where they are."""

import json

import numpy as np
import pytest
import torch
from astropy.io import fits

from galbatch.cli.main import main
from galbatch.errors import InputError
from galbatch.prior import load_prior
from galbatch.training.library import Library, SourceImage, is_held_out
from galbatch.validate.ranks import coverage, mean_and_error
from galbatch.validate.real import KINDS, LIBRARY_PIX, SN, _view, held_out_images, make_real

FWHM_TO_SD = 1 / 2.3548


def gaussian(sd, npix=192, cut=np.inf, ratio=1.0):
    y, x = np.mgrid[:npix, :npix] - (npix - 1) / 2
    image = np.exp(-0.5 * ((x / sd) ** 2 + (y / sd / ratio) ** 2))
    return np.where(np.hypot(x, y) <= cut, image, 0.0).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten galaxies in the layout of the TNG50 files, twenty in that of the HST file."""
    path = tmp_path_factory.mktemp("real")
    (path / "tng/tng50_skirt_sdss").mkdir(parents=True)
    (path / "hst_galaxies").mkdir()
    cards = {"BUNIT": "counts/s/pixel", "CTYPE1": "linear", "CDELT1": 276.0, "PIXSCALE": 0.396}
    header = fits.Header({**cards, "USE_Z": 0.0485, **{f"FILTER{i}": f"sdss_{i}" for i in range(4)}})
    for i in range(10):
        cube = np.stack([gaussian(8 + band, 160, ratio=0.7) for band in range(4)])
        fits.writeto(path / f"tng/tng50_skirt_sdss/broadband_{i}.fits", cube, header)
    images = np.stack([np.stack([gaussian(5 + i % 7, cut=18)] * 3) for i in range(20)])
    np.savez(path / "hst_galaxies/galaxies.npz", images=images)
    return path


@pytest.fixture(scope="module")
def prior():
    return load_prior("small", device="cpu")


def test_no_galaxy_of_the_training_split_is_truth(folder):
    found = held_out_images(folder)
    groups = {s.group for s in found}
    tng = {f"tng50-sdss:tng50_skirt_sdss--{i}" for i in range(10)}
    expected = {g for g in tng if is_held_out(g, 0.2)}
    expected |= {g for g in (f"hst:galaxies-{i}" for i in range(20)) if is_held_out(g, 0.1)}
    assert groups and {g.split(":")[0] for g in groups} == set(KINDS)
    assert {g for g in groups if g.startswith("hst")} == {g for g in expected if g.startswith("hst")}
    assert len(groups) == len(expected)
    assert all(is_held_out(g, 0.2 if g.startswith("tng") else 0.1) for g in groups)


def test_missing_files_are_named_with_the_remedy(tmp_path, folder, capsys):
    with pytest.raises(InputError, match=r"tng50_skirt_sdss.*--data.*--truth simulated"):
        held_out_images(tmp_path)
    (tmp_path / "tng").symlink_to(folder / "tng")
    with pytest.raises(InputError, match=r"'hst'.*hst_galaxies"):
        held_out_images(tmp_path)
    code = main(["validate", "--truth", "real", "--model", "small", "--data", str(tmp_path / "nowhere")])
    error = capsys.readouterr().err
    assert code == 1 and "--data" in error and "nowhere" in error


@pytest.mark.parametrize("sd", [2.5, 3.0])
def test_a_view_is_at_the_target_psf_with_that_of_hst_taken_into_account(prior, sd):
    library = Library([SourceImage(gaussian(sd), "g", "hst")], LIBRARY_PIX)
    rng = np.random.default_rng(3)
    image, _ = _view(prior.spec, library, 1.75, rng, (1, 2))
    y, x = np.indices(image.shape)
    light = image / image.sum()
    my, mx = (light * y).sum(), (light * x).sum()
    variance = (light * ((x - mx) ** 2 + (y - my) ** 2)).sum() / 2
    low, high = 2.0, min(10.0, library.radius[0] / 1.3)
    zoom = library.radius[0] / (low * (high / low) ** np.random.default_rng(3).random())
    target = (prior.spec.target_fwhm_pix * FWHM_TO_SD) ** 2
    expected = (sd**2 - (1.75 * FWHM_TO_SD) ** 2) / zoom**2 + target
    assert variance == pytest.approx(expected, rel=0.02)
    assert sd**2 / zoom**2 + target > 1.03 * expected


def test_truth_is_judged_where_the_cut_of_the_segment_is_not_felt(prior):
    views = []
    for cut in (np.inf, 16):
        library = Library([SourceImage(gaussian(9, 193, cut), "g", "hst")], LIBRARY_PIX)
        scale = library.levels[0][0].astype(float).sum()
        library.radius = np.array([10.6])  # one zoom for both
        image, inside = _view(prior.spec, library, 1.75, np.random.default_rng(10), (1, 2))
        views.append((image * scale, inside))
    (whole, _), (cut, inside) = views
    margin = prior.spec.margin_pix
    inner = slice(margin, margin + 64)
    off = np.abs(cut - whole)[inner, inner] / whole.max()
    assert 60 < inside.sum() < 600
    assert off[inside].max() < 0.01 < off[~inside].max()


def test_every_galaxy_is_seen_at_every_signal_to_noise_ratio(folder, prior):
    mocks = make_real(prior, folder, images=3)
    assert mocks.sn.tolist() == [*SN] * 3
    assert mocks.image.shape == mocks.inside.shape == (9, 64, 64)
    assert np.array_equal(mocks.galaxy[::3], mocks.galaxy[2::3])
    again = make_real(prior, folder, images=3)
    assert np.array_equal(again.obs.data, mocks.obs.data, equal_nan=True)
    clean = np.where(mocks.obs.mask[:, 0], 0, mocks.obs.data[:, 0] - mocks.image)
    assert np.abs(clean[mocks.sn == 10]).max() < 10  # the noise of the sky is one


def test_command_judges_synthetic_files(folder, tmp_path):
    out = tmp_path / "validation"
    options = ["--truth", "real", "--data", str(folder), "-n", "3", "--draws", "3", "--mode", "fast"]
    assert main(["validate", *options, "--model", "small", "--out", str(out)]) in (0, 3)
    found = json.loads((out / "validation.json").read_text())
    assert found["truth"] == "real" and found["numbers"]["observations"] == 9
    assert found["numbers"]["galaxies"] <= 3 and 0 < found["numbers"]["nmse_median"] < 0.1
    bins = {row["bin"] for row in found["rows"] if row["what"] == "flux"}
    assert bins == {"all", "S/N 10-30", "S/N 30-100", "S/N 100-300"}


def test_a_galaxy_that_is_seen_often_is_one_galaxy():
    rng = np.random.default_rng(0)
    u = rng.random((200, 1))
    copies, names = np.repeat(u, 5, axis=0), np.repeat(np.arange(200), 5)
    value, error, n = coverage(copies, galaxy=names)
    single = coverage(u)
    assert n == single[2] == 200
    np.testing.assert_allclose(value, single[0])
    np.testing.assert_allclose(error, single[1], rtol=0.05)
    inside = (u[:, 0] < 0.68).astype(float)
    p, binomial, _ = mean_and_error(inside)
    assert binomial == pytest.approx(np.sqrt(p * (1 - p) / 200))
    assert mean_and_error(np.repeat(inside, 5), names)[:2] == pytest.approx((p, binomial))


def test_the_real_files(shared_data, prior):
    """Three galaxies of TNG50 in four bands and the HST galaxies in F814W that the cards call held out."""
    found = held_out_images(shared_data)
    counts = {o: len({s.group for s in found if s.origin == o}) for o in KINDS}
    assert counts == {"tng50-sdss": 3, "hst": 15}
    mocks = make_real(prior, shared_data, images=6)
    assert len(mocks.sn) == 18 and (mocks.inside.sum((1, 2)) >= 10).all()
    assert torch.isfinite(torch.from_numpy(mocks.image)).all()
