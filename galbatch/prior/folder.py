"""The folder of a model: what its name stands for, what is in it, and that all of it belongs together.

It has ``model.safetensors`` and ``card.json`` and may have ``joint.safetensors`` (what lets it see several
bands together), ``model.ts`` (TorchScript) or ``model.pt2``. Nothing pickled is loaded; weights that do not
have the hash on the card are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from galbatch.errors import ModelError
from galbatch.prior.card import Card, load_state, save_state
from galbatch.prior.network import Denoiser, NetworkConfig, is_joint

MODELS = Path(__file__).parent / "models"
NAMES = ("small", "base")  # from the cheapest to the dearest
SHIPPED = MODELS / "small"
WEIGHTS, JOINT, CARD = "model.safetensors", "joint.safetensors", "card.json"
CALIBRATION = "calibration.json"
STEPS = "0032"  # the decision that gave the sampler's modes the steps that they have


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
    return model


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


def load_calibration(folder: Path, card: Card) -> dict[str, dict]:
    """Sampler mode -> table of a model folder's ``calibration.json``; {} without one.

    Raises ``ModelError`` when it cannot be read or belongs to other weights.
    """
    path = Path(folder) / CALIBRATION
    if not path.is_file():
        return {}
    remedy = "make it again (galbatch model calibrate) or remove it."
    try:
        found = json.loads(path.read_text())
        sha256, modes = found["sha256"], found["modes"]
        mine = card.joint_sha256
        others = [mode for mode, table in modes.items() if table.get("joint_sha256", mine) != mine]
        same_steps = found.get("steps") == STEPS
    except (ValueError, KeyError, TypeError) as err:
        raise ModelError(f"{path}: not a calibration: {type(err).__name__}: {err}: {remedy}") from err
    if sha256 != card.sha256:
        raise ModelError(
            f"{path}: made for weights {sha256[:12]}..., the card's are {card.sha256[:12]}...: {remedy}"
        )
    if others:
        raise ModelError(f"{path}: mode {others[0]} was calibrated with other joint weights: {remedy}")
    if not same_steps:
        raise ModelError(f"{path}: made by another version of galbatch: {remedy}")
    return modes


def load_weights(folder: Path, card: Card) -> Denoiser:
    """The network of a model folder, its weights checked against the card's hash and shapes."""
    path = _of_the_card(Path(folder) / WEIGHTS, card.sha256)
    tensors, _ = load_state(path)
    if card.joint:
        tensors |= load_state(_of_the_card(Path(folder) / JOINT, card.joint_sha256))[0]
    model = Denoiser(NetworkConfig(**card.network), joint=bool(card.joint))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as err:
        first = str(err).splitlines()[1].strip() if len(str(err).splitlines()) > 1 else str(err)
        raise ModelError(
            f"{path}: weights do not fit the network on the card ({first}): fetch or make it again."
        ) from err
    return model


def _of_the_card(path: Path, sha256: str) -> Path:
    """``path``, when it is the file that the card names. Raises ``ModelError`` else."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file: the model folder is incomplete; fetch or make it again.")
    found = file_hash(path)
    if found != sha256:
        raise ModelError(
            f"{path}: sha256 is {found[:12]}..., its card says {sha256[:12]}...: weights and card do "
            "not belong together; fetch or make the folder again."
        )
    return path


def save_model(folder: Path, model: Denoiser, card_values: dict, half: bool = False) -> Card:
    """Write weights and card to ``folder``; the hashes and the network's own fields are filled in.

    ``half``: weights as float16, in half the space; they are loaded to float32 all the same. What makes a
    network joint is written apart, so that its single-band weights keep their bytes.
    """
    folder, tensors = Path(folder), model.state_dict()
    if half:
        tensors |= {name: p.detach().half() for name, p in model.named_parameters()}
    apart = {name: t for name, t in tensors.items() if is_joint(name)}
    save_state(folder / WEIGHTS, {name: t for name, t in tensors.items() if name not in apart}, {})
    values = {**card_values, "sha256": file_hash(folder / WEIGHTS)}
    if apart:
        save_state(folder / JOINT, apart, {})
        values["joint_sha256"] = file_hash(folder / JOINT)
    card = Card(**values)
    card.save(folder / CARD)
    return card


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def folder_files(path: Path | str = "auto") -> dict[str, str]:
    """Name -> SHA-256 of everything that decides what a model does: weights, card, calibration of its
    folder."""
    folder = model_folder(path)
    names = sorted(n for n in (WEIGHTS, JOINT, CARD, CALIBRATION) if (folder / n).is_file())
    return {name: file_hash(folder / name) for name in names}
