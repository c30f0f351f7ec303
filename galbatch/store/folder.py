"""Proof that galbatch made a folder, and deletion of what it wrote there and of nothing else.

The proof is the marker file ``.galbatch-run``, made before anything else, or, where that was lost, a manifest
with the hash that it names. What may be deleted inside is the list of names in ``paths``; a symbolic link of
such a name is removed, what it points to is not touched.

The folder of an export is its own, too: its marker, written before anything else, says which run and which
form the files are of, and nothing in it is ever deleted or replaced. Source ids become names of files, and
one line of text, that are readable, safe on every system, and no two alike.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from galbatch.errors import RunError
from galbatch.store.bucket import BucketPath
from galbatch.store.manifest import hash_json, read_manifest, read_valid, versions
from galbatch.store.paths import (
    MARKER,
    RunPaths,
    is_own_file,
    is_own_folder,
    is_own_name,
    local_copy,
    local_parent,
    move_in,
    place_of,
    write_atomic,
)

MARKER_FORMAT = 1


@dataclass(frozen=True)
class Marker:
    """``run``: id of the run; ``replaces``: name of the folder beside it whose place it takes when it is
    finished, '' for none; ``created``: UTC; ``galbatch``: version that made it."""

    run: str
    replaces: str = ""
    created: str = ""
    galbatch: str = ""
    format: int = MARKER_FORMAT


def mark(root: Path, run: str = "", replaces: str = "") -> Marker:
    """Make the folder, if need be, and its marker; one that is there already stays."""
    if found := read_marker(root):
        return found
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    marker = Marker(run or uuid.uuid4().hex[:12], replaces, now, versions().get("galbatch", ""))
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(root / MARKER, (json.dumps(asdict(marker), indent=1) + "\n").encode())
    return marker


def read_marker(root: Path) -> Marker | None:
    """The marker of a folder; None without a valid one."""
    path = root / MARKER
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if not path.is_symlink() else {}
        marker = Marker(**{k: record[k] for k in Marker.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    good = isinstance(marker.run, str) and isinstance(marker.replaces, str) and marker.format == MARKER_FORMAT
    return marker if good and Path(marker.replaces).name == marker.replaces else None


def replaces(root: Path) -> Path | None:
    """The folder whose place a run in ``root`` takes when it is finished; None for a run that is in its
    place, or that was given another name."""
    marker = read_marker(root)
    if marker is None or not marker.replaces or root.name != f"{marker.replaces}.new-{marker.run}":
        return None
    return root.with_name(marker.replaces)


def is_ours(root: Path) -> bool:
    """Can it be proved that galbatch made this folder?"""
    return read_marker(root) is not None or read_valid(RunPaths(root).manifest) is not None


def is_empty(root: Path) -> bool:
    """No such folder, or nothing in it but a marker and a lock."""
    try:
        return {path.name for path in root.iterdir()} <= {MARKER, RunPaths(root).lock.name}
    except FileNotFoundError:
        return True


def holds_results(paths: RunPaths) -> bool:
    """Is there anything that took time to compute?"""
    products = (paths.catalog, paths.statistics, paths.summary, paths.failures)
    return bool(paths.committed()) or any(path.exists() for path in products)


def clear(root: Path, keep: tuple[str, ...] = ()) -> list[Path]:
    """Delete galbatch's own files and its folders that are then empty, the marker last; ``keep``: names at
    the top that stay. Returns what else is there, which is not galbatch's."""
    if isinstance(root, BucketPath):
        return _clear_bucket(root, keep)
    others, folders = [], []
    for name, entry in _walk(root, ""):
        link = entry.is_symlink()
        if name in keep or name == MARKER:
            continue
        own_link = link and is_own_name(name)
        if own_link or (is_own_file(name) and entry.is_file(follow_symlinks=False)):
            os.unlink(entry.path)
        elif is_own_folder(name) and not link and entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
        else:
            others.append(Path(entry.path))
    for folder in reversed(folders):
        try:
            os.rmdir(folder)
        except OSError:
            continue  # others' files are in it
    if MARKER not in keep:
        (root / MARKER).unlink(missing_ok=True)
    return sorted(others)


def _clear_bucket(root: BucketPath, keep: tuple[str, ...]) -> list[Path]:
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
    own = {name for name in found if is_own_file(name)}
    for name in sorted(own - {*keep, MARKER}):
        found[name].unlink(missing_ok=True)
    if MARKER not in keep:
        (root / MARKER).unlink(missing_ok=True)
    return sorted(path for name, path in found.items() if name not in own)


def remove(root: Path) -> list[Path]:
    """``clear``, and the folder itself where nothing else is in it."""
    others = clear(root)
    if not others:
        root.rmdir()
    return others


