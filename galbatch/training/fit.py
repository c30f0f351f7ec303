"""``galbatch train``: from a configuration file to a trained network, resumable.

The output folder holds ``library-train.npz`` and ``library-held-out.npz`` (prepared images),
``checkpoint.safetensors``, ``log.jsonl`` and ``curve.png`` (the learning curve) and, in the end, ``model/``:
the model folder.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from galbatch.errors import ConfigError, ModelError
from galbatch.prior.card import Card, writing
from galbatch.prior.folder import CARD, MODELS, NAMES, SHIPPED, load_weights
from galbatch.prior.network import NetworkConfig
from galbatch.training.cubes import CubeLibrary, CubeSource, read_cubes
from galbatch.training.held_out import HeldOutLoss, JointLoss
from galbatch.training.library import Library
from galbatch.training.plan import TrainConfig
from galbatch.training.sources import DataConfig, build_libraries, read_sources
from galbatch.training.stamps import StampConfig, StampSource
from galbatch.training.trainer import Trainer, process_group

LIBRARIES = ("library-train.npz", "library-held-out.npz")


@dataclass(frozen=True)
class FitConfig:
    """The tables of a training configuration; ``data`` has one entry per ``[[data]]`` table."""

    network: NetworkConfig
    stamps: StampConfig
    training: TrainConfig
    data: tuple[DataConfig, ...]
    base: Path
    name: str
    card: dict = field(default_factory=dict)


def load_config(path: Path, base: Path | None = None) -> FitConfig:
    """Read and check a TOML file. File patterns in it are relative to ``base``, its own folder when None.

    Raises ``ConfigError`` naming the file, the table and the key.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file: give the path of a training configuration (TOML).")
    try:
        table = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: not valid TOML: {err}.") from err
    unknown = set(table) - {"network", "stamps", "training", "data", "name", "card"}
    unknown |= {f"card.{key}" for key in set(table.get("card", {})) - {"limits"}}
    if unknown:
        raise ConfigError(
            f"{path}: unknown tables {sorted(unknown)}: known are network, stamps, training, data, name, "
            "card.limits."
        )
    if not table.get("data"):
        raise ConfigError(f"{path}: no [[data]] table: say at least one origin and its files.")
    made = {
        name: _make(kind, table.get(name, {}), f"{path} [{name}]")
        for name, kind in (("network", NetworkConfig), ("stamps", StampConfig), ("training", TrainConfig))
    }
    data = tuple(_make(DataConfig, entry, f"{path} [[data]]") for entry in table["data"])
    return FitConfig(
        **made,
        data=data,
        base=Path(base) if base is not None else path.parent,
        name=str(table.get("name", path.stem)),
        card=table.get("card", {}),
    )


def _make(kind: type, values: dict[str, Any], where: str) -> Any:
    known = {f.name for f in fields(kind)}
    unknown = set(values) - known
    if unknown:
        raise ConfigError(f"{where}: unknown keys {sorted(unknown)}: known are {sorted(known)}.")
    try:
        return kind(**values)
    except TypeError as err:
        raise ConfigError(f"{where}: {err}.") from err


def prepare_sources(
    config: FitConfig, folder: Path, rank: int = 0, world: int = 1
) -> tuple[StampSource, StampSource]:
    """Sources of (training, held-out) stamps, their libraries made once by the first process and read by
    all."""
    paths = [folder / name for name in LIBRARIES]
    if rank == 0 and not all(p.is_file() for p in paths):
        made_of: Any = (read_cubes, CubeLibrary) if config.training.bands else (read_sources, Library)
        for library, path in zip(
            build_libraries(config.data, config.base, 128, *made_of), paths, strict=True
        ):
            with writing(path) as partial:
                library.save(partial)
    if world > 1:
        dist.barrier()
    return source_of(config, paths[0]), source_of(config, paths[1])


def source_of(config: FitConfig, path: Path) -> StampSource:
    """What draws the stamps of a training from a library of its folder."""
    if config.training.bands:
        return CubeSource(CubeLibrary.load(path), config.stamps)
    return StampSource(Library.load(path), config.stamps)


