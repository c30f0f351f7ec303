"""What may become of the folder of a run: where a run may begin, go on or take the place of another.

``--overwrite`` computes in a folder of its own beside the old run, ``OUT.new-ID``, whose marker names OUT.
When it is finished, OUT is renamed to ``OUT.old-ID``, the new one to OUT, and of the old one galbatch's own
files are deleted. Whatever moment it is stopped at, the old run or the new one is whole, and ``recover`` ends
what was begun.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from galbatch.errors import ConfigError, RunError
from galbatch.run.lock import RunLock, lock_holder
from galbatch.store import (
    BucketPath,
    RunPaths,
    check_manifest,
    clear,
    holds_results,
    is_empty,
    is_ours,
    is_own_name,
    mark,
    read_marker,
    remove,
    replaces,
)
from galbatch.store.paths import MARKER


@dataclass(frozen=True)
class Place:
    """Where a run is computed (``paths``), the run whose place it takes when it is finished (``target``), and
    whether there is something to go on with."""

    paths: RunPaths
    target: RunPaths | None = None
    going_on: bool = False

    def make(self, stack: ExitStack) -> None:
        """The folder with its marker, and the locks of both folders. What was made of a run that never begins
        goes when ``stack`` ends. Raises ``RunError`` when another process has one of them."""
        root = self.paths.root
        if self.target and is_ours(self.target.root):
            stack.enter_context(RunLock(self.target.lock))
        if not root.exists():
            stack.callback(_remove_empty, root)
        if self.target:
            mark(root, root.name.rpartition(".new-")[2], self.target.root.name)
        else:
            mark(root)
        stack.enter_context(RunLock(self.paths.lock))
        stack.callback(self._forget)

    def _forget(self) -> None:
        begun = self.paths.manifest.exists() or holds_results(self.paths)
        if not begun and self.paths.root.exists():
            clear(self.paths.root, keep=(self.paths.lock.name,))


def _remove_empty(root: Path) -> None:
    with suppress(OSError):
        root.rmdir()


def settle(paths: RunPaths, resuming: bool, overwrite: bool) -> Place:
    """Where the run will be; nothing is written. Raises ``ConfigError`` or ``RunError`` where something could
    be lost."""
    root = paths.root
    if root.is_file():
        raise RunError(f"{root} is a file: give a folder with --out.")
    if is_empty(root):
        _refuse_place(root)
        return Place(paths)
    if not is_ours(root):
        raise RunError(_strange(root))
    begun = paths.manifest.is_file()
    if overwrite and (begun or holds_results(paths)):
        return _beside(RunPaths(_real(root)))
    if not begun and holds_results(paths):
        raise RunError("\n".join([*check_manifest(paths), "Or replace the run: --overwrite."]))
    if begun and not resuming:
        raise RunError(
            f"{root} holds a run already. Go on with it (--resume), replace it (--overwrite), or name "
            "another folder (--out)."
        )
    target = replaces(root)
    return Place(paths, RunPaths(target) if target else None, begun)


def _beside(target: RunPaths) -> Place:
    """The place of a run that will replace ``target``: that of an earlier attempt, or a new one."""
    _refuse_place(target.root, replacing=True)
    unfinished = replacement(target)
    if unfinished is None:
        return Place(RunPaths(_sibling(target.root, "new", os.urandom(4).hex())), target)
    return Place(unfinished, target, unfinished.manifest.exists() and bool(unfinished.committed()))


def replacement(target: RunPaths) -> RunPaths | None:
    """The unfinished run beside ``target`` that is to take its place, if there is one."""
    real = _real(target.root)
    beside = sorted(real.parent.glob(glob.escape(real.name) + ".new-*"))
    return next((RunPaths(root) for root in beside if replaces(root) == real), None)


def _real(root: Path) -> Path:
    """A folder without links on its way; a place in a bucket is what it is."""
    return root if isinstance(root, BucketPath) else Path(os.path.realpath(root))


def _sibling(root: Path, kind: str, run: str) -> Path:
    return root.with_name(f"{root.name}.{kind}-{run}")


def _strange(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir())
    some = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return (
        f"{root} is not empty and is no run of galbatch (it holds {some}). Nothing in it was changed: name "
        "another folder with --out."
    )


def _refuse_place(root: Path, replacing: bool = False) -> None:
    """Raise ``ConfigError`` for folders that no run should be."""
    if isinstance(root, BucketPath):
        return
    real, home, here = (Path(os.path.realpath(p)) for p in (root, os.path.expanduser("~"), os.curdir))
    if real in (home, *home.parents):
        why = "is, or holds, your home folder"
    elif real in here.parents or (replacing and real == here):
        why = "is, or holds, the folder that you are in"
    elif replacing and os.path.ismount(real):
        why = "is a mount point and cannot be replaced"
    else:
        return
    raise ConfigError(f"{root} {why}: name another folder with --out.")


def refuse_inside(paths: RunPaths, names: Iterable[str]) -> None:
    """Raise ``ConfigError`` when one of the files or folders that the run reads is in its folder."""
    root = _real(paths.root)
    for name in names:
        file = Path(os.path.realpath(name if os.path.exists(name) else name.split("[", 1)[0]))
        if name.startswith(f"{root}/") if "://" in name else root in (file, *file.parents):
            raise ConfigError(
                f"{name} is read by the run, and lies in its folder {paths.root}, whose files are written "
                "anew. Nothing was changed: move it, or name another folder with --out."
            )


def begin(place: Place) -> list[str]:
    """Empty a folder, locked by now, that holds at most the beginning of a run. Returns messages."""
    paths = place.paths
    if holds_results(paths) or (paths.manifest.exists() and not place.target):
        raise RunError(f"{paths.root}: another process has made a run here meanwhile. Nothing was changed.")
    others = clear(paths.root, keep=(paths.marker.name, paths.lock.name))
    if paths.posterior.exists():
        raise RunError(
            f"{paths.posterior} holds files that galbatch did not write ({others[0].name}, ...). Move "
            "them, or name another folder with --out."
        )
    paths.parts.mkdir(parents=True, exist_ok=True)
    return _kept(others)


def put_in_place(place: Place) -> list[str]:
    """A finished run takes the place of the one that it replaces. Returns messages."""
    assert place.target is not None
    new, target = place.paths.root, place.target.root
    if not is_empty(target) and not is_ours(target):
        raise RunError(
            f"{new} is finished, but {target} is no run of galbatch any more. Move that away, then "
            f"`galbatch resume {new}`."
        )
    if isinstance(new, BucketPath) and isinstance(target, BucketPath):
        return _copy_over(new, target)
    old = _sibling(target, "old", read_marker(new).run)
    if target.exists():
        mark(target)  # which may have lost it: its manifest is about to be deleted
        os.rename(target, old)
    os.rename(new, target)
    return _tidy(old, target) if old.exists() else []


def _copy_over(new: BucketPath, target: BucketPath) -> list[str]:
    """``put_in_place`` in a bucket, which has no renames: the old run is deleted, its manifest first, and the
    new one copied, its manifest last. A place without one is no run, and ``recover`` ends what was begun."""
    manifest, lock = RunPaths(target).manifest.name, RunPaths(target).lock.name
    (target / manifest).unlink(missing_ok=True)
    others = clear(target, keep=(MARKER, lock))
    for file in sorted(new.rglob("*"), key=lambda file: file == new / manifest):
        if file != new / lock:
            file.copy_to(target / file.relative_to(new).as_posix())
    clear(new, keep=(lock,))
    return _kept(others)


def _recover_in_bucket(paths: RunPaths, target: BucketPath) -> list[str]:
    new = None if paths.manifest.is_file() else replacement(paths)
    if new is None or not isinstance(new.root, BucketPath) or not new.summary.is_file():
        return []
    _refuse_busy(target, new.lock)
    return [
        f"{target}: the new run is in its place; --overwrite had been stopped",
        *_copy_over(new.root, target),
    ]


def _refuse_busy(target: Path, lock: Path) -> None:
    """Raise ``RunError`` while a run that replaces ``target`` is at work."""
    if holder := lock_holder(lock):
        raise RunError(
            f"{target} is being replaced by another run (host {holder.get('host')}, pid "
            f"{holder.get('pid')}). Wait for it."
        )


def recover(paths: RunPaths) -> list[str]:
    """End a replacement that was stopped while the folders changed places. Returns messages."""
    if isinstance(paths.root, BucketPath):
        return _recover_in_bucket(paths, paths.root)
    target, said = Path(os.path.realpath(paths.root)), []
    for old in sorted(target.parent.glob(glob.escape(target.name) + ".old-*")):
        if read_marker(old) is None:
            continue
        _refuse_busy(target, RunPaths(old).lock)
        run = old.name.rpartition(".old-")[2]
        new = _sibling(target, "new", run)
        if not target.exists():
            whole = replaces(new) == target and RunPaths(new).summary.exists()
            os.rename(new if whole else old, target)
            which = "new" if whole else "old"
            said.append(f"{target}: the {which} run is in its place; --overwrite had been stopped")
        marker = read_marker(target)
        if marker and marker.run == run and old.exists():
            said += _tidy(old, target)
    return said


def _tidy(old: Path, target: Path) -> list[str]:
    """Others' files go from the old folder to the new one, galbatch's own are deleted. Returns messages."""
    links = [path for path in old.iterdir() if path.is_symlink() and is_own_name(path.name)]
    said = [f"kept: {os.path.realpath(path)}, to which the old {path.name} was a link" for path in links]
    for path in sorted(old.iterdir()):
        if not is_own_name(path.name) and not os.path.lexists(target / path.name):
            os.rename(path, target / path.name)
    return said + _kept(remove(old))


def _kept(others: list[Path]) -> list[str]:
    some = ", ".join(str(path) for path in others[:5]) + (", ..." if len(others) > 5 else "")
    return [f"kept, because galbatch did not write it: {some}"] if others else []
