"""One batch: which sources are sampled together, what fails alone, where everything is put. Sampler and
statistics are fakes."""

from dataclasses import replace

import numpy as np
import pytest

from galbatch.interfaces import PriorSpec
from galbatch.pipeline import Context, batch, measurement, sampling
from galbatch.run.task import process_isolating
from galbatch.store import PlanBatch, StoreLayout
from galbatch.types import BandStamps, Failure, Flag, Posterior, StampBatch

LAYOUT = StoreLayout(
    8, 4, 3, ("f200w", "f444w"), 8, oversample=1, pixel_ratio=(1, 2), pixel_scale_arcsec=(0.02, 0.04)
)


def band(name, ids, ratio, masked=()):
    n, side = len(ids), 8 // ratio
    data = np.broadcast_to(np.asarray(ids, np.float32)[:, None, None] * ratio**2, (n, side, side)).copy()
    mask = np.zeros((n, side, side), bool)
    mask[[i for i, s in enumerate(ids) if s in masked]] = True
    seg = np.zeros((n, side, side), np.int32)
    seg[:, 0, 0] = 2
    psf = np.ones((n, 3, 3), np.float32), np.full(n, f"psf-{name}", object)
    more = (0.02 * ratio, 0.02 * ratio, np.tile(np.arange(8.0), (n, 1)), None, ratio)
    return BandStamps(name, data, np.ones_like(data), mask, seg, *psf, *more, {"valid_frac": np.ones(n)})


class FakeSurvey:
    """Stamps filled with the source's id; ids in ``missing`` have no second band, ``off`` none at all."""

    def __init__(self, missing=(), off=(), explode=()):
        self.missing, self.off, self.explode = missing, off, explode

    def __call__(self, columns):
        ids = columns["source_id"]
        if set(ids) & set(self.explode):
            raise RuntimeError("survey blew up")
        bands = (band("f200w", ids, 1, self.off), band("f444w", ids, 2, (*self.off, *self.missing)))
        failures = {i: Failure(s, "cut", "OFF_IMAGE", "off") for i, s in enumerate(ids) if s in self.off}
        return [(np.arange(len(ids)), StampBatch(ids, bands, np.zeros(len(ids), np.int64), failures))]


@pytest.fixture
def calls(monkeypatch):
    """Replaces sampler and statistics; records what was sampled together."""
    made = []

    def sample(prior, obs, draws, mode, oversample, seed, source_ids, batch, bands, **joint):
        made.append((tuple(source_ids), obs.data.shape[1], oversample, (seed, *bands)))
        if set(source_ids) & set(prior.bad):
            raise prior.error
        b, c, h, _ = obs.data.shape
        side = h * oversample
        mean = np.broadcast_to(obs.data.mean((2, 3), keepdims=True), (b, c, side, side)) / oversample**2
        samples = np.broadcast_to(mean[:, None], (b, draws, c, side, side)).astype("f4")
        ones = np.ones((b, c))
        images = samples, mean, mean * 0, ones, ones, mean * 0, ones * 0
        return Posterior(*images, np.zeros(b, int), ones, np.full(b, 18.0), np.full(b, draws), 2.0)

    def measure(columns, stamps, done, own, oversample, fwhm, threads, draw_columns, calibration, wide):
        columns[f"gini_p50_{stamps.band}"][done] = own.samples.mean((1, 2, 3))
        columns[f"asymmetry_p50_{stamps.band}"][done] = wide
        return np.zeros(len(done), np.int64)

    monkeypatch.setattr(sampling, "sample_posterior", sample)
    monkeypatch.setattr(batch, "measure_band", measure)
    return made


class BadPrior:
    def __init__(self, *bad, error=None):
        self.bad, self.error, self.spec = bad, error or ValueError("no"), PriorSpec()


def rows(*ids):
    zeros = np.zeros(len(ids))
    place = {"ra": zeros, "dec": zeros, "tile": np.full(len(ids), "")}
    return PlanBatch(0, {"source_id": np.array(ids), "prescreen_flags": zeros.astype(int)} | place)


