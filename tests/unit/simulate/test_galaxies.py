"""The galaxy simulator: the same galaxy for the same (seed, index), every kind, flux, sizes."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from galbatch.simulate.galaxies import (
    KINDS,
    draw_kind,
    galaxy_generator,
    half_light_radius,
    simulate_galaxies,
)
from galbatch.simulate.mergers import Orbit, deposit_sheet, run_encounter
from galbatch.simulate.parts import Spheroid, clump_map, paint_point, paint_spheroid, random_field
from galbatch.simulate.projection import DiscGeometry, project_disc


@pytest.fixture(scope="module")
def every_kind():
    return simulate_galaxies(2 * len(KINDS), seed=1_000_123, kinds=list(KINDS))


def test_a_galaxy_depends_on_seed_and_index_only():
    together, table = simulate_galaxies(4, seed=1_000_001, start=5)
    for offset in range(4):
        alone, row = simulate_galaxies(1, seed=1_000_001, start=5 + offset)
        assert np.array_equal(alone[0], together[offset])
        assert row["kind"][0] == table["kind"][offset]
    other, _ = simulate_galaxies(1, seed=1_000_002, start=5)
    assert not np.allclose(other[0], together[0], atol=1e-4)


def test_flux_is_normalised_in_red_finite_and_not_negative(every_kind):
    images, _ = every_kind
    assert images.dtype == np.float32 and images.shape[1:] == (2, 128, 128)
    assert np.isfinite(images).all() and images.min() >= 0
    np.testing.assert_allclose(images[:, 1].sum((1, 2), dtype=np.float64), 1.0, rtol=1e-4)


def test_kinds_are_the_ones_asked_for_and_all_appear_by_themselves(every_kind):
    assert list(every_kind[1]["kind"]) == list(KINDS) * 2
    drawn = [draw_kind(galaxy_generator(1_000_007, i)) for i in range(1000)]
    for kind, share in KINDS.items():
        assert drawn.count(kind) / 1000 == pytest.approx(share / sum(KINDS.values()), abs=0.04)
    _, table = simulate_galaxies(2, seed=1_000_007, npix=32)
    assert list(table["kind"]) == drawn[:2]


def test_galaxies_fit_their_image(every_kind):
    images, table = every_kind
    assert 1.0 < table["r_half_pix"].min() and table["r_half_pix"].max() < 32.0
    assert 6.0 < np.median(table["r_half_pix"]) < 14.0
    border = images[:, 1].copy()
    border[:, 6:-6, 6:-6] = 0
    assert np.median(border.sum((1, 2))) < 0.02


def test_edge_on_dust_dims_blue_more_than_red_and_conserves_flux_without_dust():
    axis = np.arange(96) - 47.5
    r = np.hypot(*np.meshgrid(axis, axis))
    star = np.exp(-r / 10) / np.exp(-r / 10).sum()
    for inclination in (0.0, 0.9, 1.5):
        geometry = DiscGeometry(inclination, 0.4, 63.5, 63.5, 1.5, 1.0, 0.6)
        clear = project_disc(np.stack([star, star, 0 * star], -1), 1.0, geometry, 128)
        assert clear[0].sum() == pytest.approx(1.0, rel=0.03)
        np.testing.assert_allclose(clear[0], clear[2], rtol=1e-5)
        dusty = project_disc(np.stack([star, star, 2.0 * np.exp(-r / 12)], -1), 1.0, geometry, 128)
        assert dusty[2].sum() < dusty[0].sum() < 0.9 * clear[0].sum()


def test_sersic_half_light_radius_and_point_source_centroid():
    image = paint_spheroid(Spheroid(63.3, 64.1, 10.0, 1.0, 1.0, 0.0), 128)
    assert half_light_radius(image) == pytest.approx(10.0, abs=0.5)
    point = paint_point(20.3, 30.8, 64)
    y, x = np.indices(point.shape)
    assert point.sum() == pytest.approx(1.0)
    assert ((point * x).sum(), (point * y).sum()) == pytest.approx((20.3, 30.8), abs=1e-4)


def test_encounter_raises_tails_only_when_a_companion_passes():
    tilts = ((0.0, 0.0), (0.0, 0.0))
    strong, centres, _ = run_encounter(Orbit(1.0, 2.5, 15.0, 0.0), tilts)
    weak, _, _ = run_encounter(Orbit(1e-4, 2.5, 15.0, 0.0), tilts)
    reach = [float(np.percentile(np.hypot(*(s[0] - s[0][0].mean(0))[..., :2].T), 97)) for s in (weak, strong)]
    assert reach[0] == pytest.approx(5.0, abs=0.3)
    assert reach[1] > 1.5 * reach[0]
    assert np.isfinite(centres).all()


def test_a_sheet_keeps_its_light_and_carries_no_particle_noise():
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = np.linspace(0.5, 20, 30)
    x, y = 32 + radius[:, None] * np.cos(angle), 32 + radius[:, None] * np.sin(angle)
    area = (0.5 * (radius[1:] + radius[:-1]) * np.diff(radius))[:, None] * np.ones(60)
    image = np.zeros((1, 64, 64), np.float32)
    deposit_sheet(image, x, y, (area / area.sum())[None])
    assert image.sum() == pytest.approx(1.0, rel=1e-4)
    inside = image[0][26:38, 40:46]
    assert inside.std() / inside.mean() < 0.1


def test_textures_are_standardised():
    rng = np.random.default_rng(0)
    field = random_field(rng, 64, 3.0)
    assert abs(field.mean()) < 1e-5 and field.std() == pytest.approx(1.0, rel=1e-4)
    where = np.zeros((64, 64), np.float32)
    where[20:40, 20:40] = 1
    clumps = clump_map(rng, where, 30, 2.0, 1.0)
    assert clumps.sum() == pytest.approx(1.0, rel=1e-4)
    assert clumps[15:45, 15:45].sum() > 0.98


def test_the_second_law_softens_and_mottles_the_same_galaxies():
    """More light at a tenth of the peak for that at a third, no loss of light, and structure where the first
    law has a smooth halo; the same galaxy always."""
    first, second = (
        simulate_galaxies(8, 1_000_500, kinds=["elliptical", "disc"], law=law)[0] for law in (1, 2)
    )
    again, _ = simulate_galaxies(1, 1_000_500, start=5, kinds=["elliptical", "disc"], law=2)
    np.testing.assert_array_equal(again[0], second[5])
    np.testing.assert_allclose(second[:, 1].sum((1, 2)), 1, rtol=1e-5)
    area = [
        (images[:, 1] > 0.1 * images[:, 1].max((1, 2), keepdims=True)).sum((1, 2))
        for images in (first, second)
    ]
    assert np.mean(area[1] > area[0]) > 0.7
    rough = []
    for images in (first, second):
        smooth = gaussian_filter(images[:, 1].astype(float), (0, 3, 3))
        peak = smooth.max((1, 2), keepdims=True)
        faint = (smooth > 0.005 * peak) & (smooth < 0.03 * peak)
        apart = gaussian_filter(images[:, 1].astype(float), (0, 1, 1)) / smooth.clip(1e-9)
        rough.append(np.array([a[f].std() for a, f in zip(apart, faint, strict=True)]))
    ellipticals = slice(None, None, 2)
    assert np.median((rough[1] / rough[0])[ellipticals]) > 1.2
