"""Survey files proposed from files as archives give them: planes, bands, units and names."""

import re

import numpy as np
import pytest
from astropy.io import fits
from cutouts_field import add_galaxy, gaussian_psf, noise_field, proposed, wcs_of, write_psf

from galbatch.cutouts import load_survey, open_survey
from galbatch.cutouts.propose.identify import band_in, find_sources, role_in, words_of
from galbatch.cutouts.propose.text import surveys, template
from galbatch.errors import InputError


def test_what_the_real_headers_mean(shared_data, tmp_path):
    """CANDELS F814W counts per second have the AB zero point 25.94; FLUXMAG0 of HSC is 27.0."""
    proposed(shared_data / "hst_candels", tmp_path)
    survey = open_survey(tmp_path / "s.toml")
    assert 31.4 - 2.5 * np.log10(survey.tile("f814w", "0").njy) == pytest.approx(25.943, abs=0.01)
    assert "# 150 x 150 pixels, centred on ra 150.23911, dec 2.04826" in (tmp_path / "s.toml").read_text()
    assert survey.tile("f814w", "0").psf.scale_arcsec == 0.05  # at 0.03 it would beat diffraction
    proposed(shared_data / "hsc_cutout", tmp_path)
    survey = open_survey(tmp_path / "s.toml")
    assert 31.4 - 2.5 * np.log10(survey.tile("r", "0").njy) == pytest.approx(27.0, abs=1e-6)
    proposed(shared_data / "jwst_ceers", tmp_path, lambda question, like: like)
    config = load_survey(tmp_path / "s.toml")
    assert "the catalogue needs x, y (from 0), tile" in (tmp_path / "s.toml").read_text()
    assert config.pixel_columns and [b.name for b in config.bands][::5] == ["f115w", "f444w"]
    assert [t.name for t in config.bands[0].tiles] == ["10735", "13347", "6978"]
    assert {t.pixel_scale_arcsec for t in config.bands[0].tiles} == {0.02}
    assert [t.mask.optional for t in config.bands[2].tiles] == [True] * 3


def test_a_file_of_the_jwst_pipeline(tmp_path):
    """Planes by extension; partial variances and the context are left alone; BUNIT counts of the header."""
    hdus = [fits.PrimaryHDU()]
    hdus[0].header["FILTER"], hdus[0].header["TELESCOP"] = "F200W", "JWST"
    for name in ("SCI", "ERR", "WHT", "VAR_POISSON", "VAR_RNOISE"):
        hdu = fits.ImageHDU(np.abs(noise_field()) + 0.1, wcs_of().to_header(), name=name)
        hdu.header["BUNIT"] = "MJy/sr"
        hdus.append(hdu)
    folder = tmp_path / "in"
    folder.mkdir()
    fits.HDUList(hdus).writeto(folder / "jw01345-o001_t021_nircam_clear-f200w_i2d.fits")
    write_psf(folder / "psf_f200w.fits")
    text, said = proposed(folder, tmp_path)
    config = load_survey(tmp_path / "s.toml")
    assert config.layout.name == "jwst-i2d" and [b.name for b in config.bands] == ["f200w"]
    assert config.bands[0].tiles[0].err.ext == ("ERR",) and "TODO" not in text
    assert sum("VAR_" in line for line in said) == 2
    assert not [f for f in open_survey(config).check() if f.level == "error"]


CARDS = [
    ({"MAGZPT": 25.5}, "zero_point_ab", 25.5),
    ({"FLUXMAG0": 10**10.8}, "zero_point_ab", 27.0),
    ({"PHOTFLAM": 1.3e-19, "PHOTPLAM": 8045.0}, "unit", "electron/s"),
    (
        {"PHOTFLAM": 1.3e-19, "PHOTPLAM": 8045.0, "BUNIT": "ELECTRONS", "EXPTIME": 1000.0},
        "zero_point_ab",
        -2.5 * np.log10(1.3e-19) - 5 * np.log10(8045) - 2.408 + 7.5,
    ),
]


@pytest.mark.parametrize(("cards", "key", "value"), CARDS)
def test_units_in_the_primary_header(cards, key, value, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    image = fits.ImageHDU(noise_field(), wcs_of().to_header())
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(cards)), image]).writeto(folder / "hst_f814w_drz.fits")
    fits.PrimaryHDU(np.full((300, 260), 0.5, "f4")).writeto(folder / "hst_f814w_rms.fits")
    fits.PrimaryHDU(gaussian_psf()).writeto(folder / "star.fits")  # a PSF by its pixels
    proposed(folder, tmp_path)
    tile = load_survey(tmp_path / "s.toml").bands[0].tiles[0]
    found = getattr(tile, key)
    assert found == (value if isinstance(value, str) else pytest.approx(value, abs=1e-3))
    assert tile.err.path.endswith("rms.fits") and tile.psf.path.endswith("star.fits")


