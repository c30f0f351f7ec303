"""What a survey costs: rates measured in a finished run, multiplied; nothing that was not measured."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from galbatch.bench.timing import environment
from galbatch.config import ExecutionSettings, RunSettings, default_batch
from galbatch.errors import InputError, RunError
from galbatch.run import status
from galbatch.store import RunPaths, StoreLayout, read_manifest
from galbatch.store.layout import MADE_AGAIN

SHIPPED = Path(__file__).with_name("rates.json")
BATCHES_PER_S = 80.0  # one Dask scheduler, measured with 1,000 workers (benchmarks/throughput/scale.py)
FILES_PER_BATCH = 2  # beside one shard of each array: the part, and its entry of failures at most
BY_DRAW = ("sample", "measure", "store", "run")  # stages whose time grows with the number of draws


@dataclass(frozen=True)
class Rates:
    """Of one band of one source with ``draws`` draws of ``fine_pix`` pixels per side.

    ``seconds``: of one core ('cpu') or of one card, by stage; bytes on disk: ``draws_bytes`` of the draws,
    ``store_bytes`` of the rest of the store, ``kept_bytes`` of what of it a run keeps that makes its draws
    again, ``catalogue_bytes`` of the columns of catalogue and statistics.
    ``source``: where it was measured, and what it leaves out.
    """

    device: str
    model: str
    mode: str
    draws: int
    fine_pix: int
    seconds: dict[str, float]
    draws_bytes: float
    store_bytes: float
    catalogue_bytes: float
    source: str
    kept_bytes: float = 0.0

    def seconds_for(self, draws: int, fine_pix: int) -> float:
        """Seconds for another number of draws and size of stamps: in proportion to pixels, and to draws where
        a stage works on draws."""
        pixels = (fine_pix / self.fine_pix) ** 2
        return sum(
            s * pixels * (draws / self.draws if stage in BY_DRAW else 1.0)
            for stage, s in self.seconds.items()
        )


@dataclass(frozen=True)
class Survey:
    """What is to be done: ``planes`` images are read per band; ``stamp_pix`` detector pixels of the finest
    band a side, ``fine_pix`` pixels of the draws."""

    sources: int
    bands: int
    planes: int
    stamp_pix: int
    fine_pix: int
    draws: int
    batch: int
    arrays: int
    samples: str = "stored"


@dataclass(frozen=True)
class Prices:
    """Of one hour of one device, of a terabyte stored for a month, of a million requests."""

    device_hour: float = 0.0
    tb_month: float = 0.0
    million_requests: float = 0.0


def rates_of_run(run: str | Path) -> Rates:
    """Rates of a finished run that nobody resumed, on CPUs or on cards of one kind. Raises ``RunError``
    for any other.

    On CPUs, the batches' CPU time, split as their wall time is: a busy machine stretches only the latter.
    On cards the stages of several batches overlap: what counts is the wall clock of the run, times its cards.
    """
    found, paths = status(run), RunPaths(Path(run))
    summary = found["summary"] or {}
    if found["state"] != "finished" or not summary or summary["resumed_from"]:
        raise RunError(
            f"{run}: is {found['state']}, or was resumed: "
            "rates come from a run that went through in one piece."
        )
    manifest = read_manifest(paths)
    layout, config = StoreLayout.from_attributes(manifest["layout"]), manifest["config"]
    images = summary["draws"] / layout.draws  # bands of sources that were sampled: failed ones cost nothing
    arrays = [p for p in paths.posterior.iterdir() if p.is_dir()]
    size = {p.name: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in arrays}
    per_band = 1 / (found["planned"] * len(layout.bands))
    devices = summary.get("devices") or {"cpu": 1}
    if len(devices) > 1:
        raise RunError(f"{run}: used {', '.join(devices)}: rates come from a run on devices of one kind.")
    device, number = next(iter(devices.items()))
    if device == "cpu":
        stages = {k: v for k, v in summary["stage_seconds"].items() if k != "merge"}
        share = summary.get("cpu_s", sum(stages.values())) / max(sum(stages.values()), 1e-9)
        seconds = {k: v * share / images for k, v in stages.items()}
    else:
        seconds = {"run": summary["elapsed_s"] * number / images}
    name = environment()["name"] if device == "cpu" else device
    return Rates(
        device,
        config["model"],
        config["mode"],
        layout.draws,
        layout.common_pix * layout.oversample,
        seconds,
        size.get("samples", 0) * per_band,
        (sum(size.values()) - size.get("samples", 0)) * per_band,
        (_without_footer(paths.catalog) + _without_footer(paths.statistics)) * per_band,
        f"{found['planned']} sources on {name}, galbatch {manifest['versions']['galbatch']}",
        sum(n for array, n in size.items() if array not in MADE_AGAIN) * per_band,
    )


def find_rates(on: str, mode: str, model: str | None = None) -> tuple[Rates, int]:
    """The rates that ``on`` names and the number of devices.

    ``on``: 'cpu64' or 'h200x8' (rates in the package), a finished run, or a file that ``save_rates`` wrote,
    with ``:N`` behind it for N devices. Raises ``InputError`` where nothing was measured.
    """
    path, _, count = on.rpartition(":") if re.search(r":\d+$", on) else (on, "", "1")
    if Path(path).is_dir():
        known = [rates_of_run(path)]
    elif Path(path).is_file():
        known = _read(Path(path))
    else:
        shipped = _read(SHIPPED)
        kinds = "|".join(sorted({r.device for r in shipped}))
        named = re.fullmatch(rf"({kinds})x?(\d*)", on)
        if named is None:
            raise InputError(
                f"--on {on}: neither a finished run, nor a file of rates, nor one of the devices with rates "
                f"in the package ({kinds.replace('|', ', ')}, with a number: cpu64, h200x8). Run a few "
                "hundred sources on such a machine and give that run's folder."
            )
        known = [r for r in shipped if r.device == named[1]]
        count = named[2] or "1"
    fit = [r for r in known if r.mode == mode and model in (None, "auto", r.model)]
    if not fit:
        has = ", ".join(f"{r.model} in mode {r.mode}" for r in known)
        raise InputError(
            f"--on {on}: nothing was measured there for mode {mode}, model {model}. It has: {has}. "
            "Give a finished run."
        )
    return fit[0], max(1, int(count))


def save_rates(path: str | Path, rates: Rates) -> None:
    """Add rates to a file for ``find_rates``; rates of the same device, model and mode are replaced."""
    path = Path(path)
    key = (rates.device, rates.model, rates.mode)
    known = [r for r in (_read(path) if path.is_file() else []) if (r.device, r.model, r.mode) != key]
    path.write_text(json.dumps([asdict(r) for r in (*known, rates)], indent=1) + "\n")


def cost(rates: Rates, survey: Survey, devices: int = 1, prices: Prices | None = None) -> dict:
    """What a survey takes: ``device_hours``, ``wall_hours`` on ``devices`` (every device kept busy, and no
    faster than one scheduler hands out batches), bytes and requests, ``money``.

    ``read_bytes`` and ``read_requests`` are upper bounds: every stamp of every plane read by itself, float32.
    """
    prices = prices or Prices()
    images = survey.sources * survey.bands
    pixels = (survey.fine_pix / rates.fine_pix) ** 2
    hours = images * rates.seconds_for(survey.draws, survey.fine_pix) / 3600
    batches = math.ceil(survey.sources / survey.batch)
    draws_bytes = images * rates.draws_bytes * pixels * survey.draws / rates.draws
    stored = rates.kept_bytes if survey.samples == "regenerate" and rates.kept_bytes else rates.store_bytes
    written = images * (stored * pixels + rates.catalogue_bytes)
    written += draws_bytes if survey.samples == "stored" else 0
    read, files = images * survey.planes, batches * (survey.arrays + FILES_PER_BATCH)
    money = (
        hours * prices.device_hour
        + written * 1e-12 * prices.tb_month
        + (read + files) * 1e-6 * prices.million_requests
    )
    return {
        "device_hours": hours,
        "wall_hours": max(hours / devices, batches / BATCHES_PER_S / 3600),
        "read_bytes": read * survey.stamp_pix**2 * 4,
        "written_bytes": written,
        "catalogue_bytes": images * rates.catalogue_bytes,
        "read_requests": read,
        "write_requests": files,
        "money": money,
    }


def smallest_cluster(device_hours: float, deadline_hours: float) -> int:
    """The fewest devices that do ``device_hours`` of work in time."""
    return max(1, math.ceil(device_hours / deadline_hours))


def survey_of(settings: RunSettings, sources: int | None = None) -> Survey:
    """What a run with these settings has to do, from its catalogue and survey file."""
    from galbatch.cutouts.survey.layout import PLANES
    from galbatch.run import prepare

    inputs = prepare.preflight(settings, ExecutionSettings())
    layout = inputs.layout
    tiles = [band.tiles[0] for band in inputs.survey.config.bands]
    planes = max(sum(getattr(t, plane) is not None for plane in PLANES) for t in tiles)
    return Survey(
        sources or layout.n_sources,
        len(layout.bands),
        planes,
        layout.common_pix,
        layout.common_pix * layout.oversample,
        layout.draws,
        layout.batch if sources is None else settings.batch or default_batch(sources),
        len(layout.arrays()),
        settings.samples,
    )


def _read(path: Path) -> list[Rates]:
    try:
        return [Rates(**row) for row in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: is not a file of rates ({error}). galbatch plan --save makes one."
        ) from None


def _without_footer(path: Path) -> int:
    """Bytes of a Parquet file but for its metadata, which do not grow with its rows."""
    data = path.read_bytes()
    return len(data) - int.from_bytes(data[-8:-4], "little")
