"""Write plain data as TOML, so that the resolved configuration of a run can be read back with ``tomllib``."""

from __future__ import annotations

import json
from typing import Any


def dump_toml(data: dict[str, Any]) -> str:
    """TOML text of nested dicts, lists, strings, numbers and booleans. ``None`` has no TOML form and is left
    out."""
    return "\n".join(_table(data, ())) + "\n"


def _table(data: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in data.items() if v is not None and not _is_table(v)}
    lines = [f"{_key(k)} = {_value(v)}" for k, v in plain.items()]
    if path and (lines or not data):
        lines.insert(0, "[" + ".".join(map(_key, path)) + "]")
    for name, value in data.items():
        if isinstance(value, dict):
            lines += ["", *_table(value, (*path, name))] if lines else _table(value, (*path, name))
        elif _is_table(value):
            for item in value:
                head = "[[" + ".".join(map(_key, (*path, name))) + "]]"
                lines += ["", head, *_inline_items(item)]
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(v, dict) for v in value)
    )


def _inline_items(item: dict[str, Any]) -> list[str]:
    return [f"{_key(k)} = {_value(v)}" for k, v in item.items() if v is not None]


def _key(key: str) -> str:
    plain = str(key).replace("_", "").replace("-", "")
    return str(key) if plain.isascii() and plain.isalnum() else json.dumps(str(key))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))  # inf and nan read the same in TOML
    if isinstance(value, dict):
        return "{" + ", ".join(_inline_items(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)
