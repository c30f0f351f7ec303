"""Readers of simulated galaxies: every published layout, real files where there are any, and what bad files
get."""

import numpy as np
import pytest
from astropy.io import fits

from galbatch.errors import InputError
from galbatch.training.layouts import kpc_per_arcsec
from galbatch.training.sources import DataConfig, read_images, read_sources

N = 24


def blob(scale=1.0):
    y, x = np.indices((N, N)) - N / 2
    return (scale * np.exp(-(x**2 + 0.5 * y**2) / 20)).astype(np.float32)


def idealised(path, unit="kpc", bands=("SUBARU_HSC.G", "CFHT_MEGACAM.U"), magnitudes=None, drop=()):
    """A file as the SKIRT 9 writer of TNG-HSC makes it: no empty primary HDU."""
    hdus = []
    for band in bands:
        mag = -2.5 * np.log10(np.maximum(blob(1e-6), 1e-12)) + 8.9 if magnitudes is None else magnitudes
        mag = np.where(blob() < 1e-3, 99.0, mag) if magnitudes is None else mag
        cards = {"ORIGIN": "SKIRT", "SIMTAG": "TNG50-1", "SNAPNUM": 91, "SUBHALO": 7, "CAMERA": "v1"}
        cards |= {"REDSHIFT": 0.1, "FILTER": band.replace("HSC", "Hsc"), "BUNIT": "AB mag/arcsec2"}
        header = fits.Header(cards | {"CTYPE1": unit, "CDELT1": 0.1 if unit == "kpc" else 100.0})
        for card in drop:
            del header[card]
        kind = fits.PrimaryHDU if not hdus else fits.ImageHDU
        hdus.append(kind(mag.astype(np.float32), header))
        hdus[-1].name = band
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("unit", ["kpc", "pc"])
def test_idealised_magnitudes_become_flux(tmp_path, unit):
    (galaxy,) = read_images(idealised(tmp_path / "shalo_091-7_v1_photo.fits", unit))
    assert galaxy.bands == ("SUBARU_Hsc.G", "CFHT_MEGACAM.U")
    area = (0.1 / kpc_per_arcsec(0.1)) ** 2
    expected = np.where(blob() < 1e-3, 0, blob(1e-6)) * area
    np.testing.assert_allclose(galaxy.flux[0], expected, rtol=2e-5, atol=0)
    assert (galaxy.flux == 0).any(), "99 mag is zero flux"


def test_views_of_a_subhalo_are_one_group(tmp_path):
    a = read_images(idealised(tmp_path / "shalo_091-7_v1_photo.fits"))[0]
    b = read_images(idealised(tmp_path / "shalo_091-7_v2_photo.fits"))[0]
    assert a.group == b.group and "7" in a.group


