"""The folder that an export writes into: its own, marked as such, and never over anything; and source ids as
names of files and as one line of text: readable, safe on every system, no two alike.

A marker file, written before anything else, says which run and which form the files are of. Nothing in the
folder is ever deleted or replaced.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from galbatch.errors import RunError
from galbatch.store.manifest import hash_json, read_manifest
from galbatch.store.paths import RunPaths, write_atomic

LONGEST = 100  # characters of a name before its ending; file systems take 255 bytes
_RESERVED = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)|[.\-]", re.IGNORECASE
)  # Windows; hidden; options
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


MARKER = ".galbatch-export.json"


@dataclass(frozen=True)
class ExportFolder:
    """A folder that holds an export of one run in one form and nothing else."""

    path: Path

    def write(self, name: str, data: bytes) -> Path:
        """Write a file of these bytes as ``place`` does."""
        return self.place(name, lambda path: path.write_bytes(data))

    def place(self, name: str, write: Callable[[Path], object]) -> Path:
        """The file that ``write(path)`` makes, whole or not at all. One that is there already with the same
        bytes stays.

        Raises ``RunError`` when it is there with others: someone edited it, or the run has changed.
        """
        path = self.path / name
        partial = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            write(partial)
            if not path.exists():
                partial.replace(path)
            elif not filecmp.cmp(path, partial, shallow=False):
                raise RunError(
                    f"{path} is there already and is not what would be written: it was edited, or the run "
                    "has changed since. Move it away, or name another folder with --out."
                )
        finally:
            partial.unlink(missing_ok=True)
        return path


def open_export(path: Path, form: str, paths: RunPaths, **said: object) -> ExportFolder:
    """The folder for an export, made where there is none or an empty one; ``said``: what its marker says
    besides.

    Raises ``RunError`` when it holds anything else than an earlier export of this run in this form.
    """
    path = Path(path)
    refuse_file(path)
    marker, mine = path / MARKER, {"form": form, "run": _run_identity(paths)}
    if not path.exists() or not any(path.iterdir()):
        path.mkdir(parents=True, exist_ok=True)
        write_atomic(marker, json.dumps(mine | said | {"written_by": "galbatch export"}).encode())
        return ExportFolder(path)
    found = _marker(marker)
    if found is None:
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
    return _marker(path / MARKER) or {}


def refuse_file(path: Path) -> None:
    """Raise ``RunError`` where the folder to write is a file."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file: name a folder with --out.")


def _marker(path: Path) -> dict | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _run_identity(paths: RunPaths) -> str:
    manifest = read_manifest(paths)
    return hash_json({key: manifest.get(key) for key in ("config", "model", "inputs", "created")})