def hdu(data, name, **cards):
    header = wcs_of(120, 150).to_header()
    header.update(cards)
    return fits.ImageHDU(data.astype("f4"), header, name=name)


def test_one_file_with_all_planes_of_all_bands(tmp_path):
    """A Euclid cutout: bands by FILTER and extension, faint in the first, a PSF that is off its centre."""
    folder, faint = tmp_path / "in", noise_field(1, 120, 150)
    folder.mkdir()
    bright = faint.copy()
    add_galaxy(bright, 60, 70)
    hdus = [fits.PrimaryHDU()]
    for band, image, shift in (("DES_G", faint, 0.0), ("NIR_Y", bright, 0.15), ("Ks", faint, 0.0)):
        hdus += [
            hdu(image, f"{band}_FLUX", MAGZERO=30.0, FILTER=band),
            fits.ImageHDU(gaussian_psf(dx=shift), fits.Header({"FILTER": band}), name=f"{band}_PSF"),
            hdu(np.full((120, 150), 0.5), f"{band}_RMS", FILTER=band),
        ]
    fits.HDUList(hdus).writeto(folder / "cutout.fits")
    text, said = proposed(folder, tmp_path)
    config = load_survey(tmp_path / "s.toml")
    assert [b.name for b in config.bands] == ["g", "nir-y", "ks"] and not said
    tiles = [b.tiles[0] for b in config.bands]
    assert [t.err.ext[0] for t in tiles] == ["DES_G_RMS", "NIR_Y_RMS", "KS_RMS"]
    assert [t.psf_centre for t in tiles] == ["check", "recentre", "check"]
    assert "it is off-centre by (+0.150, +0.000)" in text
    assert not [f for f in open_survey(config).check() if f.level == "error"]
    assert len(find_sources(tmp_path / "s.toml")["id"]) == 1


def test_planes_without_names_by_card_and_by_the_scatter_of_the_image(tmp_path):
    """Legacy Surveys say IMAGETYP; else the noise is what the scatter of the image makes it."""
    folder, sky = tmp_path / "in", noise_field(1, 120, 150, sigma=0.02)
    folder.mkdir()
    planes = {"g": ("wht", 0.02**-2, "invvar"), "r": ("var", 0.02**2, ""), "z": ("err", 0.05, "")}
    hdus = [fits.PrimaryHDU(header=fits.Header({"SURVEY": "DECaLS"}))]
    for band, (_, value, kind) in planes.items():
        kinds = [{"IMAGETYP": k} if kind else {} for k in ("image", kind)]
        hdus += [hdu(sky, None, BAND=band, **kinds[0])]
        hdus += [hdu(np.full((120, 150), value), None, BAND=band, **kinds[1])]
    fits.HDUList(hdus).writeto(folder / "cutout.fits")
    fits.HDUList([fits.PrimaryHDU()] + [
        fits.ImageHDU(gaussian_psf(), fits.Header({"BAND": band})) for band in planes
    ]).writeto(folder / "other.fits")  # fmt: skip
    proposed(folder, tmp_path, lambda question, like: like)
    assert load_survey(tmp_path / "s.toml").layout.name == "generic"
    for band in load_survey(tmp_path / "s.toml").bands:
        tile, role = band.tiles[0], planes[band.name][0]
        assert getattr(tile, role) is not None and tile.unit == "nanomaggy" and tile.psf is not None
        assert [r for r in ("err", "var", "wht") if getattr(tile, r) is not None] == [role]


@pytest.mark.parametrize("kind, layout", [("invvar", "generic"), ("wht", "dja")])
def test_inverse_variances_need_no_exposure_map(tmp_path, kind, layout):
    folder, sky = tmp_path / "in", noise_field(1, 120, 150, sigma=0.02)
    folder.mkdir()
    header = wcs_of(120, 150).to_header()
    header["BUNIT"] = "nJy"
    fits.writeto(folder / "brick-image-r.fits", sky.astype("f4"), header)
    fits.writeto(folder / f"brick-{kind}-r.fits", np.full((120, 150), 0.02**-2, "f4"), header)
    fits.writeto(folder / "brick-psf-r.fits", gaussian_psf())
    proposed(folder, tmp_path, lambda question, like: like)
    assert load_survey(tmp_path / "s.toml").layout.name == layout


