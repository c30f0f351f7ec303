"""The settings of a run: what the user may choose, checked once, and what of it decides the results."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from galbatch.errors import ConfigError

MODES = ("fast", "default", "accurate")
PRECISIONS = ("auto", "float32", "bfloat16")
CLUSTERS = ("auto", "none", "local", "cuda")
SAMPLES = ("stored", "regenerate", "none")
MAX_BATCH = 64


@dataclass(frozen=True)
class RunSettings:
    """What decides the results of a run. Saved with it; a resumed run must have the same.

    ``catalog``, ``survey``: paths; ``model``: a folder, 'small', 'base', or 'auto': base with a CUDA card,
    else small; ``bands`` () for all; ``stamp_pix``: detector pixels of the finest band (0: from
    ``stamp_arcsec`` or the survey file);
    ``batch``: sources per batch (0: by the size of the catalogue); ``limit``: first rows only (0: all).
    ``samples``: the draws are 'stored'; or made again from their seeds when they are asked for
    ('regenerate': a hash of them is kept); or 'none'. ``draw_columns``: list columns with the statistics of
    every draw. ``precision``: what the network
    computes in; 'auto': bfloat16 if the hardware supports it. ``joint``: all bands of a source sampled
    together; None: where the model can and is better so.
    """

    catalog: str
    survey: str
    bands: tuple[str, ...] = ()
    draws: int = 16
    mode: str = "default"
    oversample: int = 1
    stamp_arcsec: float = 0.0
    stamp_pix: int = 0
    model: str = "auto"
    seed: int = 0
    limit: int = 0
    batch: int = 0
    samples: str = "stored"
    draw_columns: bool = False
    precision: str = "auto"
    joint: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(self.bands))
        _choice("mode", self.mode, MODES)
        _choice("precision", self.precision, PRECISIONS)
        _choice("samples", self.samples, SAMPLES)
        for name, least in (("draws", 2), ("oversample", 1), ("batch", 0), ("limit", 0), ("stamp_pix", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} is {value!r}: it must be an integer of at least {least}.")
        if not 0 <= self.seed < 1 << 47:
            raise ConfigError(f"seed is {self.seed}: it must be at least 0 and below 2^47.")
        if not (math.isfinite(self.stamp_arcsec) and self.stamp_arcsec >= 0):
            raise ConfigError(f"stamp_arcsec is {self.stamp_arcsec}: it must be positive.")
        if self.stamp_arcsec and self.stamp_pix:
            raise ConfigError(
                f"stamp_arcsec is {self.stamp_arcsec} and stamp_pix is {self.stamp_pix}: give one."
            )

    def record(self) -> dict[str, Any]:
        """As plain data, for TOML and JSON."""
        return asdict(self) | {"bands": list(self.bands)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> RunSettings:
        """From plain data. Raises ``ConfigError`` for a key that no setting has."""
        unknown = sorted(set(record) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(
                f"Unknown settings {', '.join(unknown)}: the run was made with another version of "
                "galbatch. Resume it with that version."
            )
        return cls(**record)


@dataclass(frozen=True)
class ExecutionSettings:
    """Where and how a run is carried out. Nothing here changes a result.

    ``workers`` 0 for as many as fit; ``max_workers``: Dask starts and ends workers between ``workers`` and
    this as there is work (0: their number is fixed); ``threads`` a process computes with; ``grace_s``: how
    long running batches may take to end after a signal; ``allowed_failures``: worker deaths after which a
    batch is searched for the source that kills; ``update``: folder of an earlier run, from which sources are
    taken over of which nothing changed.
    """

    cluster: str = "auto"
    scheduler: str = ""
    scheduler_file: str = ""
    workers: int = 0
    max_workers: int = 0
    threads: int = 1
    retries: int = 2
    allowed_failures: int = 3
    grace_s: float = 10.0
    dashboard: str = ":0"
    report: bool = True
    update: str = ""

    def __post_init__(self) -> None:
        _choice("cluster", self.cluster, CLUSTERS)
        if self.scheduler and self.scheduler_file:
            raise ConfigError(
                f"scheduler is {self.scheduler} and scheduler_file is {self.scheduler_file}: give one."
            )
        if (self.scheduler or self.scheduler_file) and self.cluster == "none":
            raise ConfigError("cluster is none, but a scheduler is given: leave one of the two out.")
        if self.workers < 0 or self.threads < 1:
            raise ConfigError(
                f"workers is {self.workers} and threads is {self.threads}: workers must be at least 0 "
                "(0 = as many as fit), threads at least 1."
            )
        if not self.max_workers:
            return
        what = f"workers is {self.workers}:{self.max_workers}"
        if self.max_workers < max(1, self.workers) or self.cluster == "none":
            raise ConfigError(
                f"{what}, cluster {self.cluster}: give LEAST:MOST, LEAST not above MOST, and a cluster."
            )
        if self.scheduler or self.scheduler_file:
            raise ConfigError(
                f"{what}, but the cluster of a given scheduler scales itself: give the least number."
            )


def default_batch(n_rows: int) -> int:
    """Sources per batch when none is chosen: a power of two that leaves about 12 batches, at most 64.

    It depends on the catalogue only, never on the machine, so that a run has the same files everywhere.
    """
    wanted = max(1, min(MAX_BATCH, math.ceil(n_rows / 12)))
    return 1 << (wanted - 1).bit_length()


def survey_beside(catalog: str | Path) -> Path:
    """``<catalogue stem>.toml`` beside the catalogue. Raises ``ConfigError`` when either is not there."""
    if "://" in str(catalog):
        raise ConfigError(f"{catalog} is no local file: name the survey file with --survey.")
    if not Path(catalog).exists():
        raise ConfigError(f"Catalogue {Path(catalog).absolute()} does not exist. Check the path.")
    path = Path(catalog).absolute().with_suffix(".toml")
    if not path.exists():
        raise ConfigError(
            f"{path}: no survey file beside the catalogue. Write one, or name it with --survey. `galbatch "
            "init FOLDER` proposes one from FITS files."
        )
    return path


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}.")
