"""Units, UCDs and descriptions of a catalogue's columns, from Arrow field metadata or astropy's
``table_meta_yaml``."""

from __future__ import annotations

import pyarrow as pa
import yaml


def column_metadata(schema: pa.Schema) -> dict[str, dict[str, str]]:
    """{column: {"unit", "ucd", "description"}}, only what is there; damaged metadata counts as none."""
    out: dict[str, dict[str, str]] = {}
    for entry in _astropy_entries(schema):
        name = entry.get("name")
        known = {k: str(entry[k]) for k in ("unit", "description") if entry.get(k) is not None}
        if name in schema.names and known:
            out[name] = known
    for field in schema:
        for key in ("unit", "ucd", "description"):
            value = (field.metadata or {}).get(key.encode())
            if value:
                out.setdefault(field.name, {})[key] = value.decode("utf-8", "replace")
    return out


def _astropy_entries(schema: pa.Schema) -> list[dict]:
    text = (schema.metadata or {}).get(b"table_meta_yaml")
    if not text:
        return []
    try:
        table = yaml.load(text.decode("utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        return []
    entries = table.get("datatype") if isinstance(table, dict) else None
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


class _Loader(yaml.SafeLoader):
    """Plain values only; astropy's own tags (units, ordered maps) become their text."""


def _text(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.MappingNode):
        return str(loader.construct_mapping(node).get("unit", ""))
    return None


_Loader.add_multi_constructor("", _text)
