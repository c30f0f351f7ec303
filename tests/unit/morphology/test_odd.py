"""Images that break other codes: every one ends, raises nothing, and says by a flag what is wrong."""

import numpy as np
import pytest

from galbatch.morphology import flag_names, measure, sersic_severity, severity

N = 48
rng = np.random.default_rng(0)
Y, X = np.mgrid[:N, :N].astype(float)
GALAXY = 100 * np.exp(-np.hypot(X - 23.6, Y - 24.2) / 3)
SEGMENT = (np.hypot(X - 23.6, Y - 24.2) < 12).astype(int)
ALL = np.ones((N, N), int)


def gap(image, where):
    out = image.copy()
    out[where] = np.nan
    return out


CASES = {
    "noise": (rng.normal(0, 1, (N, N)), SEGMENT),
    "noise, own segment": (rng.normal(0, 1, (N, N)), None),
    "single pixel": (np.where((X == 20) & (Y == 25), 100.0, 0.0), ((X == 20) & (Y == 25)).astype(int)),
    "single pixel, large segment": (np.where((X == 20) & (Y == 25), 100.0, 0.0), SEGMENT),
    "negative": (-GALAXY, SEGMENT),
    "eleven pixels": (GALAXY[18:29, 18:29], SEGMENT[18:29, 18:29]),
    "masked centre": (gap(GALAXY, np.hypot(X - 23.6, Y - 24.2) < 3), SEGMENT),
    "double": (GALAXY + np.roll(GALAXY, 14, axis=1), (np.hypot((X - 31) / 2, Y - 24) < 11).astype(int)),
    "gradient": (X + 1, ALL),
    "larger than the stamp": (np.exp(-np.hypot(X - 24, Y - 24) / 40) + 5, ALL),
    "all NaN": (np.full((N, N), np.nan), SEGMENT),
    "zeros": (np.zeros((N, N)), SEGMENT),
    "constant": (np.full((N, N), 3.0), SEGMENT),
    "no segment": (GALAXY, np.zeros((N, N), int)),
    "infinite": (np.where(X == 10, np.inf, GALAXY), SEGMENT),
    "huge": (1e30 * GALAXY, SEGMENT),
    "tiny": (1e-30 * GALAXY, SEGMENT),
    "line": (np.where(Y == 24, 10.0, 0.0) + rng.normal(0, 0.01, (N, N)), (Y == 24).astype(int)),
    "at the edge": (np.roll(GALAXY, (-22, -21), (0, 1)) * (X < 24) * (Y < 24),
                    np.roll(SEGMENT, (-22, -21), (0, 1)) * (X < 24) * (Y < 24)),
    "barely positive": (np.where(SEGMENT == 1, rng.normal(0, 1, (N, N)), 0) - 0.05, SEGMENT),
}  # fmt: skip
EXPECTED = {
    "negative": "FLUX_NOT_POSITIVE",
    "all NaN": "NO_PIXELS",
    "zeros": "FLUX_NOT_POSITIVE",
    "no segment": "NO_SEGMENT",
    "masked centre": "CENTROID_MASKED",
    "larger than the stamp": "PETRO_LARGE",
}


@pytest.mark.parametrize("draw", [False, True], ids=["observed", "draw"])
@pytest.mark.parametrize("name", CASES)
def test_odd_image(name, draw):
    image, segment = CASES[name]
    before = image.copy()
    settings = (
        {"sky_sigma": 0.0, "detection_threshold": 0.5, "outlier_sigma": 0.0, "psf_fwhm_pix": 2.0}
        if draw
        else {}
    )
    row = measure(image[None], 1.0, segmap=segment, sigma=np.ones(image.shape), **settings)[0]

    np.testing.assert_array_equal(image, before)
    if name in EXPECTED:
        assert EXPECTED[name] in flag_names(int(row["flags"])), flag_names(int(row["flags"]))
    assert name != "larger than the stamp" or np.isnan(row["r_petro"])
    for field in row.dtype.names[:-1]:
        assert not np.isinf(row[field]), field
        assert row[field] != -99
    if severity(row["flags"]) == 4:
        assert np.isnan(row["gini"]) and np.isnan(row["flux_njy"]) and sersic_severity(row["flags"]) == 4


def test_noise_is_not_called_good():
    images = rng.normal(0, 1, (20, N, N))
    table = measure(images, 1.0, segmap=SEGMENT, sigma=np.ones((N, N)))
    assert (severity(table["flags"]) > 0).mean() > 0.8


def test_eleven_pixels_can_be_good():
    image, segment = CASES["eleven pixels"]
    row = measure(image[None], 1.0, segmap=segment, sky_sigma=0.0, outlier_sigma=0.0)[0]
    assert row["multimode"] == pytest.approx(0, abs=0.1) and row["intensity"] == 0
    assert np.isfinite(row["gini"])


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 5), (7, 33)])
def test_tiny_and_oblong_stamps(shape):
    image = rng.normal(5, 1, (2, *shape))
    table = measure(image, 1.0, sigma=np.ones(shape))
    assert table.shape == (2,)


def test_random_masks_never_raise():
    for seed in range(10):
        r = np.random.default_rng(seed)
        image = GALAXY + r.normal(0, 1, (N, N))
        image[r.random((N, N)) < r.uniform(0, 1)] = np.nan
        measure(image[None], 1.0, segmap=SEGMENT, mask=r.random((N, N)) < 0.1, sigma=np.ones((N, N)))
