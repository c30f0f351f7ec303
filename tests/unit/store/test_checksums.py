"""Every changed bit of a run folder is found, and nothing that changed is merged."""

import pytest
from fake_run import write_fake_run

from galbatch.store.checksums import digest_bytes, digest_file, seal, unseal
from galbatch.store.parts import read_note


@pytest.fixture
def run(tmp_path):
    return write_fake_run(tmp_path / "f.run")


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_sealed_record_with_any_bit_flipped_is_refused(indent):
    record = {"files": {"a": [3, "ab"], "b\n": [0, ""]}, "digest of it": None, "n": 1.5}
    data = seal(record, indent)
    assert unseal(data) == record
    for bit in range(8 * len(data)):
        with pytest.raises(ValueError, match="not what was written"):
            unseal(flipped(data, bit))
    for other in (data[:-1], data + b" ", data[1:], b"", data + data):
        with pytest.raises(ValueError, match="not what was written"):
            unseal(other)


def test_a_digest_is_that_of_sha256sum(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_file(path) == digest_bytes(b"abc") == [3, known]


def test_the_note_of_a_batch_has_the_digest_of_its_part_and_of_every_shard(run):
    files = read_note(run, 1)["files"]
    stored = [p for p in run.posterior.rglob("*") if p.is_file()]
    shards = {
        str(p.relative_to(run.root)) for p in stored if p.relative_to(run.posterior).parts[2:3] == ("1",)
    }
    assert set(files) == shards | {"parts/batch-000001.arrow"} and len(shards) > 10
    assert all(digest_file(run.root / name) == digest for name, digest in files.items())
