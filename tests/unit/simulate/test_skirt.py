"""Mock galaxies as files: the idealised SKIRT 9 layout, read back to flux by its published formula."""

import numpy as np
import pytest
from astropy.io import fits

from galbatch.cli.main import main
from galbatch.errors import InputError
from galbatch.simulate.galaxies import simulate_galaxies
from galbatch.simulate.skirt import kpc_per_arcsec, write_galaxies, write_skirt


def _flux_jy(hdu):
    area = (hdu.header["CDELT1"] / kpc_per_arcsec(hdu.header["REDSHIFT"])) ** 2
    return np.where(hdu.data >= 99, 0.0, 10 ** (-0.4 * (hdu.data.astype(float) - 8.9)) * area)


def test_flux_survives_the_magnitudes_and_empty_pixels_are_99(tmp_path):
    flux = np.zeros((2, 16, 16))
    flux[0, 4:9, 4:9], flux[1, 5, 5] = 3e-6, 2e-9
    path = write_skirt(tmp_path / "shalo_091-7_v0_photo.fits", flux, redshift=0.1, fov_kpc=12.8)
    with fits.open(path) as hdus:
        assert len(hdus) == 2 and hdus[0].data.shape == (16, 16)  # no empty primary
        for plane, hdu in zip(flux, hdus, strict=True):
            assert hdu.data.dtype.kind == "f" and hdu.data.dtype.itemsize == 4
            assert (hdu.data[plane == 0] == 99.0).all()
            np.testing.assert_allclose(_flux_jy(hdu), plane, rtol=2e-5)
        header = hdus[1].header
        assert (header["EXTNAME"], header["FILTER"]) == ("SUBARU_HSC.I", "Subaru_HSC.i")
        assert header["BUNIT"] == "AB mag/arcsec2" and header["CTYPE1"] == "kpc"
        assert header["CDELT1"] == pytest.approx(header["FOVSIZE"] / 16) and header["CRPIX1"] == 8


def test_the_command_writes_the_galaxies_of_its_seed_and_goes_on(tmp_path, capsys):
    assert (
        main(
            ["simulate", "galaxies", "--n", "3", "--out", str(tmp_path), "--seed", "1000000", "--npix", "48"]
        )
        == 0
    )
    files = sorted(tmp_path.glob("shalo_*_photo.fits"))
    assert [f.name for f in files] == [f"shalo_091-{i}_v0_photo.fits" for i in range(3)]
    images, table = simulate_galaxies(3, 1_000_000, npix=48)
    with fits.open(files[2]) as hdus:
        red = _flux_jy(hdus[1])
        assert hdus[0].header["KIND"] == table["kind"][2] and hdus[0].header["SUBHALO"] == 2
        np.testing.assert_allclose(red / red.sum(), images[2, 1], rtol=1e-3, atol=1e-9)
        assert 14 < 8.9 - 2.5 * np.log10(red.sum()) < 22
    before = [f.stat().st_mtime_ns for f in files]
    write_galaxies(tmp_path, 4, 1_000_000, npix=48)
    assert [f.stat().st_mtime_ns for f in files] == before
    assert len(list(tmp_path.glob("shalo_*"))) == 4
    assert main(["simulate", "galaxies", "--n", "3", "--out", str(tmp_path), "--seed", "5"]) == 1
    assert "Choose another folder" in capsys.readouterr().err


def test_bad_flux_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"a\.fits.*finite"):
        write_skirt(tmp_path / "a.fits", np.full((2, 4, 4), np.nan), redshift=0.1, fov_kpc=1.0)
    with pytest.raises(InputError, match="2 filters"):
        write_skirt(tmp_path / "a.fits", np.zeros((3, 4, 4)), redshift=0.1, fov_kpc=1.0)
    assert not list(tmp_path.iterdir())