def _walk(root: Path, inside: str) -> Iterator[tuple[str, os.DirEntry]]:
    """Entries with their names relative to ``root``; only galbatch's own folders are entered, no links."""
    with os.scandir(root / inside) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = f"{inside}/{entry.name}" if inside else entry.name
        yield name, entry
        if is_own_folder(name) and entry.is_dir(follow_symlinks=False):
            yield from _walk(root, name)


LONGEST = 100  # characters of a name before its ending; file systems take 255 bytes
# names of Windows; of hidden files; of options
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)|[.\-]", re.IGNORECASE)
_SHOWN = 200


def file_names(ids: Iterable) -> dict[str, str]:
    """File name (without an ending) by id as text; different ids have names that differ even where capitals
    do not count.

    ASCII letters, digits and ``.-+_`` stay; all else is percent-encoded, as in a web address. A name beyond
    ``LONGEST`` ends in ``~`` and a hash of the id. Where two ids differ only in capitals, ``~`` and a
    hexadecimal number follow whose bits say which letters are capitals.
    """
    names = {text: _encoded(text) for text in map(str, ids)}
    known = Counter(name.lower() for name in names.values())
    return {
        text: name if known[name.lower()] == 1 or name == name.lower() else f"{name}~{_capitals(name):x}"
        for text, name in names.items()
    }


def band_name(band: str) -> str:
    """A band as the last part of a file name: without underscore, so that ``id_band`` is never ambiguous."""
    return _encoded(band).replace("_", "%5F")


def one_line(text: object, ascii_only: bool = False) -> str:
    """Text that cannot leave its line, comment or header card: control characters (and what is not ASCII,
    with ``ascii_only``) become escapes; what is longer than 200 characters ends in an ellipsis."""
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)[: _SHOWN + 1]
    )
    line = line.encode("ascii", "backslashreplace").decode() if ascii_only else line
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _encoded(text: str) -> str:
    name = quote(text, safe="+", errors="surrogatepass").replace("~", "%7E") or "%"
    if _RESERVED.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) > LONGEST:
        name = f"{name[:80]}~{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]}"
    return name


def _capitals(name: str) -> int:
    return sum(1 << k for k, c in enumerate(c for c in name if c.isalpha()) if c.isupper())


EXPORT_MARKER = ".galbatch-export.json"


@dataclass(frozen=True)
class ExportFolder:
    """A folder that holds an export of one run in one form and nothing else."""

    path: Path

    def write(self, name: str, data: bytes) -> Path:
        """``place`` of these bytes."""
        return self.place(name, lambda path: path.write_bytes(data))

    def place(self, name: str, write: Callable[[Path], object]) -> Path:
        """The file that ``write(path)`` makes, whole or not at all. One that is there already with the same
        bytes stays. Raises ``RunError`` when it has others: someone edited it, or the run has changed."""
        path = self.path / name
        partial = local_parent(path) / f".{uuid.uuid4().hex}.tmp"
        try:
            write(partial)
            if not path.exists():
                move_in(partial, path)
                return path
            with local_copy(path) as there:
                if not filecmp.cmp(there, partial, shallow=False):
                    raise RunError(
                        f"{path} is there already and is not what would be written: it was edited, or the "
                        "run has changed since. Move it away, or name another folder with --out."
                    )
        finally:
            partial.unlink(missing_ok=True)
        return path


def open_export(path: Path, form: str, paths: RunPaths, **said: object) -> ExportFolder:
    """The folder for an export, made where there is none or an empty one; ``said``: what its marker says
    besides.

    Raises ``RunError`` when it holds anything else than an earlier export of this run in this form.
    """
    path = place_of(path)
    refuse_file(path)
    manifest = read_manifest(paths)
    run = hash_json({key: manifest.get(key) for key in ("config", "model", "inputs", "created")})
    marker, mine = path / EXPORT_MARKER, {"form": form, "run": run}
    if not path.exists() or not any(path.iterdir()):
        path.mkdir(parents=True, exist_ok=True)
        write_atomic(marker, json.dumps(mine | said | {"written_by": "galbatch export"}).encode())
        return ExportFolder(path)
    found = earlier_export(path)
    if not found:
        raise RunError(
            f"{path} is not empty, and galbatch export did not make it: nothing was written. Name a new "
            "folder with --out."
        )
    if {key: found.get(key) for key in mine} != mine:
        raise RunError(
            f"{path} holds an export of another run or to another form ({found.get('form')}): nothing was "
            "written. Name a new folder with --out."
        )
    return ExportFolder(path)


def earlier_export(path: Path) -> dict:
    """What the marker of an export folder says; {} without one."""
    try:
        found = json.loads((path / EXPORT_MARKER).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def refuse_file(path: Path) -> None:
    """Raise ``RunError`` where the folder to write is a file."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file: name a folder with --out.")
