"""However a run is carried out, its files are the same, byte for byte."""

import numpy as np
import toys
from runs import OPTIONS, same, same_rows

from galbatch import open_run
from galbatch.run import process, status, verify
from galbatch.sampler import sample_posterior


def test_serial_run_balances(serial):
    run = open_run(serial)
    assert [run.summary[k] for k in ("planned", "catalogue", "failed")] == [10, 10, 1]
    assert run.summary["ok"] + run.summary["flagged"] == 9
    assert verify(serial) == [] and status(serial)["state"] == "finished"
    failed = run.catalog[run.catalog["status"] == "failed"]
    assert failed["source_id"].tolist() == [107] and np.isnan(failed["gini_p50_f200w"]).all()
    good = run.catalog[run.catalog["status"] != "failed"]
    assert np.isfinite(good["flux_njy_p50_f200w"]).all() and (good["n_draws_ok"] == 3).all()
    fluxes = 500 + 300 * (good["source_id"] - 100)
    assert np.corrcoef(good["flux_njy_p50_f200w"], fluxes)[0, 1] > 0.9


def test_batch_size_and_order_change_no_source(serial, survey, tmp_path):
    process(
        survey, out=tmp_path / "b.run", prior=toys.GaussianPrior(), cluster="none", **(OPTIONS | {"batch": 8})
    )
    same_rows(open_run(serial), open_run(tmp_path / "b.run"))


def test_stored_draws_are_those_of_the_python_call(serial, survey):
    """The run stores what ``sample_posterior`` gives for the stored stamp, its noise and its PSF."""
    from astropy.io import fits

    from galbatch import Observation

    run = open_run(serial)
    psf = fits.getdata(survey.parent / "psf.fits")
    obs = Observation(run.observed(104)[None], run.sigma(104)[None], psf[None], pixel_scale_arcsec=0.03)
    options = dict(draws=3, mode="fast", seed=0, source_ids=[104], bands=["f200w"])
    draws = sample_posterior(toys.GaussianPrior(), obs, **options)
    assert np.allclose(draws.samples[0], run.samples(104), rtol=2e-3, atol=1e-2)


def test_an_external_scheduler_is_joined_by_its_file_and_threads_change_nothing(
    serial, survey, outside, tmp_path
):
    """Scheduler and worker are processes of their own; the worker has three threads, as beside a GPU."""
    outside.worker("--nthreads", "3")
    messages = []
    how = OPTIONS | dict(prior=toys.GaussianPrior(), report=False, on_message=messages.append)
    process(survey, out=tmp_path / "e.run", scheduler_file=str(outside.file), **how)
    same(serial, tmp_path / "e.run")
    assert any("1 workers of the scheduler at" in m for m in messages)
