"""Runs of the toy survey in a process of their own, to be stopped, and compared."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import toys

OPTIONS = dict(batch=3, draws=3, mode="fast")
HERE = Path(toys.__file__).parent


def start(survey, out, cluster="none", slow=0.02, call="process"):
    """A run in a process (group) of its own."""
    code = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
import toys
from galbatch.errors import Stopped
from galbatch.run import process, resume
if __name__ == "__main__":
    workers = 2 if {cluster!r} == "local" else 0
    options = dict(prior=toys.GaussianPrior({slow}), cluster={cluster!r}, workers=workers)
    try:
        if {call!r} == "process":
            process({str(survey)!r}, out={str(out)!r}, report=False, grace_s=0.5, **{OPTIONS!r}, **options)
        else:
            resume({str(out)!r}, report=False, grace_s=0.5, **options)
    except Stopped as err:
        print(err); sys.exit(err.exit_code)
"""
    script = out.parent / f"{out.name}.py"
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(script)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=HERE.parents[1],
    )


def wait_for_parts(out, n, child, limit=240):
    end = time.monotonic() + limit
    while len(list(out.glob("parts/*.arrow"))) < n:
        assert time.monotonic() < end, f"no {n} parts in {limit} s"
        assert child.poll() is None, f"ended early: {child.stdout.read()}"
        time.sleep(0.02)


def same(a, b):
    one, two = toys.product(a), toys.product(b)
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []


def same_rows(alone, run):
    """Every source of ``alone`` has the same bytes in ``run``: all columns, draws, images and masks."""
    twins = [list(run.catalog["source_id"]).index(source) for source in alone.catalog["source_id"]]
    for name in alone.catalog.colnames:
        a, b = np.asarray(alone.catalog[name]), np.asarray(run.catalog[name])[twins]
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), name
    for source in alone.catalog["source_id"]:
        for name in ("observed", "sigma", "mask", "samples", "mean", "std", "prior_driven", "model"):
            np.testing.assert_array_equal(getattr(run, name)(source), getattr(alone, name)(source), name)
