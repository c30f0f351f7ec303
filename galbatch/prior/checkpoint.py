"""Tensors and a little JSON in one safetensors file, written whole or not at all. Nothing pickled is ever
read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from galbatch.errors import ModelError


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A name to write ``path`` under; it is renamed when all went well. Raises ``ModelError`` when the disk
    refuses."""
    from safetensors import SafetensorError

    path = Path(path)
    partial = path.with_name(f".partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb") as f:
            os.fsync(f.fileno())
        partial.chmod(0o644)
        os.replace(partial, path)
    except (OSError, SafetensorError) as err:
        partial.unlink(missing_ok=True)
        raise ModelError(
            f"{path}: cannot be written ({getattr(err, 'strerror', None) or err}): free space or choose "
            "another folder; what was there before is untouched."
        ) from err


def save_state(path: Path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Write ``tensors`` and ``meta`` to ``path`` by atomic rename. Raises ``ModelError`` when the disk
    refuses."""
    from safetensors.torch import save_file

    with writing(path) as partial:
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
            partial,
            metadata={"meta": json.dumps(meta)},
        )


def load_state(path: Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, meta) of ``save_state``. Raises ``ModelError`` when the file is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file: check the model folder.")
    try:
        with safe_open(path, framework="pt") as f:
            tensors = {name: f.get_tensor(name) for name in f.keys()}
            return tensors, json.loads((f.metadata() or {}).get("meta", "{}"))
    except (SafetensorError, OSError, ValueError) as err:
        raise ModelError(
            f"{path}: damaged ({path.stat().st_size} bytes: {err}): fetch or make it again."
        ) from err
