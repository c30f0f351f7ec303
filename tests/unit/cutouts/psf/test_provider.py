"""PSFs from every kind of file, and the checks that they must pass."""

import numpy as np
import pytest
from astropy.io import fits
from cutouts_field import SCALE, gaussian_psf, simple_survey, sources, write_image

from galbatch.cutouts import open_survey
from galbatch.cutouts.psf.check import centroid, check_psf
from galbatch.cutouts.psf.file import read_psf
from galbatch.errors import ConfigError, InputError
from galbatch.types import Flag


def survey_with(tmp_path, extra=""):
    path = simple_survey(tmp_path, extra=extra)
    return lambda: open_survey(path)


def psf_of(survey, x, y, **columns):
    batch = survey.cut(sources(x, y, **columns), 24)
    return batch.bands[0], batch.flags


@pytest.mark.parametrize(("size", "shift"), [(20, 0.0), (20, 0.5), (20, -0.5), (21, 0.0)])
def test_even_sizes_end_up_odd_and_centred(size, shift):
    """Even arrays centred between pixels (0), or on the pixel right (0.5) or left (-0.5) of the middle."""
    psf = gaussian_psf(size, dy=shift, dx=shift)
    found = check_psf(psf)
    assert found.problem == "" and found.image.shape[0] % 2 == 1 and found.image.shape[0] >= size - 1
    middle = found.image.shape[0] // 2
    assert centroid(found.image.astype(float), 3.0) == pytest.approx((middle, middle), abs=0.01)
    assert found.image.sum() == pytest.approx(psf.sum(), rel=2e-3)
    want = gaussian_psf(found.image.shape[0])
    np.testing.assert_allclose(found.image, want, atol=3e-3 * want.max())


@pytest.mark.parametrize("fwhm", [1.6, 2.0, 2.4, 3.0, 5.0, 12.0])
def test_the_width_of_a_psf_of_few_pixels_is_known_too(fwhm):
    """Sampled Gaussians. Counting the pixels above half of the peak was wrong by 30% at 1.6 pixels."""
    assert check_psf(gaussian_psf(41, fwhm)).fwhm_pix == pytest.approx(fwhm, rel=0.03)


@pytest.mark.parametrize(("fwhm", "warns"), [(1.7, True), (2.4, False)])
def test_a_psf_of_too_few_pixels_is_a_warning(tmp_path, fwhm, warns):
    path = simple_survey(tmp_path)
    write_image(tmp_path / "psf.fits", gaussian_psf(21, fwhm), PIXSCALE=SCALE)
    assert any(f.code == "psf_coarse" for f in open_survey(path).check()) == warns


@pytest.mark.parametrize(
    ("total", "level", "said"), [(0.99, "info", 0), (0.96, "info", 1), (0.85, "warn", 1)]
)
def test_a_sum_that_is_not_one_is_said_and_warned_of_where_it_is_far_off(tmp_path, total, level, said):
    path = simple_survey(tmp_path)
    write_image(tmp_path / "psf.fits", total * gaussian_psf(), PIXSCALE=SCALE)
    found = [f for f in open_survey(path).check() if f.code == "psf_norm"]
    assert [f.level for f in found] == [level]
    assert ("fluxes come out as if" in found[0].what) == said


def test_bad_psfs_say_why():
    psf = gaussian_psf()
    broken = psf.copy()
    broken[3, 3] = np.inf
    cases = [
        (broken, "1 pixels that are not finite"),
        (psf * 0, "positive"),
        (-psf, "positive"),
        (psf[:2, :2], "3x3"),
        (gaussian_psf(dx=0.3), "off-centre by (+0.300, +0.000)"),
        (psf * 50, "sums to 50"),
        (psf[None], "shape"),
    ]
    for image, message in cases:
        assert message in check_psf(image).problem
    assert check_psf(gaussian_psf(dx=0.05)).problem == ""
    assert check_psf(gaussian_psf(41, 12.0, dx=0.3), pixels_per_detector=4).problem == ""
    moved = check_psf(gaussian_psf(dx=0.3), centre="recentre")
    assert moved.problem == "" and centroid(moved.image.astype(float), 3.0)[1] == pytest.approx(7, abs=0.01)
    scaled = check_psf(psf * 50, norm="unit")
    assert (scaled.problem, scaled.norm, scaled.image.sum()) == ("", pytest.approx(50), pytest.approx(1))
    assert check_psf(psf * 0.93).image.sum() == pytest.approx(0.93)


