"""What a process needs for its batches, made once: from a description that travels to the process itself.
With it the cutter of stamps, which tries again where a read fails."""

from __future__ import annotations

import ctypes
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from galbatch import __version__
from galbatch.cutouts import Survey, cut_fitting, unreadable
from galbatch.errors import RunError
from galbatch.interfaces import Denoiser
from galbatch.pipeline import Context
from galbatch.prior import load_prior
from galbatch.prior.folder import folder_files
from galbatch.run.reuse import Reuse
from galbatch.sampler.prior import as_denoiser
from galbatch.store import RunPaths, StoreLayout, hash_json
from galbatch.store.plan import to_cut
from galbatch.types import Flag, StampBatch

WAITS_S = (0.2, 1.0, 4.0)
BUDGET_S = 60.0  # of waiting in vain in one process: a file that is gone for good may not stop every batch
# An error that says one of these does not pass by itself.
LASTING = ("changed during the run", "ends before", "is not a regular file", "needs the extra packages")


class Cutter:
    """Stamps of the rows of a plan, as ``cut_fitting`` returns them; all of one size where the layout has no
    ``sides``. Where a read fails that may succeed later (a network file system that hiccups, an EIO), the
    batch is cut again, up to three times within some seconds; the result is that of the last cut, the same as
    if it had been the first."""

    def __init__(self, survey: Survey, layout: StoreLayout) -> None:
        self.survey, self.sides = survey, layout.sides or (layout.stamp_pix,)
        self.scale_arcsec = min(layout.pixel_scale_arcsec)
        self._in_vain = 0.0

    def __call__(self, columns: dict) -> list[tuple[np.ndarray, StampBatch]]:
        return cut_fitting(self._cut, to_cut(columns), self.sides, self.scale_arcsec)

    def _cut(self, sources: dict[str, np.ndarray], side: int) -> StampBatch:
        stamps, waited = self.survey.cut(sources, side), 0.0
        for wait in WAITS_S:
            if not may_pass(stamps) or self._in_vain > BUDGET_S:
                break
            wait *= random.uniform(0.75, 1.25)  # so that many workers do not come back at once
            time.sleep(wait)
            waited += wait
            self.survey.forget_failures()
            stamps = self.survey.cut(sources, side)
        self._in_vain = self._in_vain + waited if may_pass(stamps) else 0.0
        return stamps


def may_pass(stamps: StampBatch) -> bool:
    """Whether a source of the batch could not be read, in any band, for a reason that may pass."""
    for n, flags in enumerate(stamps.flags):
        said = str(stamps.failures[n].message) if n in stamps.failures else ""
        if flags & Flag.READ_ERROR and not any(words in said for words in LASTING):
            return True
    return False


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LOADED: dict[str, Context] = {}
_LOADING = threading.Lock()
_COUNTS = {"models_loaded": 0}


@dataclass(frozen=True)
class ContextSpec:
    """Picklable description of a ``Context``.

    ``survey``: picklable description of the survey with ``cut(...)``; ``model``: name or folder of a model,
    or a prior object; ``run_id``: the same for the same run; ``threads``: compute threads; ``precision``: of
    the network; ``model_sha256`` (of the weights), ``model_hash`` (of the whole folder, '' for an object) and
    ``version``: what a process must find on its own machine; ``update``: the run from which sources are taken
    over, '' for none.
    """

    run_id: str
    root: str
    survey: Any
    model: Any
    layout: StoreLayout
    mode: str
    seed: int
    threads: int = 1
    device: str = "auto"
    model_sha256: str = ""
    precision: str = "auto"
    version: str = __version__
    model_hash: str = ""
    update: str = ""

    @property
    def paths(self) -> RunPaths:
        return RunPaths(self.root)


