"""Workers that vanish at random while others join, far faster than spot machines do."""

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toys

from galbatch.run import process, verify

OPTIONS = dict(batch=2, draws=3, mode="fast")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "throughput"))


class Counting(toys.GaussianPrior):
    """Counts its evaluations, of all processes, in a file."""

    sha256 = "toy-counting"

    def __init__(self, file, slow_s=0.0):
        super().__init__(slow_s)
        self.file = str(file)

    def denoise(self, x, sigma):
        with open(self.file, "ab") as log:
            log.write(b".")
        return super().denoise(x, sigma)

    def count(self):
        return Path(self.file).stat().st_size


def evaluations(catalog, folder, name, **options):
    """(run, evaluations) of a serial run."""
    prior = Counting(folder / f"{name}.count")
    run = process(catalog, out=folder / f"{name}.run", prior=prior, cluster="none", **OPTIONS, **options)
    return run, prior.count()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_workers_killed_at_random_cost_their_batches_and_nothing_else(tmp_path):
    """60 sources, a worker killed about every start of one, so that whole generations vanish: every source is
    there once, with the bytes of a run left in peace; and no more is evaluated twice than what was lost."""
    from vanishing import disturbed, product

    catalog = toys.write_survey(tmp_path / "survey", n=60)
    calm, whole = evaluations(catalog, tmp_path, "calm")
    _, one = evaluations(catalog, tmp_path, "one", limit=OPTIONS["batch"])  # one batch in a new process
    prior, out = Counting(tmp_path / "killed.count", slow_s=0.03), tmp_path / "killed.run"
    chaos = disturbed(catalog, out, 3, toys.start_s(), prior=prior, **OPTIONS)
    assert len(chaos.killed) >= 3 and 60 * len(chaos.killed) / chaos.worker_s > 0.1, "killed per minute"
    assert product(out) == product(calm.paths.root) and verify(out) == []
    ids = pq.read_table(out / "catalog.parquet")["source_id"].to_pylist()
    assert Counter(ids) == Counter(range(100, 160))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    committed = Counter(line["batch"] for line in lines if line["event"] == "batch")
    assert committed == Counter(range(30))
    started = 3 + len(chaos.killed) + 1
    assert prior.count() <= whole + (len(chaos.killed) + started) * one
