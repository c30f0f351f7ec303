"""The table of faults: a row is what is done, what is said, the exit code, and what must still be on disk."""

from __future__ import annotations

import builtins
import io
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import toys
from child_run import OPTIONS
from runs import Child, same

from galbatch.cli.main import _report, main
from galbatch.run import process, resume, status, verify
from galbatch.types import Flag


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    ``do``: command lines, or a function of the desk that returns a run or an exit code, or raises; ``said``:
    a regular expression for what is said, in one line; ``code``: of the exit; ``kept(desk, before)``: what
    must still be on disk, beside all that ``judge`` looks at; ``plant(desk)``: what is wrong, made before.
    """

    do: str | tuple[str, ...] | Callable[[Desk], object]
    said: str
    code: int = 1
    kept: Callable[[Desk, dict], None] | None = None
    plant: Callable[[Desk], object] | None = None


@dataclass
class Desk:
    """A user's folder ``root``, with a thesis in it, and the run ``a.run`` of the toy survey. ``patch``: what
    is done to the process here ends before the run is resumed; ``mend``: what else must be, so that it can
    be."""

    root: Path
    survey: Path
    serial: Path
    patch: object
    messages: list[str] = field(default_factory=list)
    mend: list[Callable[[], object]] = field(default_factory=list)

    def __post_init__(self):
        (self.root / "mine").mkdir()
        (self.root / "mine" / "thesis.tex").write_text("years of work")
        self.out = self.root / "a.run"

    def process(self, at=None, catalog=None, **options):
        """The toy run in this process. ``at``: {sources done: what is done then, once}."""
        at = dict(at or {})
        known = dict(prior=toys.GaussianPrior(), cluster="none", report=False, dashboard=":0", out=self.out)
        tell = lambda progress: at.pop(progress.done, lambda: None)()  # noqa: E731
        known |= dict(on_progress=tell, on_message=self.messages.append, **OPTIONS)
        return process(catalog or self.survey, **known | options)

    def resume(self, **options):
        """The run is gone on with, in this process."""
        options = dict(prior=toys.GaussianPrior(), cluster="none", report=False) | options
        return resume(self.out, on_message=self.messages.append, **options)

    def child(self, *acts, **options):
        """The toy run in a process of its own; ``acts``: (batches committed, signal or function of desk and
        child) by turns. Returns its exit code."""
        child = Child(self.survey, self.out, **options)
        for n_parts, act in acts:
            child.wait(n_parts)
            act(self, child) if callable(act) else child.send(act)
        code, said = child.end()
        self.messages.append(said)
        return code

    def finished(self):
        """The toy run is there, whole."""
        shutil.copytree(self.serial, self.out)

    def refuse_writes(self, number):
        """From now on the system answers every change below the run's folder with this errno."""

        def guard(module, name, changes):
            real = getattr(module, name)

            def call(path, *rest, **more):
                inside = isinstance(path, str | os.PathLike) and str(path).startswith(str(self.out))
                if inside and changes(*rest, **more):
                    raise OSError(number, os.strerror(number), str(path))
                return real(path, *rest, **more)

            self.patch.setattr(module, name, call)

        for module in (io, builtins):
            guard(module, "open", lambda mode="r", *rest, **more: not set(mode).isdisjoint("wax+"))
        guard(os, "open", lambda flags, *rest, **more: flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        for name in ("replace", "rename", "mkdir", "unlink"):
            guard(os, name, lambda *rest, **more: True)


def judge(fault: Fault, desk: Desk, capsys) -> None:
    """Do what the row says and hold all four columns to it.

    Always: one message without a traceback that does not blame galbatch; nothing of the user's is touched.
    Code 1: nothing at all has changed on disk. A run that was stopped is resumed to the same bytes as one
    that was left alone; one that ended is sound.
    """
    if fault.plant:
        fault.plant(desk)
    before = tree(desk.root)
    for do in fault.do if isinstance(fault.do, tuple) else (fault.do,):
        code, said = answer(do, desk, capsys)
        assert re.search(fault.said, said), said
        assert "Traceback" not in said and "This is a bug" not in said, said
        assert code == fault.code, said
    if fault.kept:
        fault.kept(desk, before)
    elif fault.code == 1:
        assert tree(desk.root) == before
    after = tree(desk.root)
    assert {n: v for n, v in before.items() if n.startswith("mine/")}.items() <= after.items()
    if fault.code not in (0, 1, 3):
        desk.patch.undo()
        for mend in desk.mend:
            mend()
        assert status(desk.out)["state"] == "stopped"
        desk.resume()
        same(desk.serial, desk.out)
    if fault.code != 1 and desk.out.exists():
        assert verify(desk.out) == []


def answer(do, desk: Desk, capsys) -> tuple[int, str]:
    """The exit code and all that is said, in one line, as the command line would have it."""
    desk.messages.clear()
    capsys.readouterr()
    try:
        if isinstance(do, str):
            code = main(shlex.split(do))
        else:
            done = do(desk)
            code = done if isinstance(done, int) else 3 if done.summary["failed"] else 0
    except Exception as error:
        code = _report(error, False)
    captured = capsys.readouterr()
    return code, " ".join("\n".join([captured.out, captured.err, *desk.messages]).split())


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every file, link and empty folder below a folder, with what is in it."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_bytes()
        elif path.is_dir() and not any(path.iterdir()):
            found[name] = "empty"
    return found


def ledger(out: Path) -> dict[int, tuple]:
    """{source id: (status, flags, code, message)} from catalogue and failures of a run."""
    lost = {
        f["source_id"]: (f["code"], f["message"]) for f in pq.read_table(out / "failures.parquet").to_pylist()
    }
    rows = pq.read_table(out / "catalog.parquet", columns=["source_id", "status", "flags"]).to_pylist()
    return {
        r["source_id"]: (r["status"], Flag(r["flags"]), *lost.get(str(r["source_id"]), ("", "")))
        for r in rows
    }
