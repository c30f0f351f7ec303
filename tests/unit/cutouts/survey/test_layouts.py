"""Each named layout on a file written as its survey documents it, against a variance computed by hand."""

import numpy as np
import pytest
from astropy.io import fits
from cutouts_field import gaussian_psf, noise_field, sources, stated, wcs_of, write_image

from galbatch.cutouts import open_survey
from galbatch.cutouts.fits.units import njy_per_unit
from galbatch.errors import ConfigError, InputError
from galbatch.types import Flag

MJYSR_NJY = 1e15 * (0.04 * np.pi / 648000) ** 2


def survey_of(tmp_path, layout, keys, scale=0.04):
    write_image(tmp_path / "psf.fits", gaussian_psf(), PIXSCALE=scale)
    path = tmp_path / "s.toml"
    path.write_text(
        f'layout = "{layout}"\nneighbours = "keep"\n[bands.b]\npsf = "psf.fits"\n{stated(keys)}\n'
    )
    return open_survey(path)


def cut(survey, x=120.0, y=140.0, size=16, **more):
    batch = survey.cut(sources([x], [y], **more), size)
    stamps = batch.bands[0]
    y0, x0 = int(y) - size // 2, int(x) - size // 2
    return batch, stamps, np.s_[y0 : y0 + size, x0 : x0 + size]


def i2d(tmp_path, names, name="a_i2d.fits", unit="MJy/sr"):
    rng = np.random.default_rng(3)
    planes = {n: rng.uniform(0.5, 2.0, (300, 260)).astype("f4") for n in names}
    hdus = [fits.PrimaryHDU()]
    for n, data in planes.items():
        header = wcs_of().to_header()
        header["BUNIT"] = unit if n.startswith(("SCI", "ERR")) else ""
        hdus.append(fits.ImageHDU(data, header, name=n))
    fits.HDUList(hdus).writeto(tmp_path / name)
    return planes


def test_jwst_i2d(tmp_path):
    planes = i2d(tmp_path, ["SCI", "CON", "WHT", "ERR", "VAR_POISSON"])
    batch, stamps, box = cut(survey_of(tmp_path, "jwst-i2d", 'sci = "a_i2d.fits"'))
    np.testing.assert_allclose(stamps.data[0], planes["SCI"][box] * MJYSR_NJY, rtol=1e-6)
    np.testing.assert_allclose(
        stamps.sigma[0] ** 2, (planes["ERR"][box].astype(float) * MJYSR_NJY) ** 2, rtol=1e-6
    )
    assert not batch.flags[0] & Flag.VARIANCE_APPROX


def test_ceers_prefers_the_background_subtracted_plane(tmp_path):
    planes = i2d(tmp_path, ["SCI", "ERR", "WHT", "SCI_BKSUB"])
    _, stamps, box = cut(survey_of(tmp_path, "ceers", 'sci = "a_i2d.fits"\nerr_scale = 1.3'))
    np.testing.assert_allclose(stamps.data[0], planes["SCI_BKSUB"][box] * MJYSR_NJY, rtol=1e-6)
    np.testing.assert_allclose(stamps.sigma[0], planes["ERR"][box] * 1.3 * MJYSR_NJY, rtol=1e-6)