def test_realistic_hsc(tmp_path):
    psf = np.exp(-0.5 * ((np.indices((15, 15)) - 7) ** 2).sum(axis=0) / 1.5**2)
    hdus = [fits.PrimaryHDU()]
    for band in ("G", "R"):
        planes = {"": blob(), " MASK": np.zeros((N, N), np.int32), " VARIANCE": blob(), " PSF": psf}
        hdus += [fits.ImageHDU(data, name=band + suffix) for suffix, data in planes.items()]
    fits.HDUList(hdus).writeto(tmp_path / "shalo_091-9_v0_HSC_GRIZY.fits")
    (galaxy,) = read_images(tmp_path / "shalo_091-9_v0_HSC_GRIZY.fits")
    assert galaxy.bands == ("G", "R")
    np.testing.assert_allclose(galaxy.flux[1], blob() * 3.631e-6, rtol=1e-6)
    assert galaxy.psf_fwhm_pix == pytest.approx(1.5 * 2.3548, rel=0.02)
    (source, *_) = read_sources(DataConfig("hsc", ("*GRIZY.fits",), average=2), tmp_path)
    assert source.min_zoom == pytest.approx(1.5 * 2.3548 / 2, rel=0.02), (
        "its PSF stays within one stamp pixel"
    )
    assert source.image.shape == (N // 2, N // 2)


def test_pan_starrs_cube(tmp_path):
    """SKIRT cube in counts/s/pixel, one card a band: the layout of the SDSS files with other filters."""
    bands = [f"panstarrs/panstarrs_{b}" for b in "grizy"]
    header = fits.Header({"BUNIT": "counts/s/pixel", "CTYPE1": "linear", "CDELT1": 500.0, "CUNIT1": "pc",
                          "PIXSCALE": 0.25, "USE_Z": 0.0485, "FILENAME": "broadband"})  # fmt: skip
    for i, band in enumerate(bands):
        header[f"FILTER{i}"] = band
    cube = np.stack([blob(i + 1) for i in range(5)])
    fits.writeto(tmp_path / "broadband_31.fits", cube, header)
    (galaxy,) = read_images(tmp_path / "broadband_31.fits")
    assert galaxy.bands == tuple(bands) and galaxy.group.endswith("-31")
    np.testing.assert_array_equal(galaxy.flux, cube)


@pytest.mark.parametrize("empty", [99.0, 120.0, np.inf])
def test_empty_magnitudes_are_zero_flux(tmp_path, empty):
    magnitudes = np.where(blob() < 1e-3, empty, 20.0)
    (galaxy,) = read_images(idealised(tmp_path / "shalo_091-7_v1_photo.fits", magnitudes=magnitudes))
    area = (0.1 / kpc_per_arcsec(0.1)) ** 2
    np.testing.assert_allclose(
        galaxy.flux[0], np.where(blob() < 1e-3, 0, 10 ** (-0.4 * 11.1) * area), rtol=1e-5
    )


def test_idealised_size_on_the_sky_follows_the_cosmology(tmp_path):
    """Planck 2015 (H0 = 67.74, Om = 0.3089, flat) integrated here, radiation left out."""
    (galaxy,) = read_images(idealised(tmp_path / "shalo_091-7_v1_photo.fits"))
    z = np.linspace(0, 0.1, 2001)
    mpc = 299792.458 / 67.74 * np.trapezoid((0.3089 * (1 + z) ** 3 + 0.6911) ** -0.5, z) / 1.1
    pixel_arcsec = (galaxy.flux[0].max() / blob(1e-6).max()) ** 0.5
    assert pixel_arcsec == pytest.approx(0.1 / (mpc * 1e3 * np.pi / 648000), rel=1e-3)


def test_plain_fits_and_npz(tmp_path):
    fits.writeto(tmp_path / "a.fits", blob())
    np.savez(tmp_path / "b.npz", images=np.stack([[blob()], [blob(2)], [blob(3)]]))
    assert read_images(tmp_path / "a.fits")[0].bands == ("PRIMARY",)
    many = read_images(tmp_path / "b.npz")
    assert len(many) == 3 and len({g.group for g in many}) == 3
    np.testing.assert_allclose(many[2].flux[0], blob(3))


def test_real_sdss_cube(shared_data):
    (galaxy,) = read_images(shared_data / "tng/tng50_skirt_sdss/broadband_117361.fits")
    assert galaxy.flux.shape == (4, 175, 175) and galaxy.bands[1] == "sloan/sdss_r"
    assert galaxy.wavelengths_um == pytest.approx((0.4702, 0.6176, 0.7490, 0.8947))


def test_real_jwst_cube_reproduces_its_magnitudes(shared_data):
    path = shared_data / "tng/tng50_skirt_jwst/188916_i0_a0_z3_NIRCam_short.fits"
    (galaxy,) = read_images(path)
    header = fits.getheader(path)
    f200w = galaxy.flux[galaxy.bands.index("F200W")].sum()
    assert -2.5 * np.log10(f200w) + 8.9 == pytest.approx(header["MAG10"], abs=0.02)
    long = read_images(path.with_name(path.name.replace("short", "long")))[0]
    assert long.group == galaxy.group, "one galaxy, whatever the file"


def test_real_skirt8_merger(shared_data):
    (galaxy,) = read_images(next((shared_data / "tng/skirt_merger_mag").glob("*.fits")))
    assert (galaxy.flux == 0).any() and np.isfinite(galaxy.flux).all() and galaxy.flux.max() > 0


def truncated(path):
    good = idealised(path.with_name("good.fits"))
    path.write_bytes(good.read_bytes()[: int(good.stat().st_size * 0.7)])


def card(path, image=None, **cards):
    fits.writeto(path, blob() if image is None else image, fits.Header(cards))


@pytest.mark.parametrize(("make", "words"), [
    (truncated, "truncated or damaged"),
    (lambda p: card(p, np.where(np.arange(N * N).reshape(N, N), blob(), np.nan)), "1 of 576 pixels are NaN"),
    (lambda p: fits.BinTableHDU.from_columns([fits.Column("a", "J")]).writeto(p), "no image in any"),
    (lambda p: card(p, BUNIT="ST mag"), "magnitude unit"),
    (lambda p: card(p, BUNIT="furlong", CTYPE1="kpc"), "unknown layout"),
    (lambda p: idealised(p, drop=("REDSHIFT",)), "card REDSHIFT is missing"),
    (lambda p: idealised(p, unit="mile"), "expected kpc"),
    (lambda p: card(p, np.zeros((N, N), np.float32)), "no flux in any band"),
    (lambda p: card(p, np.ones((4, 4), np.float32)), "at least 16 by 16"),
    (lambda p: p.write_bytes(b"not a FITS file at all" * 200), "truncated or damaged"),
])  # fmt: skip
def test_bad_files_are_named_with_a_remedy(tmp_path, make, words):
    path = tmp_path / "bad.fits"
    make(path)
    with pytest.raises(InputError, match=words) as caught:
        read_images(path)
    assert "bad.fits" in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_npz(tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match=r"bad.npz: cannot be read as npz"):
        read_images(path)
