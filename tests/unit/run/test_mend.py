"""What a run that goes on makes whole, each from what is sound."""

import json

import pytest
import toys

from galbatch.errors import RunError
from galbatch.run import process, resume, verify
from galbatch.store import RunPaths, write_manifest


@pytest.fixture
def paths(copy):
    return RunPaths(copy)


def edit(path):
    path.write_bytes(path.read_bytes().replace(b"seed = 0", b"seed = 1"))


@pytest.mark.parametrize("harm", [edit, lambda path: path.write_bytes(b"\x00"), lambda path: path.unlink()])
@pytest.mark.parametrize("command", ["resume", "process"])
def test_settings_are_made_again_as_they_were(paths, harm, command):
    """Also those that were left to galbatch: the size of the stamp."""
    before, said, survey = paths.config.read_bytes(), [], json.loads(paths.manifest.read_text())["settings"]
    assert b"stamp_pix = 0" in before
    harm(paths.config)
    assert any("galbatch.toml" in line and "galbatch resume" in line for line in verify(paths.root))
    options = dict(prior=toys.GaussianPrior(), cluster="none", on_message=said.append)
    if command == "resume":
        resume(paths.root, **options)
    else:
        process(survey["catalog"], out=paths.root, resume=True, batch=3, draws=3, mode="fast", **options)
    assert paths.config.read_bytes() == before and any("made again as it was" in line for line in said)
    assert verify(paths.root) == []


def test_settings_that_the_manifest_does_not_hold_are_not_made_up(paths):
    """Of a run by an earlier version."""
    record = json.loads(paths.manifest.read_text())
    del record["settings"]
    write_manifest(paths, record)
    edit(paths.config)
    with pytest.raises(RunError, match=r"galbatch.toml: its content changed .* Copy it back"):
        resume(paths.root, prior=toys.GaussianPrior(), cluster="none")
