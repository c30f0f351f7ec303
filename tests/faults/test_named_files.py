"""A survey file opens what it names, regular files only, and nothing else."""

import builtins
import io
import os

import pytest
from fuzz import SURVEY, sound_survey, use

from galbatch.catalog import open_catalog
from galbatch.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sound_survey(tmp_path_factory.mktemp("survey"))


def test_a_pipe_or_folder_in_place_of_a_file_does_not_hang(folder):
    os.makedirs(folder / "dir.fits")
    for name in ("pipe.fits", "pipe.toml", "pipe.parquet"):
        os.mkfifo(folder / name)
    for name in ("pipe.fits", "dir.fits", "/dev/zero"):
        for which in ("sci", "err", "psf"):
            (folder / "fuzz.toml").write_text(SURVEY.replace(f"{which}.fits", name))
            assert "regular file" in str(use(folder / "fuzz.toml")[1])
    assert "regular file" in str(use(folder / "pipe.toml")[1])
    with pytest.raises(InputError, match="regular file"):
        open_catalog(folder / "pipe.parquet")


def test_only_the_named_files_are_opened(folder, monkeypatch):
    """A survey file opens what it names, and nothing is written beside it."""
    opened = []

    def watch(module, name):
        real = getattr(module, name)
        call = lambda path, *a, **k: (opened.append(str(path)), real(path, *a, **k))[1]  # noqa: E731
        monkeypatch.setattr(module, name, call)

    for module in (builtins, io, os):
        watch(module, "open")
    before = sorted(os.listdir(folder))
    use(folder / "s.toml")
    inside = {os.path.basename(p) for p in opened if str(folder) in p}
    assert {"sci.fits", "err.fits"} <= inside <= {"s.toml", "sci.fits", "err.fits", "psf.fits"}
    assert sorted(os.listdir(folder)) == before