def test_cube_by_index(tmp_path):
    survey = survey_with(tmp_path)
    cube = np.stack([gaussian_psf(fwhm=f) for f in (2.5, 3.0, 4.0)])
    write_image(tmp_path / "psf.fits", cube, PIXSCALE=SCALE)
    stamps, flags = psf_of(survey(), [100, 150], [100, 150], psf_index=np.array([2, 0]))
    np.testing.assert_array_equal(stamps.psf, cube[[2, 0]])
    assert stamps.psf_id[0] != stamps.psf_id[1] and not np.any(flags & Flag.PSF_BAD)


def test_nearest_position(tmp_path):
    survey = survey_with(tmp_path)
    cube = np.stack([gaussian_psf(fwhm=f) for f in (2.5, 3.0, 4.0)])
    columns = [fits.Column("x", "D", array=[10, 130, 250]), fits.Column("y", "D", array=[10, 150, 290])]
    fits.HDUList(
        [fits.PrimaryHDU(cube, fits.Header({"PIXSCALE": SCALE})), fits.BinTableHDU.from_columns(columns)]
    ).writeto(tmp_path / "psf.fits", overwrite=True)
    stamps, _ = psf_of(survey(), [240, 20, 140], [280, 15, 140])
    np.testing.assert_array_equal(stamps.psf, cube[[2, 0, 1]])


def uneven(fwhm=3.0, dy=0.0, e=0.0, wings=0.0, size=41):
    y, x = np.mgrid[:size, :size] - size // 2
    core = np.exp(-4 * np.log(2) * ((y - dy) ** 2 / (1 - e) + x**2 / (1 + e)) / fwhm**2)
    halo = np.exp(-4 * np.log(2) * (y**2 + x**2) / (3 * fwhm) ** 2)
    return (1 - wings) * core / core.sum() + wings * halo / halo.sum()


@pytest.mark.parametrize(
    ("change", "part", "half"),
    [
        ({"fwhm": 4.4}, 0, 0.7),
        ({"dy": 0.08}, 1, 0.04 / np.sqrt(2)),
        ({"e": 0.2}, 2, 0.1 / np.sqrt(2)),
        ({"wings": 0.12}, 3, 0.06),
    ],
)
def test_psfs_that_differ_from_their_neighbours_are_known_no_better(tmp_path, change, part, half):
    """Four PSFs, two of them like the one that is nearest, so that the rms of halves is as large as said."""
    cube = np.stack([uneven(), uneven(**change)])[[0, 1, 0, 1]]
    columns = [fits.Column("x", "D", array=[10, 20, 210, 220]), fits.Column("y", "D", array=[10, 10, 10, 10])]
    table = fits.BinTableHDU.from_columns(columns)
    measured = {}
    for line in ("", "psf_error = [0.5, 0.1, 0.03, 0.02, 0.01]\n"):
        survey = survey_with(tmp_path, line)
        fits.HDUList([fits.PrimaryHDU(cube, fits.Header({"PIXSCALE": SCALE})), table]).writeto(
            tmp_path / "psf.fits", overwrite=True
        )
        files = survey()
        measured[line] = psf_of(files, [100], [100])[0].psf_error
    assert files.tile("f200w", "0").psf.scatter[part] == pytest.approx(half, rel=0.1)
    stated = measured.pop("psf_error = [0.5, 0.1, 0.03, 0.02, 0.01]\n")
    np.testing.assert_allclose(stated, [0.5, 0.1, 0.03, 0.02, 0.01], rtol=1e-6)
    assert measured[""][part] == pytest.approx(max(half, stated[part]), rel=0.1)
    others = np.delete(measured[""], part)
    assert (others >= np.delete(stated, part) - 1e-6).all() and (
        others < np.delete(stated, part) + 0.02
    ).all()


