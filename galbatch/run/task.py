"""One batch as a unit of work: compute, and commit. The same function runs serially and on a worker."""

from __future__ import annotations

import errno
import time

import numpy as np

from galbatch import cutouts, store
from galbatch.errors import limit_of
from galbatch.interfaces import Denoiser
from galbatch.pipeline import Context, process_batch
from galbatch.run.context import ContextSpec, models_loaded, open_context
from galbatch.store import BatchResult, PlanBatch, commit_batch
from galbatch.types import Failure

_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE)


def run_batch(
    spec: ContextSpec, rows: PlanBatch, exclude: dict[int, Failure] | None = None, attempt: int = 1
) -> dict:
    """Process a batch and commit it. Returns a small record; raises only for what no single source can
    cause."""
    context = open_context(spec)
    start = time.process_time()
    result = process_isolating(context, rows, exclude or {})
    about = {"device": device_of(context.prior)}
    record = commit_batch(spec.paths, spec.layout, result, attempt, about)
    used = time.process_time() - start  # of all threads: with several batches at once, of theirs too
    more = {"cpu_s": round(used, 6), "models_loaded": models_loaded(), "tile": str(rows.columns["tile"][0])}
    return record | more | {"traffic": take_traffic()}


def take_traffic() -> dict[str, int]:
    """Requests and bytes of this process since it was asked last: ``mosaic_*`` of remote images, ``run_*`` of
    a run in a bucket. Empty where all is local."""
    mosaic, run = cutouts.take_traffic(), store.take_traffic()
    return {f"mosaic_{k}": v for k, v in mosaic.items()} | {f"run_{k}": v for k, v in run.items()}


def device_of(prior: Denoiser) -> list[str]:
    """Kind and identity of what a prior computes on: ['cpu', ''], or a card's name and UUID."""
    import torch

    device = torch.device(prior.spec.device)
    if device.type != "cuda":
        return [device.type, ""]
    card = torch.cuda.get_device_properties(device)
    return [card.name, str(getattr(card, "uuid", device))]


def probe_batch(spec: ContextSpec, rows: PlanBatch) -> int:
    """Process sources without keeping anything: to find out which of them kills its process."""
    process_isolating(open_context(spec), rows, {})
    return len(rows)


def process_isolating(context: Context, rows: PlanBatch, exclude: dict[int, Failure]) -> BatchResult:
    """``process_batch``; when it raises all the same, the sources that cause it are found one by one and fail
    alone."""
    try:
        return process_batch(context, rows, exclude)
    except Exception as err:
        if is_fatal(err):
            raise
    culprits = {}
    for slot in sorted(set(range(len(rows))) - set(exclude)):
        try:
            process_batch(context, rows.take([slot]), {})
        except Exception as err:
            if is_fatal(err):
                raise
            culprits[slot] = Failure(
                rows.columns["source_id"][slot], "process", type(err).__name__, str(err)[:500]
            )
    return process_batch(context, rows, exclude | culprits)


def is_fatal(err: BaseException) -> bool:
    """A full or read-only disk, one where nothing may be written, or too many open files: the fault of no
    source."""
    return isinstance(err, PermissionError) or limit_of(err) in _FATAL


def killed(rows: PlanBatch, slot: int) -> Failure:
    """The failure of a source whose processing ends its process."""
    return Failure(
        rows.columns["source_id"][slot],
        "process",
        "KILLED_WORKER",
        "processing this source killed the worker process each time it was tried",
    )


def halves(slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of a list of slots, the first not larger."""
    return slots[: len(slots) // 2], slots[len(slots) // 2 :]
