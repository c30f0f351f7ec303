"""Source ids as names of files, and as one line of text: readable, safe on every system, no two alike."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from urllib.parse import quote

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