@pytest.mark.parametrize("rescaled", [True, False])
def test_dja_adds_the_photon_noise_of_the_exposure_map(tmp_path, rescaled):
    rng = np.random.default_rng(4)
    sci = noise_field(sigma=0.02)
    sci[130:150, 110:130] += 3
    wht = rng.uniform(500, 2000, sci.shape).astype("f4")
    wht[0, 0] = 0
    sample = 4
    exp = rng.uniform(1000, 5000, (75, 65)).astype("f4")
    cards = {"SAMPLE": sample, "PHOTMJSR": 0.39, "PHOTSCAL": 1.1}
    if rescaled:
        cards |= {"OPHOTFNU": 2e-8, "PHOTFNU": 1e-8}
    write_image(tmp_path / "f-b_drc_sci.fits", sci, wcs_of())
    write_image(tmp_path / "f-b_drc_wht.fits", wht, wcs_of())
    write_image(tmp_path / "f-b_drc_exp.fits", exp, None, **cards)
    survey = survey_of(tmp_path, "dja", 'sci = "f-b_drc_sci.fits"')
    for x, y in ((120, 140), (121, 143), (6, 9)):
        batch, stamps, _ = cut(survey, x, y)
        for i, j in ((8, 8), (0, 0), (3, 12), (15, 15)):
            py, px = y - 8 + i, x - 8 + j
            if py < 0 or px < 0 or wht[py, px] == 0:
                assert stamps.mask[0, i, j]
                continue
            gain = exp[py // sample, px // sample] / 0.39 / 1.1 * (0.5 if rescaled else 1.0)
            variance = 1 / wht[py, px] + max(sci[py, px], 0) / gain
            assert stamps.sigma[0, i, j] ** 2 == pytest.approx(variance * 100, rel=1e-6)
        assert not batch.flags[0] & Flag.VARIANCE_APPROX
    np.testing.assert_allclose(cut(survey)[1].data[0], sci[132:148, 112:128] * 10, rtol=1e-6)


def test_dja_without_an_exposure_map_is_flagged(tmp_path):
    write_image(tmp_path / "f_drz_sci.fits", noise_field(), wcs_of())
    write_image(tmp_path / "f_drz_wht.fits", np.full((300, 260), 4.0, "f4"), wcs_of())
    survey = survey_of(tmp_path, "dja", 'sci = "f_drz_sci.fits"')
    batch, stamps, _ = cut(survey)
    assert batch.flags[0] & Flag.VARIANCE_APPROX
    np.testing.assert_allclose(stamps.sigma[0], 5.0, rtol=1e-6)
    assert {"plane_missing", "variance"} <= {f.code for f in survey.check()}


def test_hst_photons_from_the_exposure_map_in_seconds(tmp_path):
    rng = np.random.default_rng(4)
    sci = noise_field(sigma=0.01)
    sci[130:150, 110:130] += 0.5
    wht = rng.uniform(5e3, 2e4, sci.shape).astype("f4")
    exp = rng.uniform(1000, 5000, sci.shape).astype("f4")
    cards = {"BUNIT": "ELECTRONS/S", "PHOTFLAM": 7.0331885e-20, "PHOTPLAM": 8045.0}
    write_image(tmp_path / "f_f814w_drz.fits", sci, wcs_of(), **cards)
    write_image(tmp_path / "f_f814w_wht.fits", wht, wcs_of())
    write_image(tmp_path / "f_f814w_exp.fits", exp, wcs_of())
    batch, stamps, box = cut(survey_of(tmp_path, "hst", 'sci = "f_f814w_drz.fits"'))
    njy = 10 ** (0.4 * (31.4 - 25.947))
    variance = 1 / wht[box] + np.maximum(sci[box], 0) / exp[box]
    np.testing.assert_allclose(stamps.sigma[0], np.sqrt(variance) * njy, rtol=1e-3)
    assert not batch.flags[0] & Flag.VARIANCE_APPROX


def test_euclid_mer(tmp_path):
    sci = noise_field()
    rms = np.full(sci.shape, 0.25, "f4")
    flag = np.zeros(sci.shape, np.int32)
    flag[140, 120] = 1
    names = {"BGSUB-MOSAIC": sci, "MOSAIC-RMS": rms, "MOSAIC-FLAG": flag}
    for name, data in names.items():
        write_image(tmp_path / f"EUC_MER_{name}-VIS_TILE1.fits", data, wcs_of(), MAGZERO=24.6)
    _, stamps, box = cut(survey_of(tmp_path, "euclid-mer", 'sci = "EUC_MER_BGSUB-MOSAIC-VIS_TILE1.fits"'))
    factor = 10 ** (-0.4 * (24.6 - 31.4))
    good = ~stamps.mask[0]
    assert stamps.mask[0].sum() == 1 and stamps.mask[0, 8, 8]
    np.testing.assert_allclose(stamps.data[0][good], sci[box][good] * factor, rtol=1e-6)
    np.testing.assert_allclose(stamps.sigma[0][good], 0.25 * factor, rtol=1e-6)


def test_hsc_mask_planes_by_name(tmp_path):
    rng = np.random.default_rng(5)
    image, variance = noise_field(), rng.uniform(0.1, 0.4, (300, 260)).astype("f4")
    mask = np.zeros((300, 260), np.int32)
    mask[140, 125], mask[141, 125], mask[142, 125], mask[140, 120] = 1 << 0, 1 << 5, 1 << 4, 1 << 1
    header = wcs_of().to_header()
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(image, header, name="IMAGE"),
        fits.ImageHDU(mask, header, name="MASK"),
        fits.ImageHDU(variance, header, name="VARIANCE"),
    ]
    for number, name in enumerate(["BAD", "SAT", "INTRP", "CR", "EDGE", "DETECTED"]):
        hdus[2].header[f"HIERARCH MP_{name}"] = number
    fits.HDUList(hdus).writeto(tmp_path / "calexp.fits")
    survey = survey_of(tmp_path, "hsc", 'sci = "calexp.fits"')
    batch, stamps, box = cut(survey)
    assert sorted(zip(*map(list, np.nonzero(stamps.mask[0])), strict=True)) == [(8, 8), (8, 13), (10, 13)]
    assert batch.flags[0] & Flag.SATURATED and batch.flags[0] & Flag.MASKED_CENTRE
    good = ~stamps.mask[0]
    factor = 10 ** (-0.4 * (27.0 - 31.4))
    np.testing.assert_allclose(
        stamps.sigma[0][good] ** 2, variance[box][good].astype(float) * factor**2, rtol=1e-6
    )
    with pytest.raises(ConfigError, match=r"'BRIGHT'.*It has: BAD, SAT, INTRP, CR, EDGE, DETECTED"):
        survey_of(tmp_path, "hsc", 'sci = "calexp.fits"\nmask_bits = ["BRIGHT"]').tile("b", "0")


