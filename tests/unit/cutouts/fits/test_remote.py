"""Stamps of mosaics in a bucket: the pixels of a local file, by few requests, within a bounded memory."""

import threading
import time

import numpy as np
import pytest
from astropy.io import fits
from bucket import environment, s3_server

from galbatch.cutouts.fits.blocks import BlockCache, NodeBlocks
from galbatch.cutouts.fits.header import read_image
from galbatch.cutouts.fits.images import ImagePool, Plane
from galbatch.cutouts.fits.remote import BLOCK, RemoteBytes, take_traffic
from galbatch.errors import InputError, ReadError

pytestmark = pytest.mark.ci("obstore", "moto")
NY, NX = 900, 2000


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """(local path, URL) of a mosaic of noise."""
    from galbatch.store import place_of

    folder = tmp_path_factory.mktemp("mosaic")
    image = np.random.default_rng(0).standard_normal((NY, NX), np.float32)
    fits.writeto(folder / "sci.fits", image, fits.Header({"BUNIT": "nJy"}))
    with s3_server() as port, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(port).items():
            patch.setenv(name, value)
        place_of("s3://bucket/m/sci.fits").write_bytes((folder / "sci.fits").read_bytes())
        yield str(folder / "sci.fits"), "s3://bucket/m/sci.fits"


def both(mosaic, monkeypatch, limit, node=0):
    """The mosaic opened locally and in the bucket, with a cache of its own."""
    cache = BlockCache(limit)
    monkeypatch.setattr(RemoteBytes.__init__, "__defaults__", (None, cache, NodeBlocks(node)))
    take_traffic()
    local, remote = (ImagePool().open(Plane(path)) for path in mosaic)
    assert isinstance(remote.source, RemoteBytes)
    return local, remote, cache


def test_stamps_are_those_of_the_local_file(mosaic, monkeypatch):
    """Inside, across every edge and outside; however little is kept."""
    rng = np.random.default_rng(1)
    y0, x0 = rng.integers(-20, NY + 5, 60), rng.integers(-20, NX + 5, 60)
    for limit in (64 << 20, 3 * BLOCK):
        local, remote, cache = both(mosaic, monkeypatch, limit)
        for size in (8, 33):
            ours, theirs = (image.boxes(y0, x0, size, size) for image in (local, remote))
            np.testing.assert_array_equal(ours[0], theirs[0])
            assert ours[1].all() and theirs[1].all()
        assert cache.held <= limit and cache.held == sum(map(len, cache._blocks.values()))
    np.testing.assert_array_equal(*(read_image(of.source, of.hdu) for of in (local, remote)))


def test_a_batch_costs_few_requests_and_a_neighbour_none(mosaic, monkeypatch):
    """Row by row a stamp of 64 rows was up to 64 requests; a second source in the strip asked again."""
    _, remote, _ = both(mosaic, monkeypatch, 64 << 20)
    opened = take_traffic()
    assert opened["requests"] <= 3
    remote.boxes([200], [300], 64, 64)
    one = take_traffic()
    assert one["requests"] == 1 and one["bytes"] <= 64 * NX * 4 + 2 * BLOCK
    rng = np.random.default_rng(2)
    remote.boxes(rng.integers(200, 260, 500), rng.integers(0, NX - 64, 500), 64, 64)
    strip = take_traffic()
    assert strip["requests"] <= 2 and strip["hits"] > 0
    remote.boxes(rng.integers(200, 260, 500), rng.integers(0, NX - 64, 500), 64, 64)
    assert take_traffic().get("requests", 0) == 0


