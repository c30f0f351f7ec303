"""Mocks are sampled in batches where the device wants them, and every number is as one by one."""

import numpy as np

from galbatch.interfaces import PriorSpec
from galbatch.types import Posterior
from galbatch.validate import mock, study
from galbatch.validate.mock import MockSet


class Nothing:
    spec = PriorSpec()

    def denoise(self, x, sigma):
        return x


def test_batches_of_unequal_sizes(monkeypatch):
    rng, asked, seen = np.random.default_rng(0), [], []
    shape = (3, 1, mock.STAMP, mock.STAMP)
    data, psf = rng.standard_normal(shape), np.ones((3, 1, 3, 3)) / 9
    obs = mock.Observation(data, np.ones(shape), psf, np.zeros(shape, bool))
    mocks = MockSet(obs, data[:, 0].astype("f4"), *(np.full(3, v) for v in (9.0, 3.0, 5.0)))

    def sample(prior, obs, draws, mode, seed, source_ids):
        asked.append(list(source_ids))
        b = len(source_ids)
        image = (obs.data[:, None] + rng.standard_normal((b, draws, *shape[1:]))).astype("f4")
        one, blank, spent = np.ones((b, 1)), 0 * obs.data, np.array(source_ids) + 10.0
        whole = np.full(b, draws)
        return Posterior(
            image, obs.data, blank, one, one, blank, one, np.zeros(b, int), one, spent, whole, 2.0
        )

    monkeypatch.setattr(mock, "sample_posterior", sample)
    monkeypatch.setattr(mock, "sources_at_once", lambda device, draws: 2)
    monkeypatch.setattr(study, "_scalars", lambda *a: None)
    found = study.run_study(Nothing(), mocks, draws=4, progress=lambda *done: seen.append(done))
    assert asked == [[0, 1], [2]] and seen == [(1, 3), (2, 3), (3, 3)]
    assert found.numbers["evaluations"] == 11