def test_without_a_wcs_the_scale_of_the_psf_is_open_too(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    fits.writeto(folder / "image.fits", noise_field(1, 120, 150))
    fits.writeto(folder / "psf.fits", gaussian_psf() * 10)
    text, _ = proposed(folder, tmp_path, lambda question, like: "nJy" if "Unit" in question else None)
    assert 'psf_scale_arcsec = "TODO' in text
    (tmp_path / "s.toml").write_text(re.sub(r'"TODO: arcsec[^"]*"', "0.05", text))
    found = [f for f in open_survey(tmp_path / "s.toml").check() if f.code == "psf_norm"]
    assert [f.level for f in found] == ["info"]  # psf_norm = "unit" is there: nothing to do


@pytest.mark.parametrize("name", surveys())
def test_templates_name_no_file_and_load_once_completed(name, tmp_path):
    text = template(name)
    assert all("TODO" in line for line in text.splitlines() if ".fits" in line)
    lines = [
        f'{line.split(" = ")[0]} = "a_sci.fits"' if "TODO" in line else line for line in text.splitlines()
    ]
    (tmp_path / "s.toml").write_text("\n".join(lines))
    config = load_survey(tmp_path / "s.toml")
    assert config.name == name and len(config.bands) >= 4


@pytest.mark.parametrize(("name", "role", "band"), [
    ("primer-uds-north-grizli-v7.2-f200w-clear_drc_wht.fits.gz", "wht", "f200w"),
    ("EUC_MER_MOSAIC-VIS-RMS_TILE102018666-AB12_20241019T.fits", "err", "vis"),
    ("EUC_MER_BGSUB-MOSAIC-NIR-H_TILE102018666-AB12.fits", "sci", "nir-h"),
    ("calexp-HSC-R-9813-5,5.fits", "sci", "r"),
    ("psf-calexp-pdr3_dud_rev-HSC-R-9813-5.fits", "psf", "r"),
    ("hlsp_jades_jwst_nircam_goods-s-deep_f335m_v2.0_drz.fits", "sci", "f335m"),
    ("hlsp_candels_hst_acs_gs_f850lp_v1.0_wht.fits", "wht", "f850lp"),
    ("galaxy.fits", None, ""),
])  # fmt: skip
def test_names_of_the_archives(name, role, band):
    assert role_in(words_of(name)) == role and band_in(name) == band


def test_an_image_without_sources_says_so(tmp_path):
    (tmp_path / "field").mkdir()
    header = wcs_of(100, 100).to_header()
    header["BUNIT"] = "nJy"
    sky = np.random.default_rng(3).normal(0, 1.0, (100, 100)).astype("f4")
    fits.writeto(tmp_path / "field" / "f200w_sci.fits", sky, header)
    write_psf(tmp_path / "field" / "f200w_psf.fits", gaussian_psf())
    proposed(tmp_path / "field", tmp_path)
    with pytest.raises(InputError, match="no source of 5 sigma in f200w: give a catalogue"):
        find_sources(tmp_path / "s.toml")


def test_what_became_of_each_file_is_said(tmp_path):
    header = wcs_of(120, 150).to_header()
    header["BUNIT"] = "furlong"
    made = tmp_path / "in"
    made.mkdir()
    (made / "f200w_text.fits").write_text("no FITS file")
    fits.writeto(made / "f200w_sci_cube.fits", np.stack([noise_field(120, 150)] * 3))
    with pytest.raises(InputError, match=r"(?s)text.fits is not a FITS file.*cube.fits: read as sci.*a cube"):
        proposed(made, tmp_path)
    for name in ("f200w_sci.fits", "f200w_sci_v2.fits"):
        fits.writeto(made / name, noise_field(120, 150), header)
    fits.writeto(made / "f200w_err.fits", np.ones((100, 150), "f4"))
    text, said = proposed(made, tmp_path)
    assert "BUNIT = furlong without a zero point does not say" in text
    assert any("f200w_err.fits (read as err, by name; no image has its 150 x 100 pixels)" in x for x in said)
    assert "f200w: f200w_sci.fits and f200w_sci_v2.fits show the same place. Keep one" in " ".join(said)
