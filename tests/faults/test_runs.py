"""What befalls a run under way, in this process: its disk, its files, its settings, its folder and its lock.

Of the faults that surveys are known for, here are: a full disk, a quota, a disk that is read-only or refuses;
files that change during the run; settings and inputs that change before a resume; a second process on the
folder; a scheduler that does not answer; a process that lacks files or model; an empty selection.
"""

import errno
import json
import os
import shutil
import sys
import time

import pyarrow.parquet as pq
import pytest
import toys
from faults import Desk, Fault, judge, ledger, tree
from runs import same

from galbatch.errors import RunError
from galbatch.run import context, resume, status
from galbatch.run.lock import STALE_S, RunLock
from galbatch.sampler.prior import as_denoiser
from galbatch.store import mark
from galbatch.types import Flag

REFUSALS = {  # errno: what is said of it, and what to do
    errno.ENOSPC: (
        "No space left on device",
        r"The disk is full: make room \(a whole run needs about \S+ GB",
    ),
    errno.EDQUOT: ("quota", "ask for more"),
    errno.EROFS: ("Read-only file system", "mount it for writing"),
    errno.EFBIG: ("File too large", "ulimit -f"),
    errno.EACCES: ("Permission denied", r"See that .* you may write in \S+a\.run;"),
    errno.EPERM: ("Operation not permitted", r"See that .* you may write in \S+a\.run;"),
    errno.EIO: ("Input/output error", "See that the disk is whole"),
}


def refused(number, done):
    """Writes are refused from the moment that ``done`` sources are committed, of ten."""

    def kept(desk, before):
        assert status(desk.out)["batches_committed"] == -(-done // 3)

    do = lambda desk: desk.process(at={done: lambda: desk.refuse_writes(number)})  # noqa: E731
    said, remedy = REFUSALS[number]
    if done == 10:
        remedy = remedy.split(r" \(")[0]
    return Fault(do, f"{said}.*Every committed batch is kept.*{remedy}.*galbatch resume", 4, kept)


def locked(age_s=0.0, host="elsewhere"):
    """The lock of another process, last touched so long ago."""

    def plant(desk):
        mark(desk.out)
        lock = desk.out / "run.lock"
        lock.write_text(json.dumps({"host": host, "pid": 2**22 + 5, "started": "1"}))
        os.utime(lock, (time.time() - age_s,) * 2)

    return plant


def silent(desk):
    desk.patch.setattr("galbatch.run.lock.WATCH", 0.02)
    locked(2 * STALE_S)(desk)


def while_locked(desk):
    desk.out.mkdir()
    with RunLock(desk.out / "run.lock"):
        desk.process()


def as_it_was(desk, before):
    assert tree(desk.root) == before and status(desk.out)["state"] == "finished"


def the_same(desk, before):
    same(desk.serial, desk.out)


def anything(desk, before):
    pass


def changed_pixel(desk):
    """A run of two sources of a survey of its own, one of whose pixels changed since."""
    folder = shutil.copytree(desk.survey.parent, desk.root / "survey")
    desk.process(catalog=folder / desk.survey.name, limit=2)
    data = bytearray((folder / "sci.fits").read_bytes())
    data[5000] ^= 1
    (folder / "sci.fits").write_bytes(data)


def with_notes(desk):
    desk.process(limit=1)
    (desk.out / "notes.txt").write_text("mine")


def replaced(desk, before):
    assert (desk.out / "notes.txt").read_text() == "mine" and len(ledger(desk.out)) == 2
    assert sorted(p.name for p in desk.root.iterdir()) == ["a.run", "mine"]


def silent_scheduler(desk, **more):
    desk.patch.setattr("galbatch.run.cluster.CONNECT_TIMEOUT", "1s")
    desk.process(cluster="auto", scheduler="tcp://127.0.0.1:9", **more)


def empty(desk):
    catalog = toys.write_survey(desk.root / "none", n=1)
    pq.write_table(pq.read_table(catalog).slice(0, 0), catalog)
    return desk.process(catalog=catalog)


def with_(method, **options):
    return lambda desk: method(desk, **options)


def no_rows(desk, before):
    assert ledger(desk.out) == {}


LATE = (errno.ENOSPC, errno.EACCES, errno.EIO)
run, resumed, done = Desk.process, Desk.resume, Desk.finished
here, silent_address = os.uname().nodename, r"127\.0\.0\.1:9"
# fmt: off
FAULTS = {
    **{f"{errno.errorcode[number]} in a batch": refused(number, 3) for number in REFUSALS},
    **{f"{errno.errorcode[number]} in the merge": refused(number, 10) for number in LATE},
    "a second run on the folder":
        Fault(while_locked, rf"another run is working.*pid {os.getpid()}", 1, anything),
    "a second run on another host": Fault(run, "another run is working.*elsewhere", 1, None, locked(1.0)),
    "the lock of a host that is silent": Fault(run, "", 3, the_same, silent),
    "the lock of a process that is dead": Fault(run, "", 3, the_same, locked(host=here)),
    "a folder that holds a run": Fault(run, "holds a run already", 1, as_it_was, done),
    "other settings": Fault(with_(run, resume=True, draws=5), "draws: was 3, is 5", 1, as_it_was, done),
    "another prior": Fault(with_(resumed, prior=toys.DeadlyPrior()), "toy-deadly", 1, as_it_was, done),
    "no prior": Fault(with_(resumed, prior=None, force=True), "give the same one", 1, as_it_was, done),
    "another image": Fault(resumed, r"sci\.fits: was .* is ", 1, None, changed_pixel),
    "another image, and all the same":
        Fault(with_(resumed, force=True), r"although this changed.*sci\.fits", 0, None, changed_pixel),
    "resume and overwrite": Fault(with_(run, resume=True, overwrite=True), "exclude each other"),
    "overwrite beside others' files":
        Fault(with_(run, limit=2, overwrite=True), "replaced by the new run", 0, replaced, with_notes),
    "an empty selection": Fault(empty, "0 sources in 0 batches", 0, no_rows),
    "a silent scheduler": Fault(silent_scheduler, silent_address),
    "a silent scheduler, and overwrite":
        Fault(with_(silent_scheduler, overwrite=True), silent_address, 1, as_it_was, done),
    "a run that is there, and a silent scheduler": Fault(silent_scheduler, "--resume", 1, as_it_was, done),
}
# fmt: on


@pytest.mark.parametrize("name", FAULTS)
def test_a_run_under_way(name, desk, capsys):
    judge(FAULTS[name], desk, capsys)


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 5])