def run(survey, *ids, prior=None, exclude=None):
    context = Context(survey, prior or BadPrior(), LAYOUT, "fast", 7)
    return context, process_isolating(context, rows(*ids), exclude or {})


def test_arrays_and_columns_are_in_their_places(calls):
    _, result = run(FakeSurvey(), 1, 2, 3)
    assert result.columns["status"].tolist() == ["ok"] * 3 and result.arrays["status"].tolist() == [1, 1, 1]
    assert [(c[0], c[1], c[2]) for c in calls] == [((1, 2, 3), 1, 1), ((1, 2, 3), 1, 2)]
    assert [c[3] for c in calls] == [(7, "f200w"), (7, "f444w")]  # a stream belongs to the band's name
    for n, source in enumerate((1, 2, 3)):
        assert np.all(result.arrays["samples"][n] == source)  # the coarse band too: flux per fine pixel
        assert np.all(result.arrays["observed"][n] == source)
        assert np.all(result.arrays["sigma"][n, 1] == 0.25)
    assert result.arrays["mask"][0, 0, 0, 0] == 2 and result.arrays["mask"][0, 1, 1, 1] == 2
    assert result.arrays["wcs"][0, 0].tolist() == list(range(8))
    assert result.arrays["psf_id"][0, 1] == "psf-f444w"
    assert result.columns["n_evaluations"].tolist() == [18.0] * 3  # of the band with most
    assert result.columns["n_draws_ok"].tolist() == [3] * 3
    assert result.columns["valid_frac_f444w"].tolist() == [1, 1, 1] and result.counters["draws"] == 18


def test_bands_on_one_grid_keep_their_own_white_noise(calls, monkeypatch):
    """Bands sampled in one call, of which only one has an error floor."""
    seen, sampled = [], sampling.sample_posterior
    record = lambda prior, obs, **options: seen.append(obs) or sampled(prior, obs, **options)  # noqa: E731
    monkeypatch.setattr(sampling, "sample_posterior", record)

    def survey(columns):
        plain, other = (band(name, columns["source_id"], 1) for name in LAYOUT.bands)
        floored = replace(other, sigma_white=np.full_like(other.sigma, 0.5))
        n = len(plain.data)
        return [(np.arange(n), StampBatch(columns["source_id"], (plain, floored), np.zeros(n, np.int64), {}))]

    _, result = run(survey, 1, 2)
    assert result.columns["status"].tolist() == ["ok"] * 2
    assert seen[0].sigma_white.shape == seen[0].data.shape
    assert (seen[0].sigma_white[:, 0] == 0).all() and (seen[0].sigma_white[:, 1] == 0.5).all()


def test_sources_whose_psf_is_in_error_are_measured_as_such(calls, monkeypatch):
    """By band: one whose PSF is exact by the survey file, and one where the error shows in a source."""
    sample = sampling.sample_posterior

    def psfs_of_their_own(prior, obs, **options):
        found = np.array(options["source_ids"])[:, None] == [2]
        return replace(sample(prior, obs, **options), info={"psf_in_error": found})

    class Survey(FakeSurvey):
        def __call__(self, columns):
            ((places, stamps),) = super().__call__(columns)
            one, two = stamps.bands
            allowed = replace(two, psf_error=np.array([0.5, 0.1, 0.03, 0.02, 0.01]))
            return [(places, replace(stamps, bands=(one, allowed)))]

    monkeypatch.setattr(sampling, "sample_posterior", psfs_of_their_own)
    _, result = run(Survey(), 1, 2, 3)
    assert result.columns["asymmetry_p50_f444w"].tolist() == [0, 1, 0]
    assert result.columns["asymmetry_p50_f200w"].tolist() == [0, 0, 0]


def test_a_missing_band_is_flagged_and_only_the_other_is_sampled(calls):
    _, result = run(FakeSurvey(missing=[2]), 1, 2, 3)
    assert calls[1][0] == (1, 3)
    assert result.columns["flags"].tolist() == [0, int(Flag.BAND_MISSING), 0]
    assert result.columns["status"].tolist() == ["ok", "flagged", "ok"]
    assert np.isnan(result.arrays["samples"][1, :, 1]).all()
    assert np.isfinite(result.arrays["samples"][1, :, 0]).all()
    assert np.isnan(result.columns["gini_p50_f444w"][1])


