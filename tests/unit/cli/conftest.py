"""Commands that look and draw nothing need no model, which takes seconds to load."""

import pytest

from galbatch.sampler.prior import as_denoiser


class Unused:
    target_fwhm_pix = 2.0

    def denoise(self, x, sigma):
        raise AssertionError("nothing is drawn here")


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr("galbatch.run.prepare.open_model", lambda settings, prior: as_denoiser(Unused()))
    return Unused
