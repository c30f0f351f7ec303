"""Workers that Dask starts and ends by itself, as there is work: every source once, the same bytes."""

import json
import threading
from collections import Counter
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
import toys
from distributed import LocalCluster

from galbatch.cli.main import main
from galbatch.config import ExecutionSettings
from galbatch.errors import ConfigError
from galbatch.run import cluster, process, verify

N, OPTIONS = 30, dict(batch=2, draws=3, mode="fast", report=False)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return toys.write_survey(tmp_path_factory.mktemp("survey"), n=N)


@pytest.fixture(scope="module")
def calm(catalog):
    """The same run in one process."""
    how = dict(out=catalog.with_name("calm.run"), prior=toys.GaussianPrior(), cluster="none")
    return process(catalog, **how, **OPTIONS).paths.root


def workers_of(out, calm):
    """Batches by worker of a run that has every source once, every batch committed once, and the bytes of
    one in one process."""
    assert toys.product(out) == toys.product(calm) and verify(out) == []
    ids = pq.read_table(out / "catalog.parquet")["source_id"].to_pylist()
    assert Counter(ids) == Counter(range(100, 100 + N))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    batches = [line for line in lines if line["event"] == "batch"]
    assert Counter(line["batch"] for line in batches) == Counter(range(N // 2))
    return Counter(line["worker"] for line in batches)


class Watched(threading.Thread):
    """How many workers a cluster has, looked at all the time."""

    def __init__(self, local):
        super().__init__(daemon=True)
        self.local, self.seen, self.ended = local, [0], threading.Event()

    def run(self):
        while not self.ended.wait(0.05):
            now = len(self.local.scheduler_info["workers"])
            if now != self.seen[-1]:
                self.seen.append(now)

    def until(self, number, seconds=120):
        """Wait until it has so many."""
        for _ in range(int(seconds / 0.05)):
            if self.seen[-1] == number:
                return
            self.ended.wait(0.05)
        raise AssertionError(f"{self.seen}: never {number} at last")


class Watching(LocalCluster):
    """A cluster that keeps how many workers it had."""

    made: ClassVar[list] = []

    def __init__(self, **options):
        super().__init__(**options)
        self.watched = Watched(self)
        self.watched.start()
        self.made.append(self)

    def close(self, timeout=None):
        self.watched.ended.set()
        return super().close(timeout)


@pytest.mark.timeout(900)
def test_a_cluster_of_ours_grows_while_batches_wait(catalog, calm, tmp_path, monkeypatch):
    """From one worker to three, and each of them computes batches."""
    monkeypatch.setattr(cluster, "LocalCluster", Watching)
    monkeypatch.setitem(cluster.ADAPTIVE, "wait_count", 2)
    Watching.made, said, out = [], [], tmp_path / "a.run"
    process(
        catalog,
        out=out,
        prior=toys.GaussianPrior(slow_s=0.5),
        workers=1,
        max_workers=3,
        cluster="local",
        on_message=said.append,
        **OPTIONS,
    )
    seen = Watching.made[0].watched.seen
    assert any("1 to 3 CPU processes as there is work" in line for line in said)
    assert max(seen) == 3 and seen.index(1) < seen.index(3), seen
    assert len(workers_of(out, calm)) == 3, "each of them did something"


@pytest.mark.timeout(900)
def test_a_cluster_of_others_that_adapts(catalog, calm, tmp_path):
    """Its workers come for the work, from none at all, and go when it is done."""
    out = tmp_path / "theirs.run"
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0") as theirs:
        theirs.adapt(minimum=0, maximum=2, interval="500ms", target_duration="500ms", wait_count=2)
        watched = Watched(theirs)
        watched.start()
        process(
            catalog,
            out=out,
            prior=toys.GaussianPrior(slow_s=0.3),
            scheduler=theirs.scheduler_address,
            **OPTIONS,
        )
        watched.until(0)
    assert max(watched.seen) == 2, watched.seen
    assert len(workers_of(out, calm)) >= 2


def test_what_cannot_adapt_is_refused(monkeypatch, tmp_path, capsys):
    for wrong in (
        {"workers": 8, "max_workers": 2},
        {"max_workers": 2, "cluster": "none"},
        {"max_workers": 2, "scheduler": "tcp://a:1"},
        {"max_workers": -1},
    ):
        with pytest.raises(ConfigError, match=r"LEAST:MOST|scales itself"):
            ExecutionSettings(**wrong)
    monkeypatch.setattr(cluster, "_gpus", lambda: (2, ""))
    with pytest.raises(ConfigError, match=r"--workers 1:2, but the cards"):
        cluster.open_cluster(ExecutionSettings(workers=1, max_workers=2), 9)
    catalog = str(toys.write_survey(tmp_path, n=2))
    for wrong, words in (("8:2", "LEAST not above MOST"), ("2:", "neither a number"), ("x", "like 2:8")):
        assert main(["process", catalog, "--workers", wrong]) in (1, 2)
        assert words in capsys.readouterr().err
