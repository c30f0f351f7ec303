"""``manifest.json``: from what and with what a run was made, so that a resumed run can be held to it."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tomli_w

from galbatch.errors import InputError, RunError
from galbatch.store.bucket import BucketPath
from galbatch.store.layout import StoreLayout
from galbatch.store.paths import MARKER, RunPaths, write_atomic

_PACKAGES = "galbatch numpy scipy torch zarr numcodecs pyarrow numba astropy dask distributed".split()
_EDGE = 1 << 20
SMALL = 64 << 20  # bytes up to which a file is read through each time
LARGE = 2 << 30  # bytes up to which it is read through once


def fingerprint(
    path: str | Path, whole: bool = False, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Identity of an input file: size, mtime, BLAKE2b of size and of its first and last MiB (``hash``), and
    of all of it (``content``).

    ``content`` is None for files beyond ``LARGE`` unless ``whole``, and taken from ``before``, the identity
    of an earlier moment, where the file is not small and has the same size and mtime. URLs (with a scheme)
    are recorded by name only. Raises ``InputError`` when a local file cannot be read.
    """
    text = str(path)
    if "://" in text:
        return {"path": text}
    file = Path(text.split("[", 1)[0]).absolute() if not Path(text).exists() else Path(text).absolute()
    try:
        stat = os.stat(file)
        if file.is_dir():
            return {"path": str(file), "size": 0, "mtime_ns": 0, "hash": _folder_hash(file)}
        found = {"path": str(file), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "hash": _edges(file)}
        if whole or stat.st_size <= SMALL:
            return found | {"content": _content(file)}
        if before and all(before.get(k) == found[k] for k in ("size", "mtime_ns", "hash")):
            return found | {"content": before.get("content")}
        return found | {"content": _content(file) if stat.st_size <= LARGE else None}
    except OSError as err:
        raise InputError(
            f"{file}: cannot be read ({err.strerror}). Check the path and its permissions."
        ) from err


def _edges(file: Path) -> str:
    size = os.stat(file).st_size
    with open(file, "rb") as handle:
        digest = hashlib.blake2b(str(size).encode(), digest_size=16)
        digest.update(handle.read(_EDGE))
        if size > 2 * _EDGE:
            handle.seek(-_EDGE, os.SEEK_END)
        digest.update(handle.read(_EDGE))
    return digest.hexdigest()


