"""Units, UCDs and descriptions of a catalogue's columns, from Arrow field metadata or astropy's
``table_meta_yaml``."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import yaml

MAX_BYTES = 1 << 20  # of the text; astropy writes about 60 bytes a column
MAX_NODES = 1 << 18  # once every alias is written out


_PLAIN = (str, int, float)


def column_metadata(schema: pa.Schema) -> dict[str, dict[str, str]]:
    """{column: {"unit", "ucd", "description"}}, only what is there; metadata that is damaged, longer than
    ``MAX_BYTES`` or would grow beyond ``MAX_NODES`` counts as none."""
    out: dict[str, dict[str, str]] = {}
    for entry in _astropy_entries(schema):
        name = str(entry.get("name"))
        known = {k: str(entry[k]) for k in ("unit", "description") if isinstance(entry.get(k), _PLAIN)}
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
    if not text or len(text) > MAX_BYTES:
        return []
    try:
        table = yaml.load(text.decode("utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        return []
    entries = table.get("datatype") if isinstance(table, dict) else None
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Plain values only; astropy's own tags (units, ordered maps) become their text. Raises ``YAMLError``
    where aliases would make the document grow beyond ``MAX_NODES``, before anything is made of them."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if _written_out(node, {}) > MAX_NODES:
            raise yaml.YAMLError("its aliases expand to too many nodes")
        return node


def _written_out(node: Any, known: dict[int, float]) -> float:
    """Nodes under ``node`` with every alias written out; infinite where one holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]


def _text(loader: _Loader, suffix: str, node: yaml.Node) -> str | None:
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.MappingNode):
        unit = loader.construct_mapping(node).get("unit", "")
        return str(unit) if isinstance(unit, _PLAIN) else ""
    return None


_Loader.add_multi_constructor("", _text)
