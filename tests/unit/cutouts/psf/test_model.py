"""PSFs from a stand-in for stpsf: turned, over detector pixels, centred, as a run reads them."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from galbatch.cli.main import main
from galbatch.cutouts.psf.check import check_psf
from galbatch.cutouts.psf.file import model_psf
from galbatch.errors import InputError

SIDE, WIDTH = 80, 1.5  # an even array, centred between its pixels, as stpsf's are


class Camera:
    """A Gaussian with a companion above it, 12 pixels away and a tenth as bright."""

    filters = ("F200W",)

    @property
    def filter(self):
        return self._filter

    @filter.setter
    def filter(self, name):
        if name not in self.filters:
            raise ValueError("not a filter")
        self._filter = name

    def calc_psf(self, oversample, fov_arcsec):
        y, x = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
        image = np.exp(-(x**2 + y**2) / 2 / WIDTH**2) + 0.1 * np.exp(-(x**2 + (y - 12) ** 2) / 2 / WIDTH**2)
        header = fits.Header({"PIXELSCL": 0.031 / oversample})
        return fits.HDUList(
            [fits.PrimaryHDU(image * 0, header), fits.ImageHDU(image, header, name="OVERDIST")]
        )


@pytest.fixture(autouse=True)
def stpsf(monkeypatch):
    monkeypatch.setitem(sys.modules, "stpsf", SimpleNamespace(NIRCam=Camera))


@pytest.mark.parametrize("angle, place", [(0, (12, 0)), (90, (0, -12)), (-30, (12 * np.cos(np.pi / 6), 6))])
def test_the_companion_is_where_the_angle_puts_it(angle, place):
    """Counter-clockwise, as position angles go where north is up and east is left."""
    image, scale = model_psf("f200w", angle)
    assert image.shape == (SIDE - 1, SIDE - 1) and scale == 0.031 / 4 and image.sum() == pytest.approx(1)
    y, x = np.indices(image.shape) - (SIDE - 2) // 2
    there = np.hypot(y - place[0], x - place[1]) < 5
    centre = [np.sum(image[there] * v[there]) / image[there].sum() for v in (y, x)]
    assert centre == pytest.approx(place, abs=0.05)
    wide = WIDTH**2 + 4**2 / 12 + 1 / 6  # variance; of a box of four pixels whose outer two are halves
    assert image[there].sum() == pytest.approx(0.1 / 1.1 * (1 - np.exp(-(5**2) / 2 / wide)), rel=0.02)
    core = np.hypot(y, x) < 6
    assert np.sum(image[core] * x[core] ** 2) / image[core].sum() == pytest.approx(wide, rel=0.06)
    assert check_psf(image, 4.0).problem == ""


def test_the_command_writes_what_a_run_reads_and_replaces_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["psf", "f200w", "--angle", "20"]) == 0
    assert fits.getheader("f200w_psf.fits")["PIXELSCL"] == 0.031 / 4
    assert main(["psf", "f200w"]) == 1 and "not replaced" in capsys.readouterr().err
    with pytest.raises(InputError, match="no filter F999W"):
        model_psf("f999w")
    for name in ("stpsf", "webbpsf"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["psf", "f150w"]) == 1 and "pip install stpsf" in capsys.readouterr().err
