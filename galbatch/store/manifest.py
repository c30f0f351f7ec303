"""``manifest.json``: from what and with what a run was made, so that a resumed run can be held to it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from galbatch.errors import InputError, RunError
from galbatch.store.paths import RunPaths, write_atomic

_PACKAGES = (
    "galbatch",
    "numpy",
    "scipy",
    "torch",
    "zarr",
    "numcodecs",
    "pyarrow",
    "numba",
    "astropy",
    "dask",
    "distributed",
)
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


def write_manifest(paths: RunPaths, manifest: dict[str, Any]) -> None:
    """Write ``manifest.json`` atomically."""
    write_atomic(paths.manifest, (json.dumps(manifest, indent=1, default=str) + "\n").encode())


def read_manifest(paths: RunPaths) -> dict[str, Any]:
    """The manifest. Raises ``RunError`` when the folder is not a run."""
    try:
        manifest = json.loads(paths.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise RunError(
            f"{paths.root}: no manifest.json, so this is not a run folder. "
            "Give the folder that `galbatch process` made."
        ) from err
    except (ValueError, OSError) as err:
        raise RunError(
            f"{paths.manifest}: not valid JSON ({err}). The folder is damaged: start again with --overwrite."
        ) from err
    parts = {"config": dict, "model": dict, "layout": dict, "columns": dict, "inputs": list}
    good = isinstance(manifest, dict) and all(
        isinstance(manifest.get(name, kind()), kind) for name, kind in parts.items()
    )
    if not good or not all(isinstance(i, dict) and "path" in i for i in manifest.get("inputs", [])):
        raise RunError(
            f"{paths.manifest}: not the manifest of a run (it begins {str(manifest)[:40]!r}). Copy it back, "
            "or start again with --overwrite."
        )
    return manifest


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
        f"model {new.get('folder') or old.get('folder')}/{name}: hash was {was.get(name, missing)}, "
        f"is {now.get(name, missing)}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]
    if was and now and lines:
        return lines
    keys = ("sha256", "calibration", *(("hash",) if was and now else ()))
    return [f"model: {k} was {old.get(k)}, is {new.get(k)}" for k in keys if old.get(k) != new.get(k)]


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
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
