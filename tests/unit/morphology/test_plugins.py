"""A user's own statistic, by entry point; and in a run, of a package as pip leaves it."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
import toys

from galbatch.columns import columns_of
from galbatch.errors import ConfigError
from galbatch.morphology import Statistic, all_quantities, measure, measure_posterior, plugins, summarise
from galbatch.run import process

IMAGES = np.random.default_rng(0).normal(1, 1, (3, 16, 16)).astype(np.float32)

peak = Statistic(
    "peak", "nJy", "phot.flux.density;stat.max", "brightest pixel", lambda s: s.images.max((1, 2))
)
seen = []
look = lambda s: seen.append(s) or s.quantities["gini"] * s.pixel_scale_arcsec  # noqa: E731
spy = Statistic("spy", "", "src.morph.param", "looks at everything", look)
broken = Statistic("broken", "", "src.morph.param", "divides by zero", lambda s: 1 / 0)
crooked = Statistic("crooked", "", "src.morph.param", "one number for all", lambda s: 1.0)
not_one = 3


@pytest.fixture
def install(monkeypatch):
    def put(*names):
        points = [EntryPoint(n, f"{__name__}:{n}", plugins.GROUP) for n in names]
        monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == plugins.GROUP else [])
        plugins.installed_statistics.cache_clear()

    yield put
    plugins.installed_statistics.cache_clear()


METADATA = "Metadata-Version: 2.1\nName: peaks-for-galbatch\nVersion: 1.0\n"
MODULE = """
from galbatch.morphology import Statistic

def brightest(s):
    return s.images.max(axis=(1, 2))

peak = Statistic("peak", "nJy", "phot.flux.density;stat.max", "brightest pixel of the stamp", brightest)
"""


def test_a_run_measures_the_statistic_of_an_installed_package(tmp_path, monkeypatch):
    info = tmp_path / "peaks_for_galbatch-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[galbatch.statistics]\npeak = peaks:peak\n")
    (tmp_path / "peaks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.installed_statistics.cache_clear()
    try:
        how = dict(prior=toys.GaussianPrior(), cluster="none", draws=2, mode="fast")
        run = process(toys.write_survey(tmp_path, n=2), out=tmp_path / "a.run", **how)
    finally:
        plugins.installed_statistics.cache_clear()
    peak = run.statistics["peak_raw50_f200w"]
    assert peak.unit == "nJy" and "brightest pixel of the stamp" in peak.info.description
    assert run.statistics["peak_std_f200w"].info.meta["ucd"] == "phot.flux.density;stat.max;stat.stdev"
    observed = [run.observed(source, "f200w").max() for source in (100, 101)]
    np.testing.assert_allclose(run.statistics["peak_obs_f200w"].value, observed, rtol=0.02)


def test_statistic_is_measured_described_and_summarised_over_draws(install):
    install("peak")
    table = measure(IMAGES, 0.1, groups=())
    np.testing.assert_array_equal(table["peak"], IMAGES.max(axis=(1, 2)))
    assert table.dtype.names[-1] == "flags"
    assert all_quantities()["peak"].unit == "nJy"
    about = columns_of(["f200w"], all_quantities())["peak_raw50_f200w"]
    assert about.description.startswith("brightest pixel; median") and about.table == "statistics"
    draws, obs = measure_posterior(IMAGES[None], IMAGES[:1], np.ones((1, 16, 16)), groups=())
    columns = summarise(draws, obs)
    np.testing.assert_allclose(columns["peak_raw50"], np.median(IMAGES.max(axis=(1, 2))), rtol=1e-6)
    np.testing.assert_allclose(columns["peak_obs"], IMAGES[0].max())


def test_statistic_sees_read_only_views(install):
    install("spy")
    seen.clear()
    mask = np.zeros((16, 16), bool)
    table = measure(IMAGES, 0.1, mask=mask, sigma=np.ones((16, 16)), groups=("gini",))
    inputs = seen[0]
    assert inputs.segmap.shape == inputs.mask.shape == inputs.sigma.shape == IMAGES.shape
    assert not inputs.images.flags.writeable
    np.testing.assert_array_equal(table["spy"], table["gini"] * 0.1)


@pytest.mark.parametrize(("name", "match"), [("broken", "division by zero"), ("crooked", r"shape \(\)"),
                                             ("not_one", "int"), ("missing", "does not load")])  # fmt: skip
def test_a_bad_statistic_stops_the_run_and_is_named(install, name, match):
    install(name)
    with pytest.raises(ConfigError, match=match) as caught:
        measure(IMAGES, 0.1, groups=())
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["gini", "flags", "Peak", "a b", ""])
def test_names_that_cannot_be_columns(name):
    with pytest.raises(ConfigError, match="cannot be a column"):
        Statistic(name, "", "", "", lambda s: s)


def test_two_of_one_name_are_refused_and_none_is_nothing(install):
    install("peak", "peak")
    with pytest.raises(ConfigError, match="two installed"):
        all_quantities()
    install()
    assert "peak" not in measure(IMAGES, 0.1, groups=()).dtype.names
