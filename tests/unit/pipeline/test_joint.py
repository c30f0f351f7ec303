"""A run whose bands are sampled together: what of a source goes into one call, and what becomes of it."""

import numpy as np
import pytest
from cutouts_field import add_galaxy, gaussian_psf, noise_field, wcs_of, write_bands, write_psf
from pyarrow import parquet, table
from toys import JointRedPrior, RedPrior

from galbatch.errors import ConfigError, InputError
from galbatch.pipeline.colour import colours
from galbatch.pipeline.sampling import _observation, groups_of
from galbatch.run import process
from galbatch.types import BandStamps, Flag, StampBatch


def band(name, ratio=1, to_scene=None, masked=False):
    side = 12 // ratio
    one = np.ones((1, side, side), np.float32)
    maps = None if to_scene is None else np.array([to_scene], float)
    scale = 0.03 * ratio
    psf = np.zeros((1, 3, 3), np.float32)
    psf[0, 1, 1] = 0 if masked else 1
    more = (psf, np.array([""], object), scale, scale, np.zeros((1, 8)))
    return BandStamps(
        name, one, one, np.full(one.shape, masked), 0 * one.astype(int), *more, ratio=ratio, to_scene=maps
    )


def batch(*bands):
    return StampBatch(np.array([7]), bands, np.zeros(1, np.int64))


def groups(stamps, joint=True):
    return [parts for parts, _ in groups_of(stamps, {}, np.zeros(1, np.int64), joint)]


def test_bands_of_a_source_go_together_by_their_grids():
    fine, coarse, empty = band("a"), band("b", 2), band("c", masked=True)
    assert groups(batch(fine, coarse, empty)) == [((0, 2), (1,))]
    assert groups(batch(fine, coarse, empty), joint=False) == [((0,),), ((1,),)]
    turned = band("d", to_scene=[[0, 1, 0], [-1, 0, 11]])
    straight = band("a", to_scene=[[1, 0, 0], [0, 1, 0]])
    assert groups(batch(straight, coarse, turned)) == [((0,), (1,)), ((2,),)]
    assert groups(batch(straight, turned)) == [((0, 1),)], "one band is left: each by itself"


def test_a_stamp_that_begins_elsewhere_says_so():
    """A pixel of b is two of a; its corner lies one of a to the left of a's, and half of one below."""
    fine = band("a", to_scene=[[1, 0, 0], [0, 1, 0]])
    coarse = band("b", 2, [[2, 0, 0.5 - 1], [0, 2, 0.5 - 0.5]])
    obs = _observation(batch(fine, coarse), (1,), np.array([0]), True)
    np.testing.assert_allclose(obs.shift_pix, [[[-0.25, -0.5]]])
    assert _observation(batch(fine, coarse), (0,), np.array([0]), True).shift_pix is None