def test_points_as_psfs_have_no_scatter(tmp_path):
    survey = survey_with(tmp_path, "")
    cube = np.zeros((2, 15, 15))
    cube[:, 7, 7] = 1.0
    columns = [fits.Column("x", "D", array=[10, 20]), fits.Column("y", "D", array=[10, 10])]
    fits.HDUList(
        [fits.PrimaryHDU(cube, fits.Header({"PIXSCALE": SCALE})), fits.BinTableHDU.from_columns(columns)]
    ).writeto(tmp_path / "psf.fits", overwrite=True)
    np.testing.assert_allclose(psf_of(survey(), [100], [100])[0].psf_error, [0.5, 0.1, 0.03, 0.02, 0.01])


def grid_cube(over=1):
    return np.stack([gaussian_psf(15 * over + 1 - over % 2, 3.0 * over + k * over) for k in range(4)])


@pytest.mark.parametrize("kind", ["stdpsf", "stpsf"])
def test_grids_are_interpolated_and_held_at_their_edges(tmp_path, kind):
    survey = survey_with(tmp_path, 'psf_frame = "mosaic"\npsf_scale_arcsec = 0.01\n')
    cube = grid_cube(4)
    header = fits.Header()
    if kind == "stdpsf":
        header.update(NXPSFS=2, NYPSFS=2, IPSFX01=51, IPSFX02=151, JPSFY01=51, JPSFY02=251)
        cube = cube * 16
    else:
        for k, (y, x) in enumerate(((50.0, 50.0), (50.0, 150.0), (250.0, 50.0), (250.0, 150.0))):
            header[f"DET_YX{k}"] = str((y, x))
        header["OVERSAMP"] = 4
    write_image(tmp_path / "psf.fits", cube, **dict(header))
    stamps, flags = psf_of(survey(), [50, 100, 75, 240], [50, 150, 250, 100])
    unit = grid_cube(4)
    weights = np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0.75, 0.25], [0, 0.75, 0, 0.25]])
    np.testing.assert_allclose(stamps.psf, np.einsum("ik,kyx->iyx", weights, unit), atol=1e-6)
    assert [bool(f & Flag.PSF_EXTRAPOLATED) for f in flags] == [False, False, False, True]
    assert stamps.psf_scale_arcsec == 0.01


def test_the_frame_of_a_varying_psf_must_be_said(tmp_path):
    survey = survey_with(tmp_path)
    header = {"NXPSFS": 2, "NYPSFS": 2, "IPSFX01": 1, "IPSFX02": 100, "JPSFY01": 1, "JPSFY02": 100}
    write_image(tmp_path / "psf.fits", grid_cube(), **header)
    with pytest.raises(ConfigError, match='psf_frame = "mosaic" or "detector"'):
        _ = survey().tile("f200w", "0").psf
    detector = survey_with(tmp_path, 'psf_frame = "detector"')
    write_image(tmp_path / "psf.fits", grid_cube(), **header)
    found = {f.code: f.level for f in detector().check(["source_id", "ra", "dec"])}
    assert found["psf_column"] == "error"
    places = dict(psf_x=np.array([1.0, np.nan]), psf_y=np.array([1.0, 1.0]))
    stamps, flags = psf_of(detector(), [150, 160], [150, 160], **places)
    np.testing.assert_allclose(stamps.psf[0], grid_cube()[0], atol=1e-6)
    assert [bool(f & Flag.PSF_BAD) for f in flags] == [False, True]


def write_psfex(path, basis, samp=1.0, **cards):
    column = fits.Column(
        "PSF_MASK", f"{basis.size}E", dim=str(tuple(reversed(basis.shape))), array=basis[None]
    )
    hdu = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    x = {"POLNAME1": "X_IMAGE", "POLZERO1": 131.0, "POLSCAL1": 200.0}
    y = {"POLNAME2": "Y_IMAGE", "POLZERO2": 151.0, "POLSCAL2": 300.0}
    hdu.header.update({"POLNAXIS": 2, "POLGRP1": 1, "POLDEG1": 2, "PSF_SAMP": samp} | x | y | cards)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)