def test_a_source_off_the_image_fails_and_is_not_sampled(calls):
    _, result = run(FakeSurvey(off=[3]), 1, 2, 3)
    assert all(3 not in c[0] for c in calls)
    assert result.columns["status"][2] == "failed" and result.columns["failure_code"][2] == "OFF_IMAGE"
    assert result.columns["flags"][2] & Flag.OFF_IMAGE and result.columns["n_draws_ok"][2] == 0


def test_a_source_that_breaks_the_sampler_fails_alone(calls):
    _, result = run(FakeSurvey(), 1, 2, 3, 4, prior=BadPrior(3))
    assert result.columns["status"].tolist() == ["ok", "ok", "failed", "ok"]
    assert result.columns["failure_stage"][2] == "sample"
    assert result.columns["failure_code"][2] == "ValueError"
    assert np.all(result.arrays["mean"][3] == 4)


def test_out_of_memory_halves_until_one_source_is_left(calls):
    prior = BadPrior(3, error=MemoryError("CUDA out of memory"))
    prior.spec = PriorSpec(device="cuda")
    context, result = run(FakeSurvey(), 1, 2, 3, 4, prior=prior)
    assert context.at_once == 1 and context.counters["out_of_memory"] >= 2
    assert result.columns["failure_code"].tolist() == ["", "", "OUT_OF_MEMORY", ""]


def test_a_survey_that_raises_for_one_source_costs_one_source(calls):
    _, result = run(FakeSurvey(explode=[2], off=[4]), 1, 2, 3, 4)
    assert result.columns["status"].tolist() == ["ok", "failed", "ok", "failed"]
    assert result.columns["failure_message"].tolist() == ["", "survey blew up", "", "off"]
    assert np.all(result.arrays["mean"][2] == 3) and np.isnan(result.arrays["mean"][1]).all()
    assert result.columns["source_id"].tolist() == [1, 2, 3, 4] and result.columns["valid_frac_f200w"][2] == 1


def test_sources_set_aside_are_not_touched(calls):
    failure = Failure(2, "process", "KILLED_WORKER", "kills")
    _, result = run(FakeSurvey(explode=[2]), 1, 2, exclude={1: failure})
    assert result.columns["failure_code"].tolist() == ["", "KILLED_WORKER"] and len(calls) == 2
    _, nothing = run(FakeSurvey(explode=[2]), 2, exclude={0: failure})
    assert nothing.columns["status"].tolist() == ["failed"]
    assert nothing.arrays["samples"].shape == (1, 3, 2, 8, 8)


def test_every_column_is_described_and_every_flag_has_a_threshold():
    info, columns = measurement.column_info(("f200w",)), measurement.empty_columns(("f200w",), 2)
    assert set(columns) <= set(info)
    assert info["gini_p50_f200w"].ucd.endswith("stat.median") and info["r_half_std_f200w"].unit == "arcsec"
    found = {
        "morph_flags": np.array([0, 1 << 8, 1 << 35, 0]),
        "sn_per_pixel_obs": np.array([9.0, 1.0, np.nan, 9.0]),
        "r20_raw50": np.array([0.3, 0.3, 0.01, 0.3]),
        "r_petro_raw50": np.array([0.5, 0.5, 0.5, 0.5]),
        "flux_njy_raw50": np.array([9.0, 9.0, 9.0, 7.0]),
        "flux_seg_njy_raw50": np.array([10.0, 10.0, 10.0, 10.0]),
    }
    flags = [Flag(int(f)) for f in measurement.band_flags(found, 1.92, 0.06)]
    assert flags == [
        Flag(0),
        Flag.STAMP_TOO_SMALL | Flag.LOW_SNR,
        Flag.SERSIC_BOUND | Flag.UNRESOLVED,
        Flag.APERTURE_LOSS,
    ]
