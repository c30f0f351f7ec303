"""One batch as a unit of work: compute, and commit. The same function runs on a worker and, for
``--cluster none``, one batch after another in this process."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from galbatch import cutouts, store
from galbatch.errors import Stopped, limit_of, limit_remedy
from galbatch.interfaces import Denoiser
from galbatch.pipeline import Context, process_batch
from galbatch.run.context import ContextSpec, models_loaded, open_context
from galbatch.run.events import Reporter
from galbatch.store import BatchResult, PlanBatch, commit_batch, read_attempt
from galbatch.types import Failure

_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE)


def run_batch(
    spec: ContextSpec, rows: PlanBatch, exclude: dict[int, Failure] | None = None, attempt: int = 1
) -> dict:
    """Process a batch and commit it, unless another process has done so by then. Returns a small record, with
    ``twin`` where it is that of the other; raises only for what no single source can cause."""
    context = open_context(spec)
    start = time.process_time()
    record = _committed(spec, rows)
    if not record:
        result = process_isolating(context, rows, exclude or {})
        about = {"device": device_of(context.prior)}
        record = _committed(spec, rows) or commit_batch(spec.paths, spec.layout, result, attempt, about)
    used = time.process_time() - start  # of all threads: with several batches at once, of theirs too
    more = {"cpu_s": round(used, 6), "models_loaded": models_loaded(), "tile": str(rows.columns["tile"][0])}
    return record | more | {"traffic": take_traffic()}


def _committed(spec: ContextSpec, rows: PlanBatch) -> dict:
    """The record of a batch that is committed: by a worker that vanished before it could say so, or by
    the twin of this one. {} otherwise."""
    note = read_attempt(spec.paths, rows.batch) if spec.paths.part(rows.batch).is_file() else {}
    return {name: value for name, value in note.items() if name != "files"} | ({"twin": True} if note else {})


def take_traffic() -> dict[str, int]:
    """Requests and bytes of this process since it was asked last: ``mosaic_*`` of remote images, ``run_*`` of
    a run in a bucket. Empty where all is local."""
    mosaic, run = cutouts.take_traffic(), store.take_traffic()
    return {f"mosaic_{k}": v for k, v in mosaic.items()} | {f"run_{k}": v for k, v in run.items()}


def device_of(prior: Denoiser) -> list[str]:
    """Kind and identity of what a prior computes on: ['cpu', ''], or a card's name and UUID."""
    device = torch.device(prior.spec.device)
    if device.type != "cuda":
        return [device.type, ""]
    card = torch.cuda.get_device_properties(device)
    return [card.name, str(getattr(card, "uuid", device))]


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


def run_serial(spec: ContextSpec, batches: Iterable[PlanBatch], reporter: Reporter) -> None:
    """Process and commit every batch. Raises ``Stopped`` where the disk takes no more."""
    try:
        for rows in batches:
            reporter.batch(run_batch(spec, rows))
    except Exception as err:
        if is_fatal(err):
            raise disk_stopped(spec, err) from err
        raise


def disk_stopped(spec: ContextSpec, err: BaseException) -> Stopped:
    """The error for a disk that takes no more."""
    gb = spec.layout.predicted_bytes() / 1e9
    full = limit_of(err) in (errno.ENOSPC, errno.EDQUOT)
    return write_stopped(spec.root, err, f" (a whole run needs about {gb:.2f} GB there)" if full else "")


def write_stopped(root: str | Path, err: BaseException, need: str = "") -> Stopped:
    """The error for a run folder that cannot be written; ``need``: a remark on the room that it takes."""
    remedy = limit_remedy(err) or f"See that the disk is whole and that you may write in {root}"
    return Stopped(
        f"{root}: {err}. Every committed batch is kept. {remedy}{need}; then `galbatch resume {root}`."
    )
