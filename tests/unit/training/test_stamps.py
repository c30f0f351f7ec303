"""The image library and the stamps drawn from it."""

import numpy as np
import pytest
import torch

from galbatch.errors import InputError
from galbatch.training.library import Library, SourceImage, half_light_radius, is_held_out, prepare_image
from galbatch.training.stamps import FWHM_TO_SD, StampConfig, StampSource, smoothed_peak

PLAIN = StampConfig(
    offset_pix=0.0,
    far_fraction=0.0,
    companion_fraction=0.0,
    point_fraction=0.0,
    nucleus_fraction=0.0,
    large_fraction=0.0,
    scatter=0.0,
)


def gaussian(sd, n=128, ellipticity=1.0):
    y, x = np.indices((n, n)) - n / 2
    return np.exp(-0.5 * (x**2 + (y / ellipticity) ** 2) / sd**2)


@pytest.fixture(scope="module")
def library():
    return Library(
        SourceImage(gaussian(sd, ellipticity=e), f"g{i}", "test")
        for i, (sd, e) in enumerate([(8, 1.0), (12, 0.5), (15, 0.8), (10, 0.3)])
    )


def fitted_sd(image):
    """Standard deviation along x and y of a centred image, from its moments."""
    y, x = np.indices(image.shape)
    total = image.sum()
    my, mx = (y * image).sum() / total, (x * image).sum() / total
    return np.sqrt(((x - mx) ** 2 * image).sum() / total), np.sqrt(((y - my) ** 2 * image).sum() / total)


def test_half_light_radius_of_a_gaussian():
    assert half_light_radius(gaussian(10)) == pytest.approx(10 * np.sqrt(2 * np.log(2)), abs=0.5)


@pytest.mark.parametrize("zoom", [0.8, 1.7, 3.3, 6.0])
def test_rendering_keeps_flux_and_convolves_with_the_target(zoom):
    source = StampSource(Library([SourceImage(gaussian(12), "g", "test")]), PLAIN)
    image = source.render(
        np.array([0]), np.array([zoom]), torch.zeros(1, 2), 96, torch.Generator().manual_seed(1)
    )[0]
    assert float(image.sum()) == pytest.approx(1.0, abs=0.01)
    expected = np.hypot(12 / zoom, PLAIN.target_fwhm_pix * FWHM_TO_SD)
    assert fitted_sd(image.numpy())[0] == pytest.approx(expected, rel=0.02)
    y, x = np.unravel_index(int(image.argmax()), image.shape)
    assert abs(y - 47.5) <= 1 and abs(x - 47.5) <= 1, "centred"


def test_point_sources_have_the_target_psf(library):
    source = StampSource(library, PLAIN)
    image = source._points(33, torch.tensor([[0.3, -0.4]]))[0]
    assert float(image.sum()) == pytest.approx(1, abs=1e-3)
    assert fitted_sd(image.numpy())[1] == pytest.approx(2.0 * FWHM_TO_SD, rel=0.01)


def test_flux_scale_is_the_peak_of_the_smoothed_image():
    """A point source at the target PSF, smoothed to a total FWHM: the peak of that Gaussian."""
    grid = torch.arange(72.0) - 36
    sd = 2.0 * FWHM_TO_SD
    image = torch.exp(-0.5 * (grid[:, None] ** 2 + grid[None] ** 2) / sd**2) / (2 * np.pi * sd**2)
    fwhm = torch.tensor([3.0, 6.0])
    peak = smoothed_peak(image.expand(2, 1, 72, 72), fwhm, StampConfig()).flatten()
    expected = 1 / (2 * np.pi * (fwhm * FWHM_TO_SD) ** 2)
    np.testing.assert_allclose(peak, expected, rtol=1e-3)


def test_draws_depend_on_the_seed_alone(library):
    source = StampSource(library)
    a, b, c = source.draw(6, 72, (1, 2)), source.draw(6, 72, (1, 2)), source.draw(6, 72, (1, 3))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.shape == (6, 1, 72, 72) and torch.isfinite(a).all()


@pytest.mark.parametrize("scaled", [True, False])
def test_stamps_are_made_where_they_train(library, scaled):
    """On a device without numbers nothing can be read back and nothing of the CPU be mixed in."""
    stamps = StampSource(library, device="meta").draw(40, 72, (1, 2), scaled)
    assert stamps.device.type == "meta" and stamps.shape == (40, 1, 72, 72)


def test_scale_without_scatter_makes_smoothed_peaks_one(library):
    config = StampConfig(**{**PLAIN.__dict__, "scale_fwhm_pix": (4.0, 4.0)})
    stamps = StampSource(library, config).draw(8, 72, (5,))
    peak = smoothed_peak(stamps, torch.full((8,), 4.0), config)
    np.testing.assert_allclose(peak.flatten(), 1.0, rtol=1e-4)


def test_sizes_follow_the_configured_law(library):
    config = StampConfig(**{**PLAIN.__dict__, "radius_pix": (3.0, 9.0)})
    images = StampSource(library, config).draw(40, 72, (9,), scaled=False)
    radii = [half_light_radius(image[0].numpy()) for image in images]
    assert 2.7 < min(radii) < 4.2 and 7.0 < max(radii) < 10.5


def test_weights_are_shared_by_galaxy_not_by_image():
    sources = [SourceImage(gaussian(8), "many", "a")] * 3 + [
        SourceImage(gaussian(9), "one", "a"),
        SourceImage(gaussian(10), "b", "b"),
    ]
    library = Library(sources, weights={"a": 3.0, "b": 1.0})
    np.testing.assert_allclose(library.probability, [0.125] * 3 + [0.375, 0.25])


def test_library_round_trip(tmp_path, library):
    library.save(tmp_path / "l.npz")
    again = Library.load(tmp_path / "l.npz")
    assert again.groups == library.groups and again.counts() == library.counts()
    for a, b in zip(library.levels, again.levels, strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_square_edge_survives_a_tight_frame():
    image = prepare_image(gaussian(20, n=60), 128)
    assert image.sum() == pytest.approx(1, rel=1e-5)
    ring = image[64, :].max() * 0.02
    assert image[64 - 29, 64] < ring and image[64, 64 + 29] < ring


def test_an_empty_library_is_refused():
    with pytest.raises(InputError, match="library is empty"):
        Library([SourceImage(np.zeros((32, 32)), "g", "x")])


def test_split_is_stable_and_about_a_tenth():
    held = [is_held_out(f"tng:{i}") for i in range(4000)]
    assert 0.08 < np.mean(held) < 0.12
    assert held == [is_held_out(f"tng:{i}") for i in range(4000)]