def fit(
    config: FitConfig,
    folder: Path,
    report: Callable[[dict], None] | None = None,
    stop_after: int | None = None,
) -> Trainer:
    """Train, or go on training, in ``folder``; returns the trainer at its end (or after ``stop_after`` more
    steps).

    ``report`` is called after every step with what is logged. Raises ``ConfigError`` or ``ModelError``.
    """
    rank, world, device = process_group()
    folder = Path(folder)
    train, held = prepare_sources(config, folder, rank, world)
    trainer = Trainer(config.network, config.training, train, folder, device, rank, world)
    if config.training.start:
        trainer.start_from(load_weights(*starting_model(config)))
    if (folder / "checkpoint.safetensors").is_file():
        trainer.load()
    validation = JointLoss(held) if isinstance(held, CubeSource) else HeldOutLoss(held.draw(96, 72, (99,)))
    return run(trainer, validation, report, stop_after)


def run(
    trainer: Trainer,
    validation: HeldOutLoss | JointLoss,
    report: Callable[[dict], None] | None = None,
    stop_after: int | None = None,
) -> Trainer:
    """Train to the end, or for ``stop_after`` more steps, with a learning curve and checkpoints on the
    way."""
    config, rank = trainer.config, trainer.rank
    saved, begun = time.monotonic(), trainer.step
    curve = Curve(trainer.folder, begun) if rank == 0 else None
    while trainer.progress() < 1 and (stop_after is None or trainer.step - begun < stop_after):
        entry = trainer.train_step()
        if curve is not None:
            if trainer.step % config.validate_every == 0:
                entry["held_out"] = validate(trainer, validation)
            curve(entry)
            if report:
                report(entry)
            if time.monotonic() - saved > config.checkpoint_every_s:
                trainer.save()
                saved = time.monotonic()
    if rank == 0:
        trainer.save()
    return trainer


def starting_model(config: FitConfig) -> tuple[Path, Card]:
    """Folder and card of the model that training starts from. Raises ``ModelError`` when its network is
    another."""
    start = config.training.start
    known = {"shipped": SHIPPED} | {name: MODELS / name for name in NAMES}
    folder = known.get(str(start)) or config.base / Path(str(start)).expanduser()
    card = Card.load(folder / CARD)
    wanted = json.loads(json.dumps(config.network.to_dict()))
    if card.network != wanted:
        raise ModelError(
            f"{folder}: network {card.network}, the configuration asks for {wanted}: training can only start "
            "from weights of the same network; change [network] or remove training.start."
        )
    return folder, card


def validate(trainer: Trainer, validation: HeldOutLoss | JointLoss) -> dict[str, float]:
    """Held-out loss by noise level, and number of bands, of the shorter average."""
    width = str(trainer.config.ema[0])
    own = [p.detach().clone() for p in trainer.params]
    with torch.no_grad():
        for p, average in zip(trainer.params, trainer.ema[width], strict=True):
            p.copy_(average)
        try:
            return validation(lambda *inputs: trainer.model(*(t.to(trainer.device) for t in inputs)).cpu())
        finally:
            for p, value in zip(trainer.params, own, strict=True):
                p.copy_(value)


class Curve:
    """The learning curve of a training that goes on from ``step``: ``log.jsonl``, a line every 20 steps and
    at every check of the held-out loss, and ``curve.png``, drawn anew at every check."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.jsonl"
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        self.path.write_text("".join(line + "\n" for line in lines if json.loads(line)["step"] <= step))

    def __call__(self, entry: dict[str, Any]) -> None:
        if entry["step"] % 20 == 0 or "held_out" in entry:
            with self.path.open("a") as f:
                f.write(json.dumps(entry) + "\n")
        if "held_out" in entry:
            self.draw()

    def draw(self) -> None:
        """``curve.png``: held-out error in units of sigma^2, by noise level, against steps."""
        from matplotlib.figure import Figure

        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        checks = [line for line in lines if "held_out" in line]
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axis = figure.subplots()
        for name in checks[-1]["held_out"]:
            points = [(line["step"], line["held_out"][name]) for line in checks if name in line["held_out"]]
            axis.semilogy(*zip(*points, strict=True), label=name, marker=".", lw=1)
        axis.set(xlabel="step", ylabel="held-out error / $\\sigma^2$")
        axis.legend(title="$\\sigma$", fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        axis.grid(alpha=0.3)
        with writing(self.path.with_name("curve.png")) as partial:
            figure.savefig(partial, dpi=110, format="png")
