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


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Identity of an input file: size, mtime, and BLAKE2b of size and of its first and last MiB.

    URLs (with a scheme) are recorded by name only. Raises ``InputError`` when a local file cannot be read.
    """
    text = str(path)
    if "://" in text:
        return {"path": text}
    file = Path(text.split("[", 1)[0]).absolute() if not Path(text).exists() else Path(text).absolute()
    try:
        stat = os.stat(file)
        if file.is_dir():
            return {"path": str(file), "size": 0, "mtime_ns": 0, "hash": _folder_hash(file)}
        with open(file, "rb") as handle:
            digest = hashlib.blake2b(str(stat.st_size).encode(), digest_size=16)
            digest.update(handle.read(_EDGE))
            if stat.st_size > 2 * _EDGE:
                handle.seek(-_EDGE, os.SEEK_END)
            digest.update(handle.read(_EDGE))
    except OSError as err:
        raise InputError(
            f"{file}: cannot be read ({err.strerror}). Check the path and its permissions."
        ) from err
    return {"path": str(file), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "hash": digest.hexdigest()}


def _folder_hash(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + fingerprint(file)["hash"].encode())
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
        return json.loads(paths.manifest.read_text())
    except FileNotFoundError as err:
        raise RunError(
            f"{paths.root}: no manifest.json, so this is not a run folder. "
            "Give the folder that `galbatch process` made."
        ) from err
    except ValueError as err:
        raise RunError(
            f"{paths.manifest}: not valid JSON ({err}). The folder is damaged: start again with --overwrite."
        ) from err


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
    for key in ("sha256", "calibration"):
        if (before := old.get("model", {}).get(key)) != (after := new.get("model", {}).get(key)):
            lines.append(f"model: {key} was {before}, is {after}")
    return lines


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
