"""What names stand for: 'auto', 'small' and 'base' for the shipped networks, 'auto' for a device.

The one place that knows.
"""

from __future__ import annotations

from pathlib import Path

import torch

from galbatch.errors import ModelError

MODELS = Path(__file__).parent / "models"
NAMES = ("small", "base")  # from the cheapest to the dearest
_BEFORE_NAMES = {"": "small"}  # as runs have it that began when there was one network


def choose_device(device: str = "auto") -> torch.device:
    """The device of a name; 'auto' is the GPU if there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def choose_model(model: Path | str | None = "auto", device: str = "auto") -> Path | str:
    """What ``model`` stands for when it is computed on ``device``: for 'auto' or None the name of a shipped
    network, 'base' where the device is a CUDA card, else 'small'; any other name or path as it is."""
    if model is None or model == "auto":
        return "base" if choose_device(device).type == "cuda" else "small"
    return _BEFORE_NAMES.get(model, model) if isinstance(model, str) else model


def model_folder(model: Path | str | None = "auto", device: str = "auto") -> Path:
    """The folder of a model: of 'auto', 'small', 'base', or the path of one. A folder of your own with such
    a name is given as ``./base``. Raises ``ModelError`` where there is none."""
    name = choose_model(model, device)
    folder = MODELS / name if name in NAMES else Path(name).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"{name}: no such model folder: give auto, {', '.join(NAMES)}, or a folder with "
            "model.safetensors and card.json (galbatch train makes one)."
        )
    return folder
