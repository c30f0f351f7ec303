"""Reads that fail: tried again within the run, and afterwards by ``resume --retry-failed``."""

import pickle
import shutil

import numpy as np
import pytest
import toys

from galbatch.catalog import open_catalog
from galbatch.cutouts import open_survey
from galbatch.cutouts.fits.images import OpenImage
from galbatch.cutouts.fits.source import LocalBytes
from galbatch.errors import InputError, ReadError
from galbatch.run import context, process, resume, verify
from galbatch.store import StoreLayout

OPTIONS = dict(batch=3, draws=3, mode="fast", cluster="none")


@pytest.fixture
def broken(monkeypatch):
    """Reads of stamps fail while ``left`` is above 0; the waits are short."""
    state, boxes = {"left": 0, "why": "Input/output error", "calls": 0}, OpenImage.boxes

    def fail(self, *arguments, **options):
        state["calls"] += 1
        if state["left"] > 0:
            state["left"] -= 1
            raise InputError(f"{self.path} cannot be read at byte 0: {state['why']}.")
        return boxes(self, *arguments, **options)

    monkeypatch.setattr(OpenImage, "boxes", fail)
    monkeypatch.setattr(context, "WAITS_S", (0.001, 0.001))
    return state


def test_a_read_error_that_passes_leaves_no_trace(serial, survey, tmp_path, broken):
    broken["left"] = 2
    process(survey, out=tmp_path / "r.run", prior=toys.GaussianPrior(), **OPTIONS)
    assert toys.product(tmp_path / "r.run") == toys.product(serial)


def test_retry_failed_gives_the_bytes_of_a_run_without_failures(serial, survey, tmp_path, broken):
    out, messages = tmp_path / "f.run", []
    broken["left"] = 1000  # until the first batch is through
    mend = lambda progress: broken.update(left=0 if progress.done else 1000)  # noqa: E731
    run = process(survey, out=out, prior=toys.GaussianPrior(), on_progress=mend, **OPTIONS)
    assert run.summary["failed"] == 4 and toys.product(out) != toys.product(serial)
    resume(out, prior=toys.GaussianPrior(), cluster="none")
    assert toys.product(out) != toys.product(serial)  # a failure is final unless it is asked for
    run = resume(
        out, prior=toys.GaussianPrior(), cluster="none", retry_failed=True, on_message=messages.append
    )
    assert "1 batch with failed sources computed again" in messages  # OFF_IMAGE of another stays as it is
    assert toys.product(out) == toys.product(serial) and run.summary["failed"] == 1 and verify(out) == []


def test_what_cannot_pass_is_not_tried_again(survey, tmp_path, broken):
    broken["why"] = "it changed during the run"
    calls = {}

    def note(progress):
        calls[progress.done] = broken["calls"]
        broken["left"] = 1000 * (progress.done == 3)  # of the second batch

    run = process(survey, out=tmp_path / "l.run", prior=toys.GaussianPrior(), on_progress=note, **OPTIONS)
    assert run.summary["failed"] == 4 and calls[6] - calls[3] <= 2  # science and noise, once


def test_a_touched_file_is_read_again_by_retry_failed(serial, survey, tmp_path):
    folder, out = tmp_path / "survey", tmp_path / "t.run"
    shutil.copytree(survey.parent, folder)
    touched = []

    def touch(progress):
        if progress.done == 3 and not touched:
            touched.append((folder / "sci.fits").touch())

    run = process(folder / survey.name, out=out, prior=toys.GaussianPrior(), on_progress=touch, **OPTIONS)
    assert run.summary["failed"] > 1
    run = resume(out, prior=toys.GaussianPrior(), cluster="none", retry_failed=True)
    assert run.summary["failed"] == 1
    one, two = toys.product(out), toys.product(serial)
    assert [name for name in one if name.startswith("posterior") and one[name] != two[name]] == []


def test_a_psf_that_cannot_be_read_is_tried_again_and_then_no_bad_psf(survey, monkeypatch):
    """As in a worker, which reads the PSF when its first batch needs it."""
    opened, state = open_survey(survey.with_suffix(".toml")), {"left": 2}
    rows = {name: column[:3] for name, column in open_catalog(survey).read().items()}
    clean, read = opened.cut(rows, 24), LocalBytes.read
    layout = StoreLayout(10, 3, 3, ("f200w",), 24, pixel_scale_arcsec=(0.03,))
    cut = lambda: context.Cutter(pickle.loads(pickle.dumps(opened)), layout)._cut(rows, 24)  # noqa: E731

    def fail(self, *arguments):
        if self.path.endswith("psf.fits") and state["left"] > 0:
            state["left"] -= 1
            raise ReadError(f"{self.path} cannot be read at byte 0: Input/output error.")
        return read(self, *arguments)

    monkeypatch.setattr(LocalBytes, "read", fail)
    monkeypatch.setattr(context, "WAITS_S", (0.001, 0.001))
    again = cut()
    np.testing.assert_array_equal(again.bands[0].psf, clean.bands[0].psf)
    np.testing.assert_array_equal(again.flags, clean.flags)
    state["left"] = 1000
    lost = cut()
    assert {failure.code for failure in lost.failures.values()} == {"READ_ERROR"} and len(lost.failures) == 3