@pytest.mark.parametrize(
    ("key", "plane", "variance"), [("err", 0.5, 0.25), ("var", 0.5, 0.5), ("wht", 0.5, 2.0)]
)
def test_generic_noise_planes(tmp_path, key, plane, variance):
    data = np.full((300, 260), plane, "f4")
    data[138, 120], data[139, 120], data[140, 121] = 0, -1, np.nan
    write_image(tmp_path / "sci.fits", noise_field(), wcs_of(), BUNIT="uJy")
    write_image(tmp_path / "n.fits", data, wcs_of())
    _, stamps, _ = cut(survey_of(tmp_path, "generic", f'sci = "sci.fits"\n{key} = "n.fits"'))
    assert sorted(zip(*map(list, np.nonzero(stamps.mask[0])), strict=True)) == [(6, 8), (7, 8), (8, 9)]
    np.testing.assert_allclose(stamps.sigma[0][~stamps.mask[0]] ** 2, variance * 1e6, rtol=1e-6)
    assert np.all(np.isinf(stamps.sigma[0][stamps.mask[0]]))


def test_an_exposure_map_alone_is_scaled_by_the_measured_noise(tmp_path):
    exposure = np.full((300, 260), 100.0, "f4")
    exposure[:, 130:] = 400.0
    sci = noise_field(sigma=0.5)
    sci[:, 130:] *= 0.5
    write_image(tmp_path / "sci.fits", sci, wcs_of(), BUNIT="nJy")
    write_image(tmp_path / "exp.fits", exposure, wcs_of())
    batch, stamps, _ = cut(survey_of(tmp_path, "generic", 'sci = "sci.fits"\nexp = "exp.fits"'), 130, 140)
    assert batch.flags[0] & Flag.VARIANCE_APPROX
    np.testing.assert_allclose(stamps.sigma[0][:, 0], 0.5, rtol=0.03)
    np.testing.assert_allclose(stamps.sigma[0][:, -1], 0.25, rtol=0.03)


