"""Kills at random moments, resumed each time: the same bytes as a run that was left alone. 20 in full, 3 in
short."""

import os
import random
import signal
import time
from collections import Counter

import pytest
import toys
from runs import start

from galbatch.run import resume, status, verify
from galbatch.store import RunPaths


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.timeout(3000)
def test_random_kills(serial, survey, tmp_path, kills):
    """Slow and quick priors by turns, so that kills find batches at work as well as shards being written."""
    out, rng, hit = tmp_path / "k.run", random.Random(kills), Counter()
    committed: dict[str, bytes] = {}
    while sum(hit.values()) < kills:
        call = "resume" if (out / "manifest.json").exists() else "process"
        cluster = "local" if sum(hit.values()) % 5 == 4 else "none"
        child = start(survey, out, cluster, rng.choice([0.0, 0.02, 0.1]), call)
        started = wait_for_the_lock(out, child)
        time.sleep(rng.uniform(0.0, 8.0) if started else 0.0)
        if child.poll() is not None:
            text, _ = child.communicate()
            assert child.returncode == 0, text
            take_away(out, rng)
            committed = parts(out)
            continue
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        hit[moment(out)] += 1
        now = parts(out)
        assert committed.items() <= now.items(), "a committed batch was lost or done again"
        committed = now
    print(f"{kills} kills: {dict(hit)}")
    if (out / "manifest.json").exists():
        resume(out, prior=toys.GaussianPrior(), cluster="none")
    else:  # every kill came before the run had begun
        child = start(survey, out)
        text, _ = child.communicate()
        assert child.returncode == 0, text
    assert toys.product(out) == toys.product(serial) and verify(out) == []


def wait_for_the_lock(out, child) -> bool:
    """Until the child holds the run folder; False when it ended before."""
    while child.poll() is None:
        try:
            if f'"pid": {child.pid},' in (out / "run.lock").read_text():
                return True
        except OSError:
            pass
        time.sleep(0.01)
    return False


def parts(out) -> dict[str, int]:
    """The committed batches and when each was written."""
    return {p.name: p.stat().st_mtime_ns for p in (out / "parts").glob("*.arrow")}


def moment(out) -> str:
    """What the kill interrupted."""
    if not (out / "manifest.json").exists():
        return "before the run began"
    if RunPaths(out).orphans():
        return "while a file was written"
    if len(parts(out)) < status(out)["batches"]:
        return "in a batch"
    return "in the merge"


def take_away(out, rng):
    """A run that ended before its kill: take some of it away, so that there is something to kill."""
    for part in rng.sample(sorted((out / "parts").glob("*.arrow")), 2):
        part.unlink()
    for name in ("catalog.parquet", "summary.json"):
        (out / name).unlink(missing_ok=True)
