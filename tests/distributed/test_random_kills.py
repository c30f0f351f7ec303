"""Kills at random moments, resumed each time: the same bytes as a run that was left alone. 20 in full, 3 in
short."""

import os
import random
import signal
import time

import pytest
import toys
from test_faults import start

from galbatch.run import resume, status, verify


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.timeout(3000)
def test_random_kills(serial, survey, tmp_path, kills):
    out, rng = tmp_path / "k.run", random.Random(kills)
    done, committed = 0, 0
    while done < kills:
        call = "resume" if (out / "manifest.json").exists() else "process"
        child = start(survey, out, slow=0.1, call=call)
        wait = rng.uniform(2.0, 12.0)
        time.sleep(wait)
        if child.poll() is not None:
            text, _ = child.communicate()
            assert child.returncode == 0, text
            restart(out, rng)
            committed = status(out)["batches_committed"]
            continue
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        done += 1
        if (out / "manifest.json").exists():
            now = status(out)["batches_committed"]
            assert now >= committed, "a committed batch was lost"
            committed = now
    if (out / "manifest.json").exists():
        resume(out, prior=toys.GaussianPrior(), cluster="none")
    else:  # every kill came before the run had begun
        child = start(survey, out)
        text, _ = child.communicate()
        assert child.returncode == 0, text
    assert toys.product(out) == toys.product(serial) and verify(out) == []


def restart(out, rng):
    """A run that ended before its kill: take some of it away, so that there is something to kill."""
    for part in rng.sample(sorted((out / "parts").glob("*.parquet")), 2):
        part.unlink()
    for name in ("catalog.parquet", "summary.json"):
        (out / name).unlink(missing_ok=True)
