"""Galaxies at any wavelengths: parts with spectra of their own, and the two bands as they were."""

import numpy as np
import pytest

from galbatch.simulate.galaxies import KINDS, half_light_radius, simulate_galaxies, simulate_galaxy
from galbatch.simulate.skirt import write_galaxies
from galbatch.simulate.spectra import BLUE_UM, RANGE_UM, RED_UM, Light, draw_wavelengths
from galbatch.training.sources import read_images


def test_spectra_have_their_colours_exactly_and_uv_separates_ages():
    light = Light((0.25, BLUE_UM, RED_UM, 2.2))
    for colour in (0.25, 0.5, 1.4):
        for part in (light.old, light.young, light.power_law):
            assert part(colour)[1:3] == pytest.approx([colour, 1.0], rel=1e-12)
    blue, red = light.young(1.2), light.old(0.33)
    assert blue[0] > 50 * red[0] and red[3] > 2 * blue[3]
    depth = light.optical_depth()
    assert depth[1:3] == pytest.approx([1.8, 1.0]) and depth[0] > 3 and depth[3] < 0.3


def test_curvature_and_lines_are_of_one_galaxy():
    wavelengths = (0.25, BLUE_UM, 0.656, RED_UM, 2.2)
    light = Light(wavelengths, np.random.default_rng(1))
    assert light.old(0.4) == Light(wavelengths, np.random.default_rng(1)).old(0.4)
    assert light.old(0.4)[1::2] == pytest.approx([0.4, 1.0]) and light.old(0.4) != Light(wavelengths).old(0.4)
    with_lines, light.lines = np.array(light.young(1.2)), 0 * light.lines
    boost = with_lines / light.young(1.2)
    assert boost[2] > 1.02 and boost[[0, 4]] == pytest.approx([1.0, 1.0], abs=1e-3)


@pytest.mark.parametrize("kind", ["elliptical", "merger", "disc"])
def test_two_of_many_bands_are_the_two_bands(kind):
    many, row = simulate_galaxy(1_000_005, 3, 48, kind, (2.2, BLUE_UM, RED_UM, 0.3))
    two, same = simulate_galaxy(1_000_005, 3, 48, kind)
    if kind == "elliptical":  # no young stars, whose lines the two bands do not have
        np.testing.assert_allclose(many[1:3], two, rtol=1e-5, atol=1e-9)
    assert row["r_half_pix"] == pytest.approx(float(same["r_half_pix"]), rel=0.1)
    alone, _ = simulate_galaxy(1_000_005, 3, 48, kind, (0.3,))
    np.testing.assert_allclose(alone[0], many[3], rtol=1e-5, atol=1e-9)


def test_structure_is_blue_and_galaxies_shrink_to_the_red():
    kinds = ["spiral", "flocculent", "clumpy", "barred"]
    images, _ = simulate_galaxies(12, 1_000_321, kinds=kinds, wavelengths_um=(0.25, 0.5, 1.0, 2.2))
    roughness, radius = np.zeros((12, 4)), np.zeros((12, 4))
    for i, galaxy in enumerate(images):
        for band, image in enumerate(galaxy / galaxy.sum((1, 2), keepdims=True)):
            turned = image[::-1, ::-1]
            roughness[i, band] = np.abs(image - turned).sum() / 2
            radius[i, band] = half_light_radius(image)
    assert (np.diff(np.median(roughness, axis=0)) < 0).all()
    assert np.median(radius[:, 0] / radius[:, 3]) > 1.05


def test_files_of_many_bands_say_their_wavelengths(tmp_path):
    write_galaxies(tmp_path, 2, 1_000_002, npix=48, bands=5)
    first, second = (read_images(tmp_path / f"shalo_091-{i}_v0_photo.fits")[0] for i in (0, 1))
    assert first.flux.shape == (5, 48, 48) and first.wavelengths_um != second.wavelengths_um
    emitted = np.array(first.wavelengths_um) / 1.1
    assert (np.diff(emitted) > 0).all() and RANGE_UM[0] < emitted[0] and emitted[-1] < RANGE_UM[1]
    image, _ = simulate_galaxy(1_000_002, 0, 48, wavelengths_um=emitted)
    expected = image / image.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(first.flux / first.flux.sum((1, 2), keepdims=True), expected, atol=2e-6)
    steps = np.log(draw_wavelengths(np.random.default_rng(1), 6) / RANGE_UM[0])
    assert (np.floor(steps / np.log(RANGE_UM[1] / RANGE_UM[0]) * 6) == np.arange(6)).all()


def test_every_kind_has_light_at_every_wavelength():
    images, _ = simulate_galaxies(
        len(KINDS), 1_000_050, npix=40, kinds=list(KINDS), wavelengths_um=(0.2, 2.5)
    )
    assert np.isfinite(images).all() and (images.sum((2, 3)) > 0).all()
