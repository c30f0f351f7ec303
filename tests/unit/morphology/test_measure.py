"""``measure``: units, shapes, choices, what it must not do, and numbers that are known without a reference
code."""

import numpy as np
import pytest
from scipy.optimize import brentq

from galbatch.errors import InputError
from galbatch.morphology import QUANTITIES, MorphFlag, measure, severity

N = 64


def exponential(r_e=6.0, x0=31.5, y0=32.0, ellip=0.0, theta=0.0, total=1000.0):
    """Exponential disc of a total flux, semi-major half-light radius r_e."""
    y, x = np.mgrid[:N, :N].astype(float)
    u = (x - x0) * np.cos(theta) + (y - y0) * np.sin(theta)
    v = -(x - x0) * np.sin(theta) + (y - y0) * np.cos(theta)
    h = r_e / 1.67834699
    return total / (2 * np.pi * h**2 * (1 - ellip)) * np.exp(-np.hypot(u, v / (1 - ellip)) / h)


@pytest.fixture(scope="module")
def disc():
    return exponential()[None].astype(np.float32)


SEGMENT = (np.hypot(*(np.mgrid[:N, :N] - 31.5)) < 20).astype(int)
NOISE_FREE = {"segmap": SEGMENT, "sky_sigma": 0.0, "detection_threshold": 1e-4, "outlier_sigma": 0.0}


def test_columns_and_shape(disc):
    table = measure(disc, 0.05, **NOISE_FREE)
    assert table.shape == (1,) and table.dtype.names[:3] == tuple(QUANTITIES)[:3]
    assert set(QUANTITIES) | {"flags"} <= set(table.dtype.names)
    assert table["flags"].dtype == np.int64


def test_radii_are_in_arcsec_and_the_rest_does_not_depend_on_the_scale(disc):
    one, two = measure(disc, 1.0, **NOISE_FREE)[0], measure(disc, 0.04, **NOISE_FREE)[0]
    for name, about in QUANTITIES.items():
        factor = {"arcsec": 0.04, "nJy arcsec-2": 0.04**-2}.get(about.unit, 1.0)
        np.testing.assert_allclose(two[name], one[name] * factor, rtol=1e-12, err_msg=name)


def test_exponential_disc_has_its_own_numbers(disc):
    row = measure(disc, 1.0, **NOISE_FREE)[0]
    assert row["xc_centroid"] == pytest.approx(31.5, abs=0.02)
    assert row["yc_centroid"] == pytest.approx(32.0, abs=0.05)
    assert row["r50"] == pytest.approx(6.0, rel=0.03)
    assert row["flux_njy"] == pytest.approx(1000, rel=0.02)
    assert row["mag_ab"] == pytest.approx(31.4 - 2.5 * np.log10(row["flux_njy"]))
    assert row["sersic_n"] == pytest.approx(1.0, abs=0.01)
    assert row["sersic_r_e"] == pytest.approx(6.0, rel=0.01)
    assert abs(row["asymmetry"]) < 0.03 and row["m20"] < -1.5
    assert np.isnan(row["sn_per_pixel"]) and severity(row["flags"]) == 0  # no error of a pixel was given
    # eta(R) = 0.2 of an exponential profile: R = 3.6 scale lengths
    assert row["r_petro"] == pytest.approx(3.637 * 6.0 / 1.67834699, rel=0.02)


def test_a_nucleus_does_not_end_the_petrosian_radius_of_its_disc():
    nucleus, disc, width = 200.0, 226.0, 6.0  # fluxes; the disc is a Gaussian of this width, in pixels
    squares = ((np.indices((N, N)) - 32.0) ** 2).sum(0)
    image = nucleus * np.exp(-squares / 2) / (2 * np.pi)
    image += disc * np.exp(-squares / (2 * width**2)) / (2 * np.pi * width**2)
    row = measure(image[None], 1.0, **NOISE_FREE)[0]

    def ratio(r):
        edge = np.exp(-(r**2) / (2 * width**2))
        return disc * edge / (2 * width**2) / ((nucleus + disc * (1 - edge)) / r**2) - 0.2

    assert ratio(4.0) < 0 < ratio(7.0)  # it falls below the level twice
    assert row["r_petro"] == pytest.approx(brentq(ratio, 7.0, 20.0), rel=0.01)
    assert row["flux_njy"] == pytest.approx(nucleus + disc, rel=0.01)  # not two thirds


def test_neighbours_and_masks_are_excluded(disc):
    spoiled = disc.copy()
    spoiled[0, 2:6, 50:54] = 500.0
    seg = SEGMENT.copy()
    seg[2:6, 50:54] = 2
    mask = np.zeros((N, N), bool)
    mask[2:6, 50:54] = True
    clean = measure(spoiled, 1.0, **{**NOISE_FREE, "segmap": seg})[0]
    masked = measure(spoiled, 1.0, **NOISE_FREE, mask=mask)[0]
    whole = measure(disc, 1.0, **NOISE_FREE)[0]
    for name in ("flux_njy", "r_petro", "gini", "r50"):
        assert clean[name] == masked[name]
        assert clean[name] == pytest.approx(whole[name], rel=0.01)


