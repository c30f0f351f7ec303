"""How things are shown to a person: a number with its noun, a long list by its first few, and what an object
shows of itself in a notebook, a small table of facts. No text of a user becomes markup there."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def count(n: int, noun: str) -> str:
    """'1 batch', '2 batches'."""
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith(('ch', 's')) else 's'}"


def first_few(texts: list[str], n: int = 8) -> str:
    """The first ``n`` of a list in words, and how many more there are."""
    return ", ".join(texts[:n]) + (f" and {len(texts) - n} more" if len(texts) > n else "")


def html_table(title: str, facts: Mapping[str, object]) -> str:
    """HTML of ``title`` and a row per fact, all of it escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(str(name))}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<div><strong>{escape(title)}</strong><table>{rows}</table></div>"
