"""``galbatch flags``: what flag bits mean."""

from __future__ import annotations

import json
from typing import Any

import click

from galbatch.display import count


@click.command("flags")
@click.argument("number", metavar="[N|NAME]", required=False)
@click.option("-m", "--morphology", is_flag=True, help="N is from a morph_flags column, not from flags.")
@click.option("--json", "as_json", is_flag=True, help="The bits as JSON.")
def command(number: Any, morphology: bool, as_json: bool) -> int:
    """Say what the bits of N mean, how bad each is and what to do: a value of the column flags or
    flags_BAND, or with --morphology of a column morph_flags_BAND; or what the flag NAME means. Without
    either, list every bit.

    info changes nothing; caution makes the source quality 1; bad makes it quality 2: do not use it.

    \b
    galbatch flags 163840
    galbatch flags NOISE_LEVEL,BLENDED_SEG
    galbatch flags --morphology 0x800
    """
    tables = {"flags": registry(False), "morph_flags": registry(True)}
    value = None if number is None else parse(number, tables["morph_flags" if morphology else "flags"])
    if value is not None or morphology:
        name = "morph_flags" if morphology else "flags"
        tables = {name: tables[name] if value is None else decode(value, tables[name])}
    if as_json:
        click.echo(json.dumps(tables, indent=1))
        return 0
    for name, rows in tables.items():
        click.echo(
            f"{name}:"
            if value is None
            else f"{name} = {value}: {count(len(rows), 'bit') if rows else 'no bits'}"
        )
        for row in rows:
            level = row.get("level") or row.get("severity", "")
            click.echo(
                f"  {row['bit']:>2}  {row['value']:>12}  {row['name']:<22} {level:<8} {row['description']}"
            )
            if value is not None and row.get("remedy"):
                click.echo(f"      What to do: {row['remedy']}.")
    return 0


def parse(number: str, rows: list[dict]) -> int:
    """The flag value that a user typed: decimal, 0x hexadecimal, 0b binary, a float column's ``2048.0``, or
    names of flags in ``rows``, parted by commas."""
    from galbatch.errors import InputError

    known = {row["name"]: row["value"] for row in rows}
    named = {name.strip().upper() for name in number.split(",")}
    if named <= known.keys():
        return sum(known[name] for name in named)
    text = number.strip().replace("_", "")
    try:
        value = int(text[:-2] if text.endswith(".0") else text, 0)
    except ValueError as error:
        raise InputError(
            f"flags: '{number}' is neither a flag value, a whole number such as 163840 or 0x28000, nor names "
            "of flags: `galbatch flags` lists them."
        ) from error
    if value < 0:
        raise InputError(f"flags: {value} is negative: flag values are sums of powers of two.")
    return value


def registry(morphology: bool) -> list[dict]:
    """Every bit: its number, value, name, description and level, with a remedy; of morphology its
    severity."""
    if not morphology:
        from galbatch.flags import FLAGS

        return [
            _row(flag, about.meaning) | {"level": about.level.name.lower(), "remedy": about.remedy}
            for flag, about in FLAGS.items()
        ]
    from galbatch.morphology import MORPH_FLAG_DESCRIPTIONS, sersic_severity, severity

    words = {0: "note", 1: "suspect", 2: "bad", 4: "nothing measured"}
    rows = []
    for flag, text in MORPH_FLAG_DESCRIPTIONS.items():
        level = max(int(severity(int(flag))), int(sersic_severity(int(flag))))
        rows.append(_row(flag, text) | {"severity": words[level]})
    return rows


def decode(value: int, rows: list[dict]) -> list[dict]:
    """The rows of the bits set in ``value``, lowest first; bits that no release has defined are named so."""
    known = {row["bit"]: row for row in rows}
    return [
        known.get(
            bit,
            {
                "bit": bit,
                "value": 1 << bit,
                "name": f"UNKNOWN_{bit}",
                "description": "not defined in this release",
            },
        )
        for bit in range(value.bit_length())
        if value >> bit & 1
    ]


def _row(flag: Any, text: str) -> dict:
    return {"bit": int(flag).bit_length() - 1, "value": int(flag), "name": flag.name, "description": text}