def test_nan_pixels_are_left_out(disc):
    holed = disc.copy()
    holed[0, 20, 12] = np.nan
    row, whole = measure(holed, 1.0, **NOISE_FREE)[0], measure(disc, 1.0, **NOISE_FREE)[0]
    assert row["r_petro"] == pytest.approx(whole["r_petro"], rel=0.01) and severity(row["flags"]) == 0


def test_inputs_are_never_changed(disc):
    arrays = {
        "segmap": SEGMENT.astype(np.int32),
        "sigma": np.full((N, N), 0.1),
        "mask": np.zeros((N, N), bool),
    }
    image = np.asarray(disc, np.float64)
    image[0, 3, 3] = np.nan
    kept = {k: v.copy() for k, v in arrays.items()} | {"image": image.copy()}
    for array in (*arrays.values(), image):
        array.flags.writeable = False
    measure(image, 1.0, **arrays)
    measure(image, 1.0)
    for name, array in {**arrays, "image": image}.items():
        np.testing.assert_array_equal(array, kept[name])


def test_a_given_centre_is_used(disc):
    row = measure(disc, 1.0, **NOISE_FREE, centre=(30.0, 33.0))[0]
    assert (row["xc_asymmetry"], row["yc_asymmetry"]) == (30.0, 33.0)
    assert row["asymmetry"] > measure(disc, 1.0, **NOISE_FREE)[0]["asymmetry"] + 0.1


def test_groups_choose_what_is_computed(disc):
    row = measure(disc, 1.0, **NOISE_FREE, groups=("gini",))[0]
    assert np.isfinite(row["gini"]) and np.isfinite(row["r_half"])
    assert np.isnan(row["sersic_n"]) and np.isnan(row["asymmetry"]) and np.isnan(row["multimode"])


def test_sky_terms_take_off_what_noise_adds():
    rng = np.random.default_rng(4)
    images = exponential() + rng.normal(0, 0.3, (20, N, N))
    raw = measure(images, 1.0, segmap=SEGMENT, sky_sigma=0.0, detection_threshold=0.3)
    corrected = measure(images, 1.0, segmap=SEGMENT, sky_sigma=0.3)
    boxed = measure(images, 1.0, segmap=SEGMENT)
    assert raw["asymmetry"].mean() > 0.2
    assert abs(corrected["asymmetry"].mean()) < 0.08 and abs(boxed["asymmetry"].mean()) < 0.08
    assert abs(corrected["smoothness"].mean() - boxed["smoothness"].mean()) < 0.02


def test_gaussian_psf_is_taken_out_of_the_sersic_fit():
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(exponential(r_e=2.5), 0.85)[None]
    plain = measure(image, 1.0, **NOISE_FREE)[0]
    fitted = measure(image, 1.0, **NOISE_FREE, psf_fwhm_pix=2.0)[0]
    assert fitted["sersic_n"] == pytest.approx(1.0, abs=0.08)
    assert fitted["sersic_r_e"] == pytest.approx(2.5, rel=0.03)
    assert abs(plain["sersic_n"] - 1) > abs(fitted["sersic_n"] - 1)
    assert plain["sersic_r_e"] > fitted["sersic_r_e"]


@pytest.mark.parametrize("size", [21, 22])
def test_psf_image_is_taken_out_of_the_sersic_fit(size):
    from scipy.ndimage import gaussian_filter

    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    psf = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    image = gaussian_filter(exponential(r_e=4, ellip=0.3, theta=1.0), 1.5)
    image = image + np.random.default_rng(1).normal(0, 0.02, image.shape)
    row = measure(image[None], 1.0, segmap=SEGMENT, sigma=np.full((N, N), 0.02), psf=3 * psf)[0]
    assert row["sersic_n"] == pytest.approx(1.0, abs=0.05) and row["sersic_r_e"] == pytest.approx(4, rel=0.02)
    assert row["sersic_xc"] == pytest.approx(31.5, abs=0.03)
    assert row["sersic_chi2_dof"] == pytest.approx(1, abs=0.1)
    assert row["sersic_ellipticity"] == pytest.approx(0.3, abs=0.02)
    assert not int(row["flags"]) & int(MorphFlag.SERSIC_NOT_CONVERGED)


@pytest.mark.parametrize(("change", "match"), [
    ({"images": np.zeros((4, 4))}, r"\(4, 4\)"),
    ({"pixel_scale_arcsec": 0.0}, "pixel_scale_arcsec"),
    ({"segmap": np.zeros((3, 3))}, "segmap"),
    ({"mask": np.zeros((7, N, N))}, "mask"),
    ({"sky_sigma": np.zeros(5)}, "sky_sigma"),
    ({"centre": (1, 2, 3)}, "centre"),
    ({"groups": ("gini", "beauty")}, "beauty"),
    ({"psf": np.zeros((3, 4))}, "psf"),
])  # fmt: skip
def test_bad_calls_say_what_is_wrong(disc, change, match):
    settings = {"images": disc, "pixel_scale_arcsec": 1.0} | change
    with pytest.raises(InputError, match=match):
        measure(**settings)


def test_no_images():
    assert measure(np.zeros((0, 8, 8), np.float32), 1.0).shape == (0,)
