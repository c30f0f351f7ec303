"""Colours of draws: one aperture on the sky for all bands, intervals of independent draws."""

import numpy as np
import pytest
from cutouts_field import add_galaxy, noise_field, wcs_of, write_bands
from pyarrow import parquet, table
from toys import RedPrior

from galbatch.morphology import own_light
from galbatch.pipeline.colour import circle, colours
from galbatch.run import process
from galbatch.types import BandStamps

SIDE, SCALE = 48, 0.05
FIELDS = ("sn_per_pixel_raw50", "r_petro_raw50", "xc_asymmetry_raw50", "yc_asymmetry_raw50")


def stamps(name, ratio=1, to_scene=None, neighbour=None):
    side = SIDE // ratio
    data, seg = np.zeros((1, side, side), np.float32), np.zeros((1, side, side), np.int32)
    if neighbour is not None:
        seg[0][neighbour] = 2
    maps = None if to_scene is None else np.array([to_scene], float)
    scale = SCALE * ratio
    empty = np.zeros((1, 3, 3)), np.array([""], object), scale, scale, np.zeros((1, 8))
    return BandStamps(name, data, data, data > 0, seg, *empty, ratio=ratio, to_scene=maps)


def blob(x, y, flux, sigma=3.0):
    yy, xx = np.indices((SIDE, SIDE))
    return flux * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


def measured(snr=(10.0, 5.0), r_petro=(0.25, 1.0), x=(24.0, 40.0), y=(24.0, 5.0), **more):
    columns = {}
    for name, values in zip(FIELDS, (snr, r_petro, x, y), strict=True):
        columns |= {f"{name}_{band}": np.array([value]) for band, value in zip("ab", values, strict=True)}
    for p in ("raw16", "raw84", "p16", "p84"):
        columns |= {f"flux_njy_{p}_{band}": np.array([np.nan]) for band in "ab"}
    return columns | {k: np.array([v]) for k, v in more.items()}


def draws(one, two):
    """(1, k, 2, H, W)"""
    return np.stack([np.stack(one), np.stack(two)], axis=1)[None].astype(np.float32)


def test_one_aperture_on_the_sky_in_stamps_that_are_off_by_pixels():
    """Band b shows the same source 3.5 pixels to the right and 2 down, and a brighter thing beside it."""
    bands = stamps("a", to_scene=[[1, 0, 0], [0, 1, 0]]), stamps("b", to_scene=[[1, 0, -3.5], [0, 1, 2]])
    samples = draws([blob(24, 24, 100)] * 2, [blob(27.5, 22, 200) + blob(42, 22, 5000, 1)] * 2)
    found = colours(measured(), bands, samples, 1)
    assert found["color_radius"][0] == pytest.approx(0.5)
    for name in ("p16", "p50", "p84"):
        assert found[f"color_a_b_{name}"][0] == pytest.approx(2.5 * np.log10(2), abs=1e-3)
        for band, flux in (("a", 100), ("b", 200)):
            assert found[f"color_flux_njy_{name}_{band}"][0] == pytest.approx(flux, rel=5e-3)


def test_a_band_of_larger_pixels():
    """A pixel of b is two of a: x_a = 2 x_b + 0.5; b has fine pixels of the same size."""
    bands = stamps("a", to_scene=[[1, 0, 0], [0, 1, 0]]), stamps("b", 2, [[2, 0, 0.5], [0, 2, 0.5]])
    found = colours(measured(), bands, draws([blob(24, 24, 100)] * 2, [blob(24, 24, 50)] * 2), 1)
    assert found["color_a_b_p50"][0] == pytest.approx(-2.5 * np.log10(2), abs=1e-3)


def test_pixels_of_a_neighbour_count_in_no_band():
    bands = [stamps(name, neighbour=np.s_[20:30, 29:40]) for name in "ab"]
    samples = draws([blob(24, 24, 100)] * 2, [blob(24, 24, 100) + blob(33, 25, 1000, 0.5)] * 2)
    assert colours(measured(), bands, samples, 1)["color_a_b_p50"][0] == pytest.approx(0, abs=1e-3)