UNITS = [
    ({"BUNIT": "nJy"}, {}, 1.0),
    ({"BUNIT": "uJy"}, {}, 1e3),
    ({"BUNIT": "Jy"}, {}, 1e9),
    ({"BUNIT": "mJy"}, {}, 1e6),
    ({"BUNIT": "10.0*nanoJansky"}, {}, 10.0),
    ({"BUNIT": "MJy/sr"}, {}, MJYSR_NJY),
    ({"BUNIT": "MJy"}, {}, 1e15),
    ({"BUNIT": "nanomaggy"}, {}, 3630.780547701),
    ({"BUNIT": "nJy/arcsec2"}, {}, 0.04**2),
    ({}, {"unit": "10nJy"}, 10.0),
    ({}, {"zero_point_ab": 31.4}, 1.0),
    ({}, {"zero_point_ab": 28.9}, 10.0),
    ({"MAGZERO": 23.9}, {}, 1e3),
    ({"PHOTFNU": 1e-8}, {}, 10.0),
    ({"BUNIT": "DN/s", "PHOTMJSR": 0.4}, {}, 0.4 * MJYSR_NJY),
    ({"PHOTFNU": 1e-8, "PHOTMJSR": 0.4}, {}, 10.0),
    ({"BUNIT": "nJy"}, {"unit": "uJy"}, 1e3),
    ({"BUNIT": "uJy"}, {"zero_point_ab": 31.4}, 1.0),
    ({"BUNIT": "ADU"}, {"unit": "adu", "zero_point_ab": 28.9}, 10.0),
    ({"FLUXMAG0": 63095734448.01944}, {}, 10 ** (-0.4 * (27.0 - 31.4))),  # an HSC cutout: 27.0
    ({"MAGZPT": 23.9}, {}, 1e3),
]


@pytest.mark.parametrize(("header", "given", "factor"), UNITS)
def test_units(header, given, factor):
    assert njy_per_unit(header, 0.04, **given) == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize("header", [
    {},
    {"BUNIT": "ADU"},
    {"BUNIT": "furlong"},
    {"BUNIT": "nJy**2"},
    {"PHOTMJSR": 0.0},
    {"BUNIT": "mag"},
    {"MAGZERO": "high"},
    {"BUNIT": "ELECTRONS", "PHOTFLAM": 7e-20, "PHOTPLAM": 8045.0},  # of the whole exposure, not a second
])  # fmt: skip
def test_a_unit_is_never_assumed(header):
    with pytest.raises(InputError, match=r"Give unit = .*or zero_point_ab"):
        njy_per_unit(header, 0.04)


def test_hst_zero_points_of_the_acs_pages_and_of_the_candels_readme():
    """ACS/WFC F814W after the side switch of 2006 (-81 C): the AB zero point 25.947. CANDELS mosaics have
    PHOTFLAM and PHOTPLAM and no BUNIT: that their counts are per second is said in the survey file."""
    cards = {"BUNIT": "ELECTRONS/S", "PHOTFLAM": 7.0331885e-20, "PHOTPLAM": 8045.0}
    assert 31.4 - 2.5 * np.log10(njy_per_unit(cards, 0.05)) == pytest.approx(25.947, abs=1e-3)
    cards = {"PHOTFLAM": 7.0331885e-20, "PHOTPLAM": 8056.9424}
    factor = njy_per_unit(cards, 0.03, unit="electron/s")
    assert 31.4 - 2.5 * np.log10(factor) == pytest.approx(25.947, abs=5e-3)
    with pytest.raises(InputError, match=r"PHOTFLAM is of counts per second.*electron/s"):
        njy_per_unit(cards, 0.03)


def test_jwst_zero_point_of_the_readme():
    """CEERS README: 30 mas mosaics in MJy/sr have the AB zero point 28.0865."""
    assert 31.4 - 2.5 * np.log10(njy_per_unit({"BUNIT": "MJy/sr"}, 0.03)) == pytest.approx(28.0865, abs=2e-3)
