"""``galbatch cutout``: one galaxy, no catalogue; and what it says where something is missing."""

import numpy as np
import pytest
import toys
from astropy.io import fits
from astropy.table import Table
from cutouts_field import add_galaxy, gaussian_psf, noise_field, wcs_of, write_image

from galbatch.cli.main import main
from galbatch.run import single

NY, NX = 120, 100


@pytest.fixture
def image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = noise_field(ny=NY, nx=NX)
    add_galaxy(data, 61, 47, flux=900)
    add_galaxy(data, 20, 20, flux=3000)  # brighter, but not in the middle
    write_image(tmp_path / "galaxy.fits", data, wcs_of(NY, NX), BUNIT="nJy")
    fits.PrimaryHDU(gaussian_psf()).writeto(tmp_path / "psf.fits")
    return tmp_path / "galaxy.fits"


@pytest.fixture
def quick(monkeypatch):
    """A prior that costs nothing; what is tested is the way there and back."""
    made = []

    def process(*arguments, **options):
        options |= {"prior": toys.GaussianPrior(), "model": "auto", "on_message": None}
        made.append(single_process(*arguments, **options))
        return made[-1]

    single_process = single.process
    monkeypatch.setattr(single, "process", process)
    return made


def test_a_picture_and_a_table(image, quick, capsys):
    assert main(["cutout", "galaxy.fits", "--psf", "psf.fits", "--draws", "3", "--stamp-arcsec", "1.92"]) == 0
    assert "galaxy.galbatch.png" in capsys.readouterr().out
    assert quick[0].layout.stamp_pix == 48 and quick[0].layout.draws == 3  # of 0.04 arcsec
    assert (image.parent / "galaxy.galbatch.png").read_bytes()[:4] == b"\x89PNG"
    table = Table.read(image.parent / "galaxy.galbatch.ecsv")
    flux = table[table["statistic"] == "flux_njy"][0]
    # a segment misses the wings of a Gaussian, and noise has 0.5 per pixel
    assert 0.6 * 900 < flux["pixels"] < 1.1 * 900 and flux["unit"] == "nJy"
    assert flux["low"] < flux["raw16"] and not flux["calibrated"]  # three draws, and no calibration
    assert flux["raw16"] <= flux["raw50"] <= flux["raw84"] and table.meta["source_id"] == "galaxy"


@pytest.mark.parametrize(("options", "position"), [
    ([], (47, 61)),
    (["--x", "20", "--y", "20"], (20, 20)),
    (["--ra", "150.0", "--dec", "2.0"], ((NX - 1) / 2, (NY - 1) / 2)),
])  # fmt: skip
def test_positions(image, monkeypatch, options, position):
    class Enough(Exception):
        pass

    def process(catalog, *arguments, **options):
        raise Enough(catalog.read_text())

    monkeypatch.setattr(single, "process", process)
    with pytest.raises(Enough) as caught:
        main_raising(["cutout", "galaxy.fits", "--psf", "psf.fits", *options])
    x, y = (float(v) for v in str(caught.value).splitlines()[1].split(",")[1:])
    assert (x, y) == pytest.approx(position, abs=1)


def main_raising(arguments):
    from galbatch.cli.main import cli

    cli.main(arguments, standalone_mode=False)


@pytest.mark.parametrize(("options", "message"), [
    ([], "--psf is missing: the PSF of the image says what to deconvolve"),
    (["--psf", "psf.fits", "--x", "3"], "Give both --x and --y"),
    (["--psf", "psf.fits", "--x", "3", "--y", "500"], "outside the image of 100 x 120 pixels"),
    (["--psf", "psf.fits", "--out", "no/such/x"], "there is no folder no/such. Make it first"),
    (["--psf", "psf.fits", "--pixel-scale", "-0.04"], "'--pixel-scale': -0.04 is not in the range"),
])  # fmt: skip
def test_what_is_missing_is_said_with_its_remedy(image, capsys, options, message):
    assert main(["cutout", "galaxy.fits", *options]) == 1
    assert message in capsys.readouterr().err


def test_an_image_of_one_value_is_refused_before_the_run(image, capsys):
    fits.writeto(image.parent / "flat.fits", np.zeros((NY, NX), "f4"), wcs_of(NY, NX).to_header())
    assert main(["cutout", "flat.fits", "--psf", "psf.fits", "--unit", "nJy"]) == 1
    assert "All pixels in the middle of the image are 0" in capsys.readouterr().err


def test_a_cube_of_psfs_is_refused(image, capsys):
    fits.PrimaryHDU(np.stack([gaussian_psf()] * 3)).writeto(image.parent / "cube.fits")
    assert main(["cutout", "galaxy.fits", "--psf", "cube.fits"]) == 1
    assert "is a cube of 3 images. Give a file with one" in capsys.readouterr().err


def test_a_unit_is_asked_for_and_taken(image, quick, capsys):
    with fits.open(image, mode="update") as hdus:
        del hdus[0].header["BUNIT"]
    arguments = ["cutout", "galaxy.fits", "--psf", "psf.fits", "--draws", "2", "--stamp-arcsec", "1.28"]
    assert main(arguments) == 1
    assert "give --unit" in capsys.readouterr().err
    assert main([*arguments, "--zero-point", "28.9"]) == 0
    table = Table.read(image.parent / "galaxy.galbatch.ecsv")
    flux = table[table["statistic"] == "flux_njy"]["pixels"][0]
    assert 0.6 * 9000 < flux < 1.1 * 9000  # 10 nJy per count