def test_psfex_polynomials(tmp_path):
    """Order of PSFEx: 1, x, x^2, y, xy, y^2."""
    survey = survey_with(tmp_path, 'psf_frame = "mosaic"')
    basis = np.stack([gaussian_psf(fwhm=3 + 0.3 * k) for k in range(6)])
    basis[1:] *= 0.02
    write_psfex(tmp_path / "psf.fits", basis)
    stamps, _ = psf_of(survey(), [130, 180], [150, 120])
    np.testing.assert_allclose(stamps.psf[0], basis[0], atol=1e-6)
    u, v = 50 / 200, -30 / 300
    want = sum(t * b for t, b in zip((1, u, u * u, v, u * v, v * v), basis, strict=True))
    np.testing.assert_allclose(stamps.psf[1], want, atol=1e-6)


def test_damaged_psf_files(tmp_path):
    survey = survey_with(tmp_path, 'psf_frame = "mosaic"')
    bad = np.stack([gaussian_psf()] * 6)
    bad[2, 3, 3] = np.nan
    write_psfex(tmp_path / "nan.fits", bad)
    write_psfex(tmp_path / "terms.fits", bad[:5])
    grid = dict(NXPSFS=3, NYPSFS=2, IPSFX01=1, IPSFX02=2, IPSFX03=3, JPSFY01=1, JPSFY02=2)
    write_image(tmp_path / "grid.fits", grid_cube(), **grid)
    (tmp_path / "text.fits").write_text("no")
    fits.PrimaryHDU().writeto(tmp_path / "none.fits")
    for name, message in (
        ("nan", "NaN or infinite"),
        ("terms", "polynomials in x and y"),
        ("grid", "3 x 2, but the cube has 4"),
        ("text", "cannot be read"),
        ("none", "has no image"),
        ("absent", "cannot be opened: No such file"),
    ):
        with pytest.raises(InputError, match=message):
            read_psf(str(tmp_path / f"{name}.fits"))
    (tmp_path / "psf.fits").unlink()
    batch = survey().cut(sources([100], [100]), 24)
    assert batch.failures[0].code == "READ_ERROR" and "cannot be opened" in batch.failures[0].message


def test_real_psfs(shared_data):
    even = read_psf(str(shared_data / "psf/grizli_smacs_20mas/psf-smacs0723-f200w.fits"))
    assert even.cube.shape == (1, 200, 200) and even.scale_arcsec == 0.02
    found = check_psf(even.cube[0], centre="recentre")
    assert found.image.shape == (199, 199) and np.argmax(found.image) == 99 * 199 + 99
    web = read_psf(str(shared_data / "psf/webbpsf_4x/f444w.fits"))
    assert web.per_detector == 4 and check_psf(web.cube[0], 4).problem == ""
    cosmos = read_psf(str(shared_data / "jwst_cosmosweb/f444w_psfs.fits"))
    assert cosmos.kind == "cube" and all(check_psf(p).problem == "" for p in cosmos.cube)


def test_a_psfex_model_of_extreme_numbers_is_a_bad_psf_without_a_warning(tmp_path):
    survey = survey_with(tmp_path, 'psf_frame = "mosaic"')
    write_psfex(tmp_path / "psf.fits", np.stack([gaussian_psf()] * 6), POLSCAL1=1e-308)
    batch = survey().cut(sources([130, 180], [150, 120]), 24)
    assert [f.code for f in batch.failures.values()] == ["PSF_BAD"] * 2


@pytest.mark.parametrize("fields", [10**9, -1])
def test_a_psf_table_of_a_billion_fields_is_damaged(tmp_path, fields):
    """astropy would make a list of as many and fill the memory."""
    write_psfex(tmp_path / "p.fits", np.stack([gaussian_psf()] * 6))
    content = (tmp_path / "p.fits").read_bytes()
    at = content.index(b"TFIELDS =")
    card = f"TFIELDS = {fields:>20}".ljust(80).encode()
    (tmp_path / "p.fits").write_bytes(content[:at] + card + content[at + 80 :])
    with pytest.raises(InputError, match="damaged: TFIELDS is"):
        read_psf(str(tmp_path / "p.fits"))