def test_a_neighbour_that_was_fitted_is_left_out_by_its_share():
    bands = [stamps(name, neighbour=np.s_[20:30, 31:40]) for name in "ab"]
    source, other = blob(24, 24, 100), blob(34, 25, 300, 3)
    samples = draws([source] * 32, [source + other] * 32)
    before = colours(measured(), bands, samples, 1)["color_a_b_p50"][0]
    for band in bands:
        band.seg[0][20:29, 20:29] = 1
    after = colours(measured(), bands, samples, 1)["color_a_b_p50"][0]
    assert abs(after) < 0.1 < 0.3 < abs(before)
    own = [own_light(samples[:, :, c], b.seg, b.mask).samples[0] for c, b in enumerate(bands)]
    alone = colours(measured(), [stamps("a"), stamps("b")], draws(*own), 1)
    assert after == pytest.approx(alone["color_a_b_p50"][0], abs=1e-6)


def test_the_interval_is_that_of_a_difference_of_independent_draws():
    rng = np.random.default_rng(0)
    fluxes = np.exp(rng.normal([4.0, 4.5], [0.05, 0.1], (400, 2)))
    samples = draws(*([blob(24, 24, f) for f in column] for column in fluxes.T))
    found = colours(measured(), [stamps("a"), stamps("b")], samples, 1)
    half = (found["color_a_b_p84"] - found["color_a_b_p16"])[0] / 2
    expected = 1.0857 * np.hypot(*np.log(fluxes).std(axis=0))
    assert half == pytest.approx(expected, rel=0.05)
    assert found["color_a_b_p50"][0] == pytest.approx(1.0857 * 0.5, abs=4 * expected / 20)
    known = {
        "flux_njy_raw16_a": 99.0,
        "flux_njy_raw84_a": 101.0,
        "flux_njy_p16_a": 97.0,
        "flux_njy_p84_a": 103,
    }
    wider = colours(measured(**known), [stamps("a"), stamps("b")], samples, 1)
    expected = 1.0857 * np.hypot(*(np.log(fluxes).std(axis=0) * [3, 1]))
    assert (wider["color_a_b_p84"] - wider["color_a_b_p16"])[0] / 2 == pytest.approx(expected, rel=0.05)


def test_what_cannot_be_measured_is_nan():
    samples = draws([blob(24, 24, 100)] * 4, [blob(24, 24, 100)] * 4)
    bands = [stamps("a"), stamps("b")]
    assert np.isnan(colours(measured(r_petro=(np.nan,) * 2), bands, samples, 1)["color_a_b_p50"][0])
    other = colours(measured(r_petro=(np.nan, 0.3), x=(24, 24), y=(24, 24)), bands, samples, 1)
    assert other["color_radius"][0] == pytest.approx(0.6) and np.isfinite(other["color_a_b_p50"][0])
    samples[:, 1:, 1] = np.nan
    assert np.isnan(colours(measured(), bands, samples, 1)["color_a_b_p50"][0])


def test_a_circle_has_its_area():
    for radius in (2.0, 7.3, 15.0):
        assert circle((48, 48), (23.7, 24.2), radius).sum() == pytest.approx(np.pi * radius**2, rel=0.03)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A galaxy 0.75 mag brighter in b than in a, and one in a alone."""
    folder = tmp_path_factory.mktemp("colours")
    bands = {}
    for name, flux in (("a", 2000), ("b", 4000)):
        image = noise_field(seed=flux)
        add_galaxy(image, 120, 100, flux)
        bands[name] = image, wcs_of(), 0.5
    write_bands(folder, **bands)
    ra, dec = wcs_of().all_pix2world([100.0, -500.0], [120.0, 20.0], 0)
    parquet.write_table(table({"source_id": [1, 2], "ra": ra, "dec": dec}), folder / "c.parquet")
    return folder


def run_of(folder, out, **options):
    options = dict(prior=RedPrior(), cluster="none", draws=4, mode="fast", stamp_pix=32) | options
    return process(folder / "c.parquet", folder / "s.toml", folder / out, **options)


def test_a_run_of_two_bands_has_their_colour_with_and_without_stored_draws(folder):
    run, lean = run_of(folder, "one.run"), run_of(folder, "two.run", samples="none").catalog
    stored = run.catalog
    colour = stored["color_a_b_p50"][0]
    assert colour.unit == "mag" and colour.value == pytest.approx(2.5 * np.log10(2), abs=0.1)
    assert run.statistics["color_radius"].unit == "arcsec"
    for name in ("p16", "p50", "p84"):
        assert stored[f"color_a_b_{name}"][0] == lean[f"color_a_b_{name}"][0]
        assert not np.isfinite(np.ma.filled(stored[f"color_a_b_{name}"].value[1], np.nan))
