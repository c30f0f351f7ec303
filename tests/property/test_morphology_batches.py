"""What must not matter: batch, order, threads, flux unit, place on the stamp, orientation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galbatch.morphology import QUANTITIES, measure

N = 40
Y, X = np.mgrid[:N, :N].astype(float)


def galaxy(seed):
    r = np.random.default_rng(seed)
    u, v = X - 19.5 - r.uniform(-1, 1), (Y - 19.5 - r.uniform(-1, 1)) * r.uniform(1, 2)
    clump = 5 * np.exp(-((X - r.uniform(15, 25)) ** 2 + (Y - r.uniform(15, 25)) ** 2) / 4)
    return 40 * np.exp(-np.hypot(u, v) / r.uniform(2, 4)) + clump + r.normal(0, 0.3, (N, N))


IMAGES = np.stack([galaxy(s) for s in range(6)])
SEGMENT = (np.hypot(X - 19.5, Y - 19.5) < 11).astype(int)
SETTINGS = {"segmap": SEGMENT, "sigma": np.full((N, N), 0.3), "psf_fwhm_pix": 2.0}
ALONE = measure(IMAGES, 1.0, threads=1, **SETTINGS)


def same(one, two):
    for name in one.dtype.names:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 3))
@settings(max_examples=12, deadline=None)
def test_batch_order_and_threads_change_no_bit(order, threads):
    same(measure(IMAGES[order], 1.0, threads=threads, **SETTINGS), ALONE[order])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5, unique=True))
@settings(max_examples=5, deadline=None)
def test_company_changes_no_bit_of_the_fit_with_a_psf(order):
    y, x = np.mgrid[-6:7, -6:7]
    psf = np.exp(-(x**2 + y**2) / 4.0)
    extra = {"segmap": SEGMENT, "sigma": np.full((N, N), 0.3), "groups": ("sersic",), "psf": psf}
    same(
        measure(IMAGES[order], 1.0, **extra),
        np.concatenate([measure(IMAGES[i : i + 1], 1.0, **extra) for i in order]),
    )


def test_own_maps_and_shared_maps_are_the_same():
    many = {"segmap": np.repeat(SEGMENT[None], 6, 0), "sigma": np.full((6, N, N), 0.3), "psf_fwhm_pix": 2.0}
    same(measure(IMAGES, 1.0, **many), ALONE)
    two = {"segmap": np.repeat(SEGMENT[None], 2, 0), "sigma": np.full((2, N, N), 0.3), "psf_fwhm_pix": 2.0}
    same(measure(IMAGES, 1.0, map_of=[0, 1, 0, 0, 1, 1], **two), ALONE)


@given(st.floats(-6, 6))
@settings(max_examples=6, deadline=None)
def test_flux_unit_scales_fluxes_only(exponent):
    scale = 10.0**exponent
    table = measure(
        IMAGES[:2] * scale, 1.0, segmap=SEGMENT, sigma=np.full((N, N), 0.3 * scale), psf_fwhm_pix=2.0
    )
    for name, about in QUANTITIES.items():
        factor = scale if about.unit.startswith("nJy") else 1.0
        if name == "mag_ab" or name in ("sersic_aic", "sersic_bic"):
            continue
        np.testing.assert_allclose(
            table[name], ALONE[name][:2] * factor, rtol=2e-3, atol=1e-3 * factor, err_msg=name
        )
    np.testing.assert_allclose(table["mag_ab"], ALONE["mag_ab"][:2] - 2.5 * exponent, atol=1e-3)


INVARIANT = (
    "flux_njy r_petro r_petro_ellip r_half r20 r50 r80 gini m20 concentration asymmetry intensity deviation "
    "multimode rms_asymmetry2 sersic_n sersic_r_e ellipticity"  # not smoothness: an even boxcar has no middle
).split()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_change_no_shape(turns):
    fixed = {
        "sky_sigma": 0.0,
        "detection_threshold": 0.3,
        "outlier_sigma": 0.0,
        "sigma": np.full((N, N), 0.3),
    }
    centre = np.array([19.4, 19.6])
    one = measure(IMAGES, 1.0, segmap=SEGMENT, centre=centre, **fixed)
    turned = centre - 19.5
    for _ in range(turns):  # rot90 takes (x, y) from the middle to (y, -x)
        turned = np.array([turned[1], -turned[0]])
    two = measure(
        np.rot90(IMAGES, turns, axes=(1, 2)),
        1.0,
        segmap=np.rot90(SEGMENT, turns),
        centre=turned + 19.5,
        **fixed,
    )
    for name in INVARIANT:
        np.testing.assert_allclose(two[name], one[name], rtol=5e-3, atol=1e-3, err_msg=name)
    step = np.mod(two["orientation"] - one["orientation"] + turns * np.pi / 2 + np.pi / 2, np.pi) - np.pi / 2
    np.testing.assert_allclose(step, 0, atol=1e-6)


def test_whole_pixel_shift_moves_positions_only():
    big = np.zeros((2, N + 16, N + 16))
    seg = np.zeros(big.shape, int)
    for k, (dy, dx) in enumerate([(3, 9), (11, 5)]):
        big[k, dy : dy + N, dx : dx + N] = np.where(SEGMENT == 1, IMAGES[0], 0)
        seg[k, dy : dy + N, dx : dx + N] = SEGMENT
    table = measure(big, 1.0, segmap=seg, sky_sigma=0.0, detection_threshold=0.3, outlier_sigma=0.0)
    assert table["xc_centroid"][1] - table["xc_centroid"][0] == pytest.approx(-4)
    assert table["yc_centroid"][1] - table["yc_centroid"][0] == pytest.approx(8)
    for name in ("flux_seg_njy", "ellipticity_centroid", "orientation_centroid"):
        assert table[name][0] == pytest.approx(table[name][1])
    for name in ("r_petro", "gini", "m20", "concentration"):
        assert table[name][0] == pytest.approx(table[name][1], rel=0.01)
