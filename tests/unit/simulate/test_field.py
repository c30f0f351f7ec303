"""The mock field: what it promises about noise, truth, defects and files; and the demo that ships."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from galbatch.cli.main import main
from galbatch.errors import InputError
from galbatch.simulate.field import BAD, EDGE, NOTED, SATURATED, FieldSpec, make_field
from galbatch.simulate.field_files import read_truth, write_files
from galbatch.simulate.galaxies import KINDS, simulate_galaxies
from galbatch.simulate.telescope import correlated_noise, drizzle_kernel

CATALOGS = Path(__file__).resolve().parents[3] / "catalogs"
SPEC = FieldSpec(seed=1_000_500, n=8, columns=4, psf_positions=2, psf_pix=41, star_pix=81)


@pytest.fixture(scope="module")
def small_field():
    return make_field(SPEC)


def test_noise_has_unit_variance_and_the_autocorrelation_asked_for():
    noise = correlated_noise(np.random.default_rng(1), (600, 600), 0.37)
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    assert np.mean(noise[:, 1:] * noise[:, :-1]) == pytest.approx(0.37, abs=0.015)
    assert np.mean(noise[1:] * noise[:-1]) == pytest.approx(0.37, abs=0.015)
    assert abs(np.mean(noise[:, 4:] * noise[:, :-4])) < 0.015
    with pytest.raises(InputError, match=r"0\.9"):
        drizzle_kernel(0.9)


def test_the_error_map_is_the_scatter_about_the_noise_free_field(small_field):
    f = small_field
    for c, band in enumerate(SPEC.bands):
        good = f.mask[c] == 0
        chi = np.where(good, (f.sci[c] - f.signal[c]) / f.err[c], np.nan)
        assert np.nanstd(chi) == pytest.approx(1.0, abs=0.02)
        bright = f.signal[c] > 3 * band.sky_sigma_njy
        assert np.nanstd(chi[bright]) == pytest.approx(1.0, abs=0.06)
        assert np.nanmean(chi[:, 1:] * chi[:, :-1]) == pytest.approx(band.noise_lag_one, abs=0.03)
    deep, shallow = f.err[0][:, :40], f.err[0][:, 300:340]
    assert np.nanmedian(shallow) > 1.4 * np.nanmedian(deep)


def test_the_field_is_its_sources_through_their_psf(small_field):
    """Of one source without neighbours the field holds the share of flux that the PSF lets through."""
    f = small_field
    row = int(np.flatnonzero(~f.table["neighbour"])[0])
    y0, x0 = f.table["truth_y0"][row] + 8, f.table["truth_x0"][row] + 8
    cut = np.s_[:, max(y0, 0) : y0 + 64, max(x0, 0) : x0 + 64]
    seen = f.signal[cut].sum((1, 2))
    true = f.truth[row, :, 8:72, 8:72].sum((1, 2))
    norm = f.psf[:, f.table["psf_index"][row]].sum((1, 2))
    np.testing.assert_allclose(seen / true, norm, atol=0.12)


def test_truth_holds_the_flux_of_each_source(small_field):
    f = small_field
    total = f.truth.sum((2, 3))
    for c, band in enumerate(SPEC.bands):
        assert (total[:, c] <= f.table[f"flux_njy_{band.name}"] * 1.001).all()
        assert np.median(total[:, c] / f.table[f"flux_njy_{band.name}"]) > 0.97
    _, x = np.indices(f.truth.shape[2:])
    red = f.truth[:, 1]
    centre = (red * x).sum((1, 2)) / red.sum((1, 2)) + f.table["truth_x0"]
    assert np.median(np.abs(centre - f.table["x"])) < 0.3


def test_defects_are_in_the_mask_and_have_no_usable_pixel(small_field):
    f = small_field
    for bit in (BAD, SATURATED, EDGE, NOTED):
        assert (f.mask & bit).any(axis=(1, 2)).all()
    assert np.isnan(f.sci[(f.mask & (SATURATED | EDGE)) > 0]).all()
    assert np.isfinite(f.sci[(f.mask & 7) == 0]).all() and (f.err[(f.mask & EDGE) == 0] > 0).all()
    last = SPEC.columns - 1
    x, y = int(f.table["x"][last]), int(f.table["y"][last])
    cut = f.mask[0, max(y - 32, 0) : y + 32, x - 32 : x + 32] & EDGE
    assert 0.03 < (cut > 0).mean() < 0.6


def test_training_seeds_are_refused():
    with pytest.raises(InputError, match="10000"):
        make_field(FieldSpec(seed=12))


def test_files_round_trip_and_are_the_same_bytes_twice(small_field, tmp_path):
    first = write_files(small_field, tmp_path / "a", "mock", False)
    second = write_files(small_field, tmp_path / "b", "mock", False)
    assert [p.read_bytes() for p in first[1:]] == [p.read_bytes() for p in second[1:]]
    table = Table.read(first[0])
    wcs = WCS(fits.getheader(tmp_path / "a" / "mock" / "f200w_sci.fits"))
    x, y = wcs.all_world2pix(table["ra"], table["dec"], 0)
    assert np.hypot(x - small_field.table["x"], y - small_field.table["y"]).max() < 1.2
    truth = read_truth(tmp_path / "a" / "mock" / "truth.npz")
    np.testing.assert_allclose(
        truth["images"], small_field.truth, rtol=2e-3, atol=2e-5 * small_field.truth.max()
    )
    assert list(truth["source_id"]) == list(table["source_id"])
    with pytest.raises(InputError, match="--overwrite"):
        write_files(small_field, tmp_path / "a", "mock", False)


def test_the_shipped_demo_is_what_its_command_makes():
    """One galaxy of the demo is made again and compared with the truth that ships."""
    assert "galbatch simulate field --name demo --n 48 --seed 1000000" in (CATALOGS / "demo.toml").read_text()
    truth, spec = read_truth(CATALOGS / "demo" / "truth.npz"), FieldSpec()
    row = int(np.flatnonzero(truth["galaxy_index"] == 8)[0])
    again, table = simulate_galaxies(1, spec.seed, npix=spec.grid, start=8, kinds=list(KINDS))
    assert table["kind"][0] == truth["kind"][row]
    sharp = np.pad(again[0, 1] * truth["flux_njy"][row, 1], spec.truth_stamp)
    blurred = gaussian_filter(sharp, spec.target_fwhm_pix / 2.3548, mode="constant", truncate=6.0)
    y0 = truth["truth_y0"][row] - truth["y_corner"][row] + spec.truth_stamp
    x0 = truth["truth_x0"][row] - truth["x_corner"][row] + spec.truth_stamp
    stamp = blurred[y0 : y0 + spec.truth_stamp, x0 : x0 + spec.truth_stamp]
    np.testing.assert_allclose(truth["images"][row, 1], stamp, rtol=0.02, atol=2e-3 * stamp.max())


def test_the_shipped_demo_is_varied_and_small():
    truth = read_truth(CATALOGS / "demo" / "truth.npz")
    assert set(truth["kind"]) == set(KINDS) and truth["images"].shape == (48, 2, 128, 128)
    assert truth["peak_sn"].min() < 6 and truth["peak_sn"].max() > 90
    size = (
        sum(p.stat().st_size for p in CATALOGS.glob("demo*/*")) + (CATALOGS / "demo.parquet").stat().st_size
    )
    assert size < 8e6


def test_the_command_writes_a_small_field_and_refuses_training_seeds(tmp_path, capsys):
    assert main(["simulate", "field", "--out", str(tmp_path), "--seed", "77"]) == 1
    assert "training" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main(["simulate", "field", "--out", str(tmp_path), "--name", "two", "--n", "2"]) == 0
    assert len(Table.read(tmp_path / "two.parquet")) == 2
    with fits.open(tmp_path / "two" / "f444w_psf.fits") as hdus:
        assert hdus[0].data.shape == (3, 81, 81)
