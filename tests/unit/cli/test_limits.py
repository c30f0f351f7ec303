"""Limits of the machine end a command with exit code 4 and what to do, and are never called a bug."""

import errno
import os
import subprocess
import sys

import pytest

from galbatch.cli import main as module
from galbatch.errors import InputError, limit_of, limit_remedy
from galbatch.run.task import is_fatal


def wrapped(error):
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("a library failed") from inner
    except RuntimeError as outer:
        return outer


CASES = {
    "full": (OSError(errno.ENOSPC, "No space left on device"), "make room"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "x.run/a"), "read-only"),
    "files": (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
    "fork": (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
    "thread": (RuntimeError("can't start new thread"), "ulimit -u"),
    "memory": (MemoryError(), "Memory is short"),
    "torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "Memory is short"),
    "text": (ValueError("Arrow: write failed: No space left on device"), "make room"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("how", [lambda e: e, wrapped])
def test_a_limit_is_exit_code_4_with_a_remedy(name, how, capsys):
    error, remedy = CASES[name]
    assert module._report(how(error), False) == 4
    said = capsys.readouterr().err
    assert remedy in said and "This is a bug" not in said and "resume" in said


def test_other_errors_are_what_they_were(capsys):
    assert limit_of(ValueError("x")) is None and limit_remedy(OSError(errno.ENOENT, "no")) == ""
    assert module._report(ValueError("x"), False) == 1 and "This is a bug" in capsys.readouterr().err
    assert is_fatal(wrapped(OSError(errno.EMFILE, "Too many open files")))
    assert not is_fatal(InputError("a file is missing")) and not is_fatal(MemoryError())


LIMITS = {"RLIMIT_FSIZE": (20_000, "ulimit -f"), "RLIMIT_NOFILE": (12, "ulimit -n")}


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
@pytest.mark.parametrize("limit", LIMITS)
def test_a_real_limit_is_said(limit, tmp_path):
    value, remedy = LIMITS[limit]
    code = f"""
import resource, signal, sys
from galbatch.cli.main import main
import galbatch.cli.flags as flags
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.{limit}, ({value}, {value}))
def work(*a, **k):
    held = []
    while True:
        held.append(open({str(tmp_path)!r} + f"/{{len(held)}}", "wb"))
        held[-1].write(bytes(30_000)); held[-1].flush()
flags.command.callback = work
sys.exit(main(["flags"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 4 and remedy in done.stderr and "bug" not in done.stderr, done.stderr