CHANGES = {
    "rewritten": lambda path: path.write_bytes(path.read_bytes()[::-1]),  # in place: the same file
    "cut short": cut_short,
    "emptied": lambda path: path.write_bytes(b""),
    "replaced": lambda path: (
        path.rename(path.with_name("old")),
        shutil.copy(path.with_name("err.fits"), path),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_during_the_run_never_mixes_with_what_it_was(change, desk, capsys):
    """After the first batch of two: what comes after is in the ledger. A file that another takes the place of
    is still open here, and read as it was; another process would refuse the new one."""
    catalog = toys.write_survey(desk.root / "survey", n=6)
    whole = desk.process(catalog=catalog, out=desk.root / "whole.run")
    harm = lambda: CHANGES[change](catalog.parent / "sci.fits")  # noqa: E731

    def kept(desk, before):
        rows = ledger(desk.out)
        lost = [source for source, row in rows.items() if row[0] == "failed"]
        assert lost == ([] if change == "replaced" else [103, 104, 105]) and len(rows) == 6
        for source in lost:
            _, flags, code, message = rows[source]
            assert code == "READ_ERROR" and Flag.READ_ERROR in flags
            assert "sci.fits changed during the run" in message
        if not lost:
            same(whole.paths.root, desk.out)

    code = 0 if change == "replaced" else 3
    judge(Fault(lambda desk: desk.process(at={3: harm}, catalog=catalog), "", code, kept), desk, capsys)


def test_a_process_that_lacks_what_the_run_needs_says_which_and_where(desk):
    """Files, model and version are looked at in the process that is to do the work."""
    catalog = toys.write_survey(desk.root / "survey", n=4)
    desk.process(catalog=catalog)
    seen = []
    desk.patch.setattr(sys.modules["galbatch.run.execute"], "run_serial", lambda spec, *a: seen.append(spec))
    (desk.out / "parts" / "batch-000000.arrow").unlink()
    with pytest.raises(RunError, match="missing"):
        resume(desk.out, prior=toys.GaussianPrior(), cluster="none")
    (spec,), prior = seen, as_denoiser(toys.GaussianPrior())
    context.refuse_this_machine(spec, prior)
    with pytest.raises(RunError, match=r"has sha256 toy-deadly, that of the run is toy-1\. Put"):
        context.refuse_this_machine(spec, as_denoiser(toys.DeadlyPrior()))
    with (
        desk.patch.context() as patch,
        pytest.raises(RunError, match=r"has galbatch 0\.0\.9, the run 0\.1\.0"),
    ):
        patch.setattr(context, "__version__", "0.0.9")
        context.refuse_this_machine(spec, prior)
    for name in ("err.fits", "psf.fits"):
        (catalog.parent / name).unlink()
    with pytest.raises(RunError, match=r"cannot read 2 files.*err\.fits: No such file.*psf\.fits: No such"):
        context.refuse_this_machine(spec, prior)
