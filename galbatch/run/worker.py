"""What lives in a worker process beside the batches: the model, loaded once, and numbers for the
dashboard."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import torch
from distributed import Client, WorkerPlugin, get_worker
from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Histogram

from galbatch.errors import Stopped
from galbatch.forward import kernel_hit_rate
from galbatch.morphology import compile_kernels
from galbatch.run.context import ContextSpec, models_loaded, open_context
from galbatch.run.task import process_isolating, run_batch
from galbatch.store import PlanBatch
from galbatch.types import Failure

PLUGIN = "galbatch"
SET_UP_ATTEMPTS = 3
_TOTALS: Counter = Counter()
_SOURCES = PrometheusCounter("galbatch_sources", "sources committed by this worker", ["status"])
_DRAWS = PrometheusCounter("galbatch_draws", "posterior draws made by this worker")
_STAGES = Histogram(
    "galbatch_stage_seconds",
    "seconds of a batch by stage",
    ["stage"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
)


class GalbatchWorker(WorkerPlugin):
    """Sets a worker up for a run: context (survey, model, warm-up) and the columns of the workers page."""

    name = PLUGIN

    def __init__(self, spec: ContextSpec) -> None:
        self.spec = spec

    def setup(self, worker: Any) -> None:
        """Load what batches need before the first one is taken. Raises what makes this worker unusable."""
        open_context(self.spec)
        # the statistics compile (once per installation) while the first batch is sampled
        threading.Thread(target=compile_kernels, name="compile", daemon=True).start()
        worker.galbatch_started = time.monotonic()
        for name in COLUMNS:
            worker.metrics[f"galbatch_{name}"] = _column(name)


def set_up_workers(client: Client, spec: ContextSpec) -> None:
    """The plugin on every worker, also on those that come later. Raises what makes a worker unusable, and
    ``Stopped`` when the scheduler, or one worker after another, is lost meanwhile."""
    for _ in range(SET_UP_ATTEMPTS):
        try:
            client.register_plugin(GalbatchWorker(spec))
            return
        except OSError as err:  # the connection to a worker, or to the scheduler
            lost = err
    raise Stopped(
        f"The scheduler, or a worker, was lost while the workers were set up ({lost}). Nothing is lost: "
        f"`galbatch resume {spec.root}`."
    ) from lost


def _column(name: str) -> Any:
    async def read(worker: Any) -> float:
        return COLUMNS[name](max(time.monotonic() - worker.galbatch_started, 1e-9))

    return read


def _gpu_memory(elapsed: float) -> float:
    return torch.cuda.memory_allocated() / 1e9 if torch.cuda.is_initialized() else 0.0


COLUMNS = {
    "sources": lambda t: _TOTALS["sources"],
    "sources_per_s": lambda t: round(_TOTALS["sources"] / t, 3),
    "draws_per_s": lambda t: round(_TOTALS["draws"] / t, 2),
    "flagged": lambda t: _TOTALS["flagged"],
    "failed": lambda t: _TOTALS["failed"],
    "models_loaded": lambda t: models_loaded(),
    "psf_cache_hit": lambda t: round(kernel_hit_rate(), 4),
    "gpu_memory_gb": _gpu_memory,
}


def batch_task(rows: PlanBatch, exclude: dict[int, Failure], attempt: int) -> dict[str, Any]:
    """``run_batch`` on this worker."""
    worker = get_worker()
    record = run_batch(_spec(worker), rows, exclude, attempt)
    if record.get("twin"):
        return record
    _TOTALS.update({k: record[k] for k in ("sources", "flagged", "failed")})
    _TOTALS["draws"] += int(record["counters"]["draws"])
    for status in ("ok", "flagged", "failed"):
        _SOURCES.labels(status).inc(record[status])
    _DRAWS.inc(record["counters"]["draws"])
    for stage, seconds in record["seconds"].items():
        _STAGES.labels(stage).observe(seconds)
    return record | {"worker": worker.address}


def probe_task(rows: PlanBatch) -> int:
    """Process sources without keeping anything: to find out which of them kills its process."""
    process_isolating(open_context(_spec(get_worker())), rows, {})
    return len(rows)


def _spec(worker: Any) -> ContextSpec:
    return worker.plugins[PLUGIN].spec
