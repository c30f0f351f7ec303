"""Names of the columns that pass through: none is lost, none is mistaken for one of galbatch's own."""

from __future__ import annotations

from collections.abc import Iterable

from galbatch.catalog.columns import REQUIRED
from galbatch.types import Finding

_LISTED = 8
PREFIX = "input_"


def product_names(names: list[str], own: Iterable[str]) -> dict[str, str]:
    """Name in the product by name in the catalogue, for all columns but those of ``REQUIRED``.

    A name of galbatch's own (``own``) gets the prefix ``input_``; an empty one becomes ``column_N``; control
    characters become underscores. Names are distinct even where capitals do not count, as in VOTables, FITS
    and SQL: the later of two gets a number.
    """
    reserved = {n.lower() for n in (*own, *REQUIRED)}
    asked = {n: _printable(n) or f"column_{k + 1}" for k, n in enumerate(names) if n not in REQUIRED}
    taken = reserved | {n.lower() for n in names}
    given: set[str] = set()
    out = {}
    for name, wish in asked.items():
        while wish.lower() in reserved:
            wish = PREFIX + wish
        if wish != name or wish.lower() in given:
            wish = _free(wish, taken | given)
        given.add(wish.lower())
        out[name] = wish
    return out


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in name)


def _free(wish: str, taken: set[str]) -> str:
    found, number = wish, 2
    while found.lower() in taken:
        found, number = f"{wish}_{number}", number + 1
    return found


def renamed(names: dict[str, str], subject: str) -> list[Finding]:
    """One finding that says which columns have another name in the product; none where all keep theirs."""
    changed = [f"{old!r} to {new}" for old, new in names.items() if old != new]
    if not changed:
        return []
    more = f" and {len(changed) - _LISTED} more" if len(changed) > _LISTED else ""
    return [
        Finding(
            "warn",
            "column_names",
            subject,
            "columns whose names galbatch uses itself, or that formats cannot tell apart, are renamed in the "
            f"product: {', '.join(changed[:_LISTED])}{more}",
            "Nothing has to be done; for other names, rename them in the catalogue.",
        )
    ]