def open_context(spec: ContextSpec) -> Context:
    """The context of this process: the model is loaded and warmed up on the first call, then kept."""
    with _LOADING:
        fix_threads(spec.threads)  # also when all is loaded: somebody else may have set them in between
        if spec.run_id not in _LOADED:
            _LOADED.clear()  # one run at a time in a process: the memory of the last one is given back
            keep_freed_memory()
            prior = load_model(spec.model, spec.device, spec.precision)
            refuse_this_machine(spec, prior)
            _COUNTS["models_loaded"] += 1
            warm_up(prior, spec.layout)
            _LOADED[spec.run_id] = Context(
                cut=Cutter(spec.survey, spec.layout),
                prior=prior,
                layout=spec.layout,
                mode=spec.mode,
                seed=spec.seed,
                measure_threads=measure_threads(prior, spec.threads),
                reuse=Reuse(spec.update, spec.layout.bands) if spec.update else None,
            )
        return _LOADED[spec.run_id]


def refuse_this_machine(spec: ContextSpec, prior: Denoiser) -> None:
    """Raise ``RunError`` where this process lacks what the run began with: version, model, files."""
    here = f"Worker {socket.gethostname()}, process {os.getpid()}"
    if __version__ != spec.version:
        raise RunError(f"{here} has galbatch {__version__}, the run {spec.version}. Install the same one.")
    found = prior.spec.sha256
    if found != spec.model_sha256:
        raise RunError(
            f"{here}: model {spec.model} has sha256 {found[:12]}, that of the run is "
            f"{spec.model_sha256[:12]}. Put the same model there."
        )
    if spec.model_hash and hash_json(files := folder_files(spec.model)) != spec.model_hash:
        raise RunError(
            f"{here}: the folder of model {spec.model} ({', '.join(files)}) is not that of "
            "the run: its card or its calibration differs. Put the same folder there."
        )
    lost = unreadable(spec.survey)
    if lost:
        raise RunError(
            f"{here} cannot read {len(lost)} files of the survey: {'; '.join(lost[:3])}. Every worker needs "
            "them at the same path, on a file system that all of them see."
        )


def models_loaded() -> int:
    """How many times this process has loaded a model."""
    return _COUNTS["models_loaded"]


def load_model(model: Any, device: str = "auto", precision: str = "auto") -> Denoiser:
    """The prior of a name or folder, or of an object with ``denoise``, with its spec."""
    if not isinstance(model, (str, os.PathLike)):
        return as_denoiser(model)
    return load_prior(os.fspath(model), device=device, precision=precision)


def fix_threads(threads: int) -> None:
    """Compute with just so many threads: the sums of a kernel depend on how it is split."""
    torch.set_num_threads(threads)
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(threads, most))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@contextmanager
def own_threads() -> Iterator[None]:
    """Restores the number of compute threads of the caller's process."""
    before = torch.get_num_threads(), numba.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


def keep_freed_memory() -> None:
    """Let glibc keep what the network frees between two layers instead of giving it back to the system.

    Dask starts its workers with MALLOC_TRIM_THRESHOLD_ = 64 kB, with which every activation is mapped and
    zeroed anew: evaluations on a CPU took twice as long. Elsewhere than on glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 512 << 20)


def warm_up(prior: Denoiser, layout: StoreLayout) -> None:
    """One evaluation of the run's shape, so that compilation and allocation are not timed as the first
    batch."""
    spec = prior.spec
    side = (
        -(-(layout.common_pix * layout.oversample + 2 * spec.margin_pix) // spec.multiple_of)
        * spec.multiple_of
    )
    with torch.no_grad():
        prior.denoise(
            torch.zeros(layout.draws, spec.channels or 1, side, side, device=spec.device),
            torch.ones(layout.draws, device=spec.device),
        )


def measure_threads(prior: Denoiser, threads: int) -> int:
    """Threads for the statistics: beside a GPU all cores of its share, so that they keep up with it."""
    if not str(prior.spec.device).startswith("cuda"):
        return threads
    return max(threads, (os.cpu_count() or 1) // max(1, torch.cuda.device_count()) - 1)
