"""One toy run in a process of its own, to be stopped: it says and ends what the command line would."""

import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

import toys

from galbatch.cli.main import _report
from galbatch.run import folder, process, resume

OPTIONS = dict(batch=3, draws=3, mode="fast")


def main(call, survey, out, cluster="none", slow=0.02, fsize=0, no_root=False, env=None):
    """``process`` or ``resume`` of the toy survey; exits with the code of the command line."""
    os.environ.update(env or {})
    if no_root:  # permissions count for this process from now on, as they do for any user's
        ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
    if fsize:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fsize, fsize))
    how = dict(cluster=cluster, workers=2 if cluster == "local" else 0, report=False, grace_s=0.5)
    try:
        if call == "process":
            process(survey, out=out, prior=toys.GaussianPrior(slow), on_message=print, **OPTIONS, **how)
        else:
            resume(out, prior=toys.GaussianPrior(slow), on_message=print, **how)
    except BaseException as error:
        sys.exit(_report(error, False))


def forked(said, *arguments):
    """``main`` in a process (group) of its own, all that it says in the file ``said``."""
    os.setsid()
    file = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    main(*arguments)


def killed(survey, out, at):
    """Replaces the run ``out``, and is killed before change ``at`` of the file system by which the folders
    change places, or after the last."""
    calls, swap = [0], folder.put_in_place

    def counted(function):
        def call(*arguments, **options):
            calls[0] += 1
            if calls[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    def put_in_place(place):
        os.rename, os.unlink, os.rmdir = counted(os.rename), counted(os.unlink), counted(os.rmdir)
        swap(place)
        os.kill(os.getpid(), signal.SIGKILL)

    folder.put_in_place = put_in_place
    options = dict(limit=3, overwrite=True, batch=1, draws=2, mode="fast", cluster="none")
    process(survey, out=out, prior=toys.GaussianPrior(), **options)


def warm():
    """All that a run imports and compiles, so that the processes forked from this one begin at once."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = toys.write_survey(Path(folder) / "survey", n=2)
        process(catalog, out=f"{folder}/a.run", prior=toys.GaussianPrior(), cluster="none", **OPTIONS)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