def test_a_band_without_pixels_needs_no_psf():
    obs = _observation(batch(band("a"), band("c", masked=True)), (0, 1), np.array([0]), True)
    assert (obs.psf.sum((-1, -2)) == 1).all() and not obs.valid[0, 1].any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two bands of 0.04 and 0.08 arcsec; three galaxies, 0.75 mag brighter in the second, where one has no
    pixel."""
    folder = tmp_path_factory.mktemp("joint")
    bands, at = {}, ((60.0, 100.0), (91.0, 61.0), (200.0, 100.0))
    for name, factor, flux in (("f200w", 1, 400), ("f444w", 2, 800)):
        shape = (300 // factor, 260 // factor)
        image, wcs = noise_field(factor, *shape), wcs_of(*shape, scale=0.04 * factor)
        for x, y in at:
            add_galaxy(image, (y + 0.5) / factor - 0.5, (x + 0.5) / factor - 0.5, flux, 8 / factor)
        if factor == 2:
            image[:, 75:] = np.nan
        bands[name] = image, wcs, 0.5
    write_bands(folder, **bands)
    for factor, name in enumerate(bands, 1):
        write_psf(folder / f"{name}_psf.fits", gaussian_psf(fwhm=3.0 / factor + 1), 0.04 * factor)
    ra, dec = wcs_of().all_pix2world(*np.transpose(at), 0)
    parquet.write_table(table({"source_id": [1, 2, 3], "ra": ra, "dec": dec}), folder / "c.parquet")
    return folder


def run_of(folder, out, **options):
    options = dict(prior=JointRedPrior(), cluster="none", draws=8, mode="fast", stamp_pix=32) | options
    return process(folder / "c.parquet", folder / "s.toml", folder / out, **options)


@pytest.fixture(scope="module")
def run(folder):
    return run_of(folder, "joint.run", joint=True, batch=4)


def test_a_joint_run(run, folder):
    assert run.layout.joint and run.layout.wavelength_um == (2.0, 4.44)
    assert run.samples(2).shape == (8, 2, 32, 32)
    catalog, apart = run.catalog, run_of(folder, "apart.run", joint=False)
    assert np.nanmax(np.abs(catalog["color_f200w_f444w_p50"][:2].value - 2.5 * np.log10(2))) < 0.2
    gradient = run.statistics["color_gradient_f200w_f444w_p50"]
    assert np.isfinite(gradient[:2].value).all() and not np.isfinite(np.ma.filled(gradient.value[2], np.nan))
    # the band that has no pixel of source 3 is drawn from the other, and nothing is measured in it
    assert run.row(3)["flags_f444w"] & Flag.PREDICTED and np.isfinite(run.samples(3, "f444w")).all()
    assert np.isnan(apart.samples(3, "f444w")).all() and not np.isfinite(run.row(3)["chi2_f444w"])
    assert not np.isfinite(np.ma.filled(catalog["flux_njy_p50_f444w"].value[2], np.nan))
    assert catalog["quality_f444w"][2] == 2 and catalog["quality_f200w"][2] < 2
    # each band in the frame of its own stamp: its light lies where its pixels show it
    for source in (1, 2):
        peaks = [
            np.unravel_index(np.argmax(image), image.shape)
            for image in (run.mean(source, "f444w"), apart.mean(source, "f444w"))
        ]
        assert np.abs(np.subtract(*peaks)).max() <= 1
        assert run.row(source)["chi2_f444w"] == pytest.approx(1, abs=5 * np.sqrt(2 / 256))


def test_one_source_is_what_it_is_in_any_batch(run, folder):
    single = run_of(folder, "alone.run", joint=True, batch=1)
    for source in (1, 2, 3):
        np.testing.assert_array_equal(run.samples(source), single.samples(source))


def test_joint_is_refused_where_it_cannot_be(folder, tmp_path):
    with pytest.raises(ConfigError, match="one band at a time"):
        run_of(folder, "no.run", prior=RedPrior(), joint=True)
    assert not run_of(folder, "auto.run", prior=RedPrior()).layout.joint
    text = (folder / "s.toml").read_text().replace("bands.f444w", "bands.red")
    (folder / "named.toml").write_text(text)
    call = dict(prior=JointRedPrior(), cluster="none", draws=2, mode="fast", stamp_pix=32, joint=True)
    with pytest.raises(InputError, match="bands red are to be sampled together"):
        process(folder / "c.parquet", folder / "named.toml", tmp_path / "r.run", **call)
    (folder / "named.toml").write_text(text.replace("[bands.red]", "[bands.red]\nwavelength_um = 4.0"))
    run = process(folder / "c.parquet", folder / "named.toml", tmp_path / "r.run", limit=1, **call)
    assert run.layout.wavelength_um == (2.0, 4.0)


def test_paired_draws_of_a_colour_keep_what_bands_share():
    """Fluxes of two bands that vary together by 10% and apart by 2%."""
    rng = np.random.default_rng(0)
    y, x = np.indices((24, 24))
    blob = np.exp(-0.5 * ((x - 12) ** 2 + (y - 12) ** 2) / 3.0**2)
    shared = rng.normal(0, 0.1, 400)
    flux = np.exp(np.stack([shared, shared], 1) + rng.normal(0, 0.02, (400, 2)))
    samples = (flux[:, :, None, None] * blob)[None]
    place = {"sn_per_pixel_raw50": 9.0, "r_petro_raw50": 0.2}
    place |= {"xc_asymmetry_raw50": 6.0, "yc_asymmetry_raw50": 6.0}
    columns = {f"{p}_{b}": np.array([v]) for b in "ab" for p, v in place.items()}
    percentiles = ("raw16", "raw84", "p16", "p84")
    columns |= {f"flux_njy_{p}_{b}": np.array([np.nan]) for b in "ab" for p in percentiles}
    widths = [
        np.subtract(*(found[f"color_a_b_{p}"][0] for p in ("p84", "p16")))
        for found in (
            colours(columns, (band("a"), band("b")), samples, 2, paired) for paired in (True, False)
        )
    ]
    expected = 2 * 1.0857 * np.sqrt(2) * np.array([0.02, np.hypot(0.1, 0.02)])
    np.testing.assert_allclose(widths, expected, rtol=0.15)