def _content(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _folder_hash(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + _content(file).encode())
    return digest.hexdigest()


def hash_json(data: Any) -> str:
    """Short stable hash of JSON-able data."""
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes and of what writes."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def dump_toml(data: dict[str, Any]) -> str:
    """TOML text of nested dicts, lists, strings, numbers and booleans. ``None`` has no TOML form and is left
    out."""
    return tomli_w.dumps(_said(json.loads(json.dumps(data, default=str))))


def _said(value: Any) -> Any:
    """The value without what is None in it."""
    if isinstance(value, dict):
        return {k: _said(v) for k, v in value.items() if v is not None}
    return [_said(v) for v in value] if isinstance(value, list) else value


def write_manifest(paths: RunPaths, manifest: dict[str, Any]) -> None:
    """Write ``manifest.json`` atomically, with the hash of all else in it, and then its copy."""
    record = json.loads(json.dumps(manifest, default=str))
    record["hash"] = hash_json({k: v for k, v in record.items() if k != "hash"})
    data = (json.dumps(record, indent=1) + "\n").encode()
    write_atomic(paths.manifest, data)
    write_atomic(paths.manifest_copy, data)


def read_valid(path: Path) -> dict[str, Any] | None:
    """The manifest in a file if it is whole: its hash is right. Else None."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not _is_manifest(record) or not record.get("config"):
        return None
    found = hash_json({k: v for k, v in record.items() if k != "hash"})
    return record if record.get("hash") == found else None


def restore_manifest(paths: RunPaths) -> str:
    """Put the copy in place of a manifest that is missing or damaged, or make the copy anew; returns what was
    done in words, '' for nothing."""
    whole = [read_valid(path) is not None for path in (paths.manifest, paths.manifest_copy)]
    if whole == [False, True]:
        write_atomic(paths.manifest, paths.manifest_copy.read_bytes())
        return f"{paths.manifest}: put back from {paths.manifest_copy.name}"
    if whole == [True, False]:
        write_atomic(paths.manifest_copy, paths.manifest.read_bytes())
        return f"{paths.manifest_copy}: made again from {paths.manifest.name}"
    return ""


def check_manifest(paths: RunPaths) -> list[str]:
    """One line per problem of the manifest and its copy, with what to do."""
    good, copy = read_valid(paths.manifest), read_valid(paths.manifest_copy)
    state = "missing" if not paths.manifest.exists() else "damaged or edited"
    if good is None and copy is not None:
        return [f"{paths.manifest}: {state}. Its copy is whole: `galbatch verify --repair {paths.quoted}`."]
    if good is None:
        return [
            f"{paths.manifest}: {state}, and so is its copy {paths.manifest_copy.name}. Put one back from a "
            "backup; the catalogue and the draws that are there can still be read."
        ]
    if copy is None:
        state = "missing" if not paths.manifest_copy.exists() else "damaged or edited"
        return [f"{paths.manifest_copy}: {state}. Make it again: `galbatch verify --repair {paths.quoted}`."]
    if copy != good:
        return [
            f"{paths.manifest_copy}: is the copy of another manifest. Delete it, then "
            f"`galbatch verify --repair {paths.quoted}`."
        ]
    return []


def read_manifest(paths: RunPaths) -> dict[str, Any]:
    """The manifest. Raises ``RunError`` when the folder is not a run."""
    copy = read_valid(paths.manifest_copy) is not None
    remedy = (
        f"Put its copy back: galbatch verify --repair {paths.quoted}"
        if copy
        else "Copy it back, or start again with --overwrite."
    )
    try:
        manifest = json.loads(paths.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise RunError(_no_manifest(paths, remedy if copy else "")) from err
    except (ValueError, OSError, RecursionError) as err:
        raise RunError(f"{paths.manifest}: not valid JSON ({err}). The folder is damaged. {remedy}") from err
    if not _is_manifest(manifest):
        raise RunError(
            f"{paths.manifest}: not the manifest of a run (it begins {str(manifest)[:40]!r}). {remedy}"
        )
    return manifest


def _no_manifest(paths: RunPaths, remedy: str) -> str:
    """Why there is no manifest, and what to do."""
    if remedy:
        return f"{paths.manifest}: missing. {remedy}"
    in_bucket = isinstance(paths.root, BucketPath)
    beside = () if in_bucket else paths.root.parent.glob(glob.escape(paths.root.name) + ".old-*")
    if not paths.root.exists() and any((folder / MARKER).exists() for folder in beside):
        return (
            f"{paths.root}: was being replaced (--overwrite) when it was stopped. "
            f"Put a whole run there: galbatch resume {paths.quoted}"
        )
    if (paths.root / MARKER).exists() and paths.committed():
        return (
            f"{paths.manifest}: missing, and so is its copy {paths.manifest_copy.name}. Put one back from a "
            "backup."
        )
    return (
        f"{paths.root}: no manifest.json, so this is not a run folder. "
        "Give the folder that `galbatch process` made."
    )


def _is_manifest(record: Any) -> bool:
    """Has it the form of a manifest?"""
    parts = {"config": dict, "model": dict, "layout": dict, "columns": dict, "inputs": list}
    if not isinstance(record, dict):
        return False
    if not all(isinstance(record.get(name, kind()), kind) for name, kind in parts.items()):
        return False
    return all(isinstance(i, dict) and "path" in i for i in record.get("inputs", []))


def layout_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two manifests of the form in which results are stored: one line per setting. With
    such a change a run cannot go on in its folder."""
    was, now = old.get("layout", {}), json.loads(json.dumps(new.get("layout", {})))
    both = [k for k in StoreLayout.__dataclass_fields__ if k in was and k in now]
    return _compare("stored", {k: was[k] for k in both}, {k: now[k] for k in both})


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two manifests that would change results: one line per configuration key or
    input."""
    lines = _compare("configuration", _flat(old.get("config", {})), _flat(new.get("config", {})))
    old_in = {i["path"]: i for i in old.get("inputs", [])}
    new_in = {i["path"]: i for i in new.get("inputs", [])}
    for path in sorted({*old_in, *new_in}):
        before, after = old_in.get(path), new_in.get(path)
        if before is None or after is None:
            lines.append(f"input {path}: {'new' if before is None else 'no longer used'}")
        elif (before.get("size"), before.get("hash")) != (after.get("size"), after.get("hash")):
            lines.append(
                f"input {path}: was {before.get('size')} bytes, hash {before.get('hash')}; "
                f"is {after.get('size')} bytes, hash {after.get('hash')}"
            )
        elif changed := _content_changed(before, after):
            lines.append(f"input {path}: {changed}")
    return lines + _model_differences(old.get("model", {}), new.get("model", {}))


def _content_changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What changed between two identities of one file with equal size and ends; '' for nothing."""
    was, now = before.get("content"), after.get("content")
    if was and now:
        return "" if was == now else f"its content changed: hash was {was}, is {now}"
    if before.get("mtime_ns") == after.get("mtime_ns"):
        return ""
    return (
        f"was modified (time {before.get('mtime_ns')} ns, now {after.get('mtime_ns')} ns), and is too large "
        "for its content to have been recorded. If you know it to be the same, set its time back: touch -d"
    )


def _model_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line per file of the model folder that changed, else per field of the model's identity."""
    was, now = old.get("files") or {}, new.get("files") or {}
    missing = "(no such file)"
    lines = [
        f"model {new.get('path') or old.get('path')}/{name}: hash was {was.get(name, missing)}, "
        f"is {now.get(name, missing)}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]
    if was and now and lines:
        return lines
    keys = ("sha256", "calibration", *(("hash",) if was and now else ()))
    return [f"model: {k} was {old.get(k)}, is {new.get(k)}" for k in keys if old.get(k) != new.get(k)]


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    items: Iterable[tuple[str, Any]]
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        items = ((str(n), v) for n, v in enumerate(data))
    else:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _compare(what: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    missing = "(not set)"
    return [
        f"{what} {key}: was {old.get(key, missing)}, is {new.get(key, missing)}"
        for key in sorted({*old, *new})
        if old.get(key, missing) != new.get(key, missing)
    ]