def test_every_block_is_read_once_where_sources_come_by_strips(mosaic, monkeypatch):
    _, remote, _ = both(mosaic, monkeypatch, 300 * NX * 4)
    take_traffic()
    rng = np.random.default_rng(3)
    y = np.sort(rng.uniform(0, NY - 32, 2000) // 100 * 100 + rng.uniform(0, 100, 2000)).astype(int)
    for first in range(0, 2000, 64):
        part = np.minimum(y[first : first + 64], NY - 32)
        remote.boxes(part, rng.integers(0, NX - 32, len(part)), 32, 32)
    spent = take_traffic()
    assert spent["bytes"] <= 1.05 * NY * NX * 4 and spent["requests"] < 60


def test_what_is_missing_or_changed_is_said(mosaic, monkeypatch):
    both(mosaic, monkeypatch, 64 << 20)
    with pytest.raises(ReadError, match=r"none.fits cannot be opened"):
        ImagePool().open(Plane("s3://bucket/m/none.fits"))
    from galbatch.store import place_of

    path = place_of("s3://bucket/m/other.fits")
    data = place_of(mosaic[1]).read_bytes()
    path.write_bytes(data)
    first = RemoteBytes(str(path))
    path.write_bytes(data[:-2880])
    with pytest.raises(InputError, match="changed during the run"):
        RemoteBytes(str(path), first.stamp)
    with pytest.raises(ReadError, match=r"other.fits.*(cannot be read|bytes came)"):
        first.read(len(data) - 100, 100)


def test_what_was_not_used_for_longest_goes_first():
    cache = BlockCache(30)
    for k in range(3):
        cache.put(("a", "", k), bytes(10))
    assert cache.get(("a", "", 0)) is not None
    cache.put(("a", "", 3), bytes(10))
    assert [cache.get(("a", "", k)) is not None for k in range(4)] == [True, False, True, True]
    assert cache.held == 30


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of blocks of this machine."""
    monkeypatch.setenv("GALBATCH_CACHE", str(tmp_path))
    return tmp_path / "galbatch-blocks"


def test_what_one_process_has_read_another_does_not_ask_for(mosaic, monkeypatch, folder):
    """Another process is another memory. A block that is damaged on the disk is asked for again."""
    stamps = []
    for damaged in (False, False, True):
        for file in folder.glob("*.block") if damaged else ():
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        _, remote, _ = both(mosaic, monkeypatch, 64 << 20, node=64 << 20)
        take_traffic()
        stamps.append(remote.boxes([200, 260], [300, 9], 64, 64)[0])
        spent = take_traffic()
        asked_for = len(stamps) != 2
        assert (spent.get("requests", 0) > 0) == asked_for and (spent.get("node_hits", 0) == 0) == asked_for
    np.testing.assert_array_equal(stamps[0], stamps[1])
    np.testing.assert_array_equal(stamps[0], stamps[2])


def test_the_folder_of_blocks_is_bounded_and_loses_nothing_of_others(folder):
    blocks = NodeBlocks(64_000)
    blocks.put(("a", "1", -1), bytes(1000))
    folder.joinpath("notes.block").write_text("mine")
    for k in range(200):
        blocks.put(("a", "1", k), bytes(1000))
        held = [file.stat().st_size for file in folder.glob("*.block") if file.name != "notes.block"]
        assert sum(held) <= 64_000
    assert len(held) > 40 and blocks.get(("a", "1", 199)) == bytes(1000)
    assert blocks.get(("a", "1", 0)) is None and blocks.get(("a", "2", 199)) is None
    assert folder.joinpath("notes.block").read_text() == "mine"


def test_a_folder_that_cannot_be_used_costs_requests_and_nothing_else(folder):
    folder.write_text("a file")
    blocks = NodeBlocks(64_000)
    blocks.put(("a", "1", 0), bytes(10))
    with blocks.alone(("a", "1", 0)):
        assert blocks.get(("a", "1", 0)) is None
    assert folder.read_text() == "a file"


def test_who_asks_for_the_same_waits_and_not_for_ever(folder, monkeypatch):
    monkeypatch.setattr("galbatch.cutouts.fits.blocks.WAIT_S", 0.3)
    one, two, said = NodeBlocks(64_000), NodeBlocks(64_000), []

    def ask():
        with two.alone(("a", "1", 0)):
            said.append("two")

    for held, order in ((0.1, ["one", "two"]), (1.0, ["two", "one"])):
        said.clear()
        with one.alone(("a", "1", 0)):
            thread = threading.Thread(target=ask)
            thread.start()
            time.sleep(held)
            said.append("one")
        thread.join()
        assert said == order
