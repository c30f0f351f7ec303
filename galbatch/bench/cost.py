"""What a survey costs: rates measured in a finished run, turned into core-hours and terabytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from galbatch.errors import RunError
from galbatch.run import status
from galbatch.store import RunPaths, StoreLayout, read_manifest

GALAXIES = (10_000, 1_000_000, 100_000_000)


@dataclass(frozen=True)
class Rates:
    """Of one band of one source, with ``draws`` draws at ``stamp_pix``: worker seconds by stage, bytes on
    disk of the store with and without the draws, bytes of the catalogue a source. ``device``: 'cpu', or the
    name of the one GPU of the run."""

    seconds: dict[str, float]
    store_bytes: float
    store_bytes_without_draws: float
    catalogue_bytes: float
    draws: int
    stamp_pix: int
    device: str = "cpu"

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())


def rates_of_run(run: str | Path, device: str = "cpu") -> Rates:
    """Rates of a finished run that nobody resumed. Raises ``RunError`` for any other."""
    found, paths = status(run), RunPaths(Path(run))
    summary = found["summary"] or {}
    if found["state"] != "finished" or not summary or summary["resumed_from"]:
        raise RunError(
            f"{run}: is {found['state']}, or was resumed: "
            "rates come from a run that went through in one piece."
        )
    layout = StoreLayout.from_attributes(read_manifest(paths)["layout"])
    images = summary["draws"] / layout.draws  # bands of sources that were sampled: failed ones cost nothing
    size = {p.name: _bytes_of(p) for p in paths.posterior.iterdir() if p.is_dir()}
    sources = found["planned"]
    if device == "cpu":
        # the batches' CPU time, split as their wall time is: a busy machine stretches only the latter
        stages = summary["stage_seconds"]
        worked = sum(v for k, v in stages.items() if k != "merge")
        share = summary.get("cpu_s", worked) / max(worked, 1e-9)
        seconds = {k: v * share / images for k, v in stages.items()}
    else:  # beside a device the stages of several batches overlap: what counts is the wall clock of the run
        seconds = {"run": summary["elapsed_s"] / images}
    kept = sum(size.values())
    per_band = 1 / (sources * len(layout.bands))
    return Rates(
        seconds,
        kept * per_band,
        (kept - size.get("samples", 0)) * per_band,
        _without_footer(paths.catalogue) / sources,
        layout.draws,
        layout.stamp_pix,
        device,
    )


def cost_table(rates: Rates, bands: int = 1, galaxies=GALAXIES) -> Iterator[dict]:
    """One row a number of galaxies: core-hours (device-hours on a GPU), terabytes of the store and of the
    catalogue.

    Rates are multiplied, nothing else: no queueing, no idle workers, no growth of the plan's share.
    """
    hours = "core_hours" if rates.device == "cpu" else "device_hours"
    for n in galaxies:
        yield {
            "galaxies": n,
            "bands": bands,
            "draws": rates.draws,
            hours: n * bands * rates.total_s / 3600,
            "days_on_1000": n * bands * rates.total_s / 3600 / 1000 / 24,
            "store_tb": n * bands * rates.store_bytes * 1e-12,
            "store_without_draws_tb": n * bands * rates.store_bytes_without_draws * 1e-12,
            "catalogue_gb": n * rates.catalogue_bytes * 1e-9,
        }


def _without_footer(path: Path) -> int:
    """Bytes of a Parquet file but for its metadata, which do not grow with its rows."""
    data = path.read_bytes()
    return len(data) - int.from_bytes(data[-8:-4], "little")


def _bytes_of(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
