"""A disk that takes no more: one clear error, and what was there before is as it was."""

import resource
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from galbatch.errors import InputError, ModelError
from galbatch.prior.card import load_state, save_state
from galbatch.simulate.skirt import write_skirt
from galbatch.training.fit import LIBRARIES, load_config, prepare_sources


@contextmanager
def full_after(size):
    """Writes of this process fail beyond ``size`` bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_state(path, {"a": torch.ones(10)}, {"step": 1})
    with (
        full_after(20_000),
        pytest.raises(ModelError, match=r"checkpoint.safetensors: cannot be written.*free space"),
    ):
        save_state(path, {"a": torch.ones(100_000)}, {"step": 2})
    tensors, meta = load_state(path)
    assert meta == {"step": 1} and tensors["a"].sum() == 10 and list(tmp_path.iterdir()) == [path]


def test_a_library_that_does_not_fit(tmp_path):
    y, x = np.indices((64, 64)) - 32
    galaxies = [np.exp(-np.hypot(x, y) / s) for s in np.linspace(3, 8, 12)]
    np.save(tmp_path / "galaxies.npy", np.stack(galaxies).astype(np.float32))
    data = '[[data]]\norigin = "mine"\nfiles = "galaxies.npy"\nheld_out = 0.3\n'
    (tmp_path / "tiny.toml").write_text(data)
    config, folder = load_config(tmp_path / "tiny.toml"), tmp_path / "out"
    with full_after(50_000), pytest.raises(ModelError, match="cannot be written"):
        prepare_sources(config, folder)
    assert not list(folder.iterdir())
    assert len(prepare_sources(config, folder)[0].library) > 0
    assert {p.name for p in folder.iterdir()} == set(LIBRARIES)


def test_a_simulated_image_that_does_not_fit(tmp_path):
    path = tmp_path / "shalo_091-1_v0_photo.fits"
    with full_after(10_000), pytest.raises(InputError, match=r"shalo_091-1.*cannot be written.*repeat"):
        write_skirt(path, np.ones((2, 128, 128)), redshift=0.1, fov_kpc=38.4)
    assert not list(tmp_path.iterdir())
