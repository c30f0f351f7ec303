"""The network, of the shipped models too, by backend, batch, number format and memory layout, against the
roofline of the machine; and processes against threads: how the cores of a machine are best given to it.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from galbatch.bench.timing import Roof, repeat, row, speed
from galbatch.prior import choose_model, load_prior
from galbatch.prior.compile import BACKENDS, PRECISIONS, compile_denoiser
from galbatch.prior.folder import NAMES, model_folder

if TYPE_CHECKING:
    from galbatch.prior import Prior


STAMP, BATCH = 64, 8
BATCHES = (1, 2, 4, 8, 16, 32)
_PRODUCTS = ("convolution", "addmm", "mm", "linear")


@dataclass(frozen=True)
class Work:
    """One evaluation of one image: operations of its products; bytes that the products read and write (what
    is left when all else is fused into them), and bytes that every operation reads and writes (nothing
    fused)."""

    flops: float
    nbytes: float
    nbytes_unfused: float


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations take and give."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products, self.all = 0, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [a for a in (*args, out) if isinstance(a, torch.Tensor)]
            tensors += [
                t for a in args if isinstance(a, list | tuple) for t in a if isinstance(t, torch.Tensor)
            ]
            size = sum(t.nbytes for t in tensors)
            self.all += size
            self.products += size * any(name in str(function) for name in _PRODUCTS)
        return out


def work_of(prior: Prior, size: int = STAMP, batch: int = BATCH) -> Work:
    """Counted, not estimated: one pass of ``batch`` images of size x size through the network, in float32."""
    x = torch.ones(batch, 1, size, size, device=prior.device)
    sigma = torch.ones(batch, device=prior.device)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        prior.model(x, sigma)
    with _Traffic() as traffic, torch.no_grad():
        prior.model(x, sigma)
    return Work(counter.get_total_flops() / batch, traffic.products / batch, traffic.all / batch)


def network_table(
    prior: Prior, roof: Roof, backends: Sequence[str] = BACKENDS, seconds: float = 0.5
) -> Iterator[dict]:
    """One row a variant: first the backends, then the winner by batch, number format and layout of the
    weights.

    ``roofline``: the least time that operations and bytes need here, in the precision of the prior, over the
    time taken.
    """
    work, device = work_of(prior), prior.device
    with torch.inference_mode():
        for name in backends:
            yield _variant(prior, roof, work, seconds, name, f"network, {name}")
        for batch in BATCHES:
            yield _variant(prior, roof, work, seconds, prior.backend, f"network, batch {batch}", batch=batch)
        if device.type == "cpu":
            for precision in PRECISIONS:
                label = f"network, {precision}"
                yield _variant(prior, roof, work, seconds, prior.backend, label, precision=precision)
            yield _variant(
                prior, roof, work, seconds, prior.backend, "network, weights not channels-last", plain=True
            )
        else:
            yield _variant(prior, roof, work, seconds, prior.backend, "network, batch 256", batch=256)


def _variant(
    prior: Prior,
    roof: Roof,
    work: Work,
    seconds: float,
    backend: str,
    label: str,
    batch: int = BATCH,
    precision: str | None = None,
    plain: bool = False,
) -> dict:
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 1, STAMP, STAMP, generator=gen).to(prior.device)
    sigma = torch.linspace(0.01, 1, batch, device=prior.device)
    expected = prior.model(x, sigma)
    precision = precision or prior.precision
    try:
        model = copy.deepcopy(prior.model).to(memory_format=torch.contiguous_format) if plain else prior.model
        _, forward = compile_denoiser(model, prior.device, backend, precision)
        error = float((forward(x, sigma) - expected).norm() / expected.norm())
    except Exception as err:  # a backend that is not available here is a result too
        nothing = {"rate": 0.0, "best": 0.0, "per_core": 0.0, "correct": False}
        return {"kernel": label, "unit": "image", **nothing, "note": str(err).splitlines()[0][:120]}
    timing = repeat(lambda: forward(x, sigma), seconds, device=prior.device)
    limit = 0.05 if precision == "bfloat16" else 1e-4
    found = row(label, "image", batch, timing, error < limit, error=error)
    least, fast = roof.seconds(work.flops, work.nbytes), found[speed(prior.device)]
    return {
        **found,
        "gflop_per_image": 1e-9 * work.flops,
        "mb_per_image": 1e-6 * work.nbytes,
        "mb_per_image_unfused": 1e-6 * work.nbytes_unfused,
        "gflops": fast * work.flops * 1e-9,
        "roofline": least * fast,
    }


VALIDATION = "validation.json"
EVALUATIONS = 14  # per draw in mode default, about
HEADLINE = {
    "galaxy pixels": ("pixels", "footprint"),
    **{name: (name, "all") for name in ("flux", "r_half", "gini", "asymmetry")},
}
LEVEL = 0.68


def model_rows(seconds: float = 0.3) -> Iterator[dict]:
    """One row per shipped model.

    ``seconds_per_draw``: of the network alone, for a stamp of 64 pixels in mode default: its measured time
    per image (of one core, or of a card without compilation, where runs are faster) times ``EVALUATIONS``.
    ``within_68``: share of truths in the 68% interval, by quantity, of ``validated`` galaxies with
    ``evaluations`` per draw; ``calibrated``: mode -> galaxies of its table.
    """
    for name in NAMES:
        folder = model_folder(name)
        prior = load_prior(name, backend="auto" if not torch.cuda.is_available() else "eager")
        numbers, within = read_validation(folder)
        yield {
            "name": name,
            "auto": choose_model() == name,
            "parameters": sum(p.numel() for p in prior.model.parameters()),
            "megabytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6,
            "device": f"{prior.device}, {prior.precision}",
            "seconds_per_draw": seconds_per_image(prior, seconds) * EVALUATIONS,
            "validated": numbers["galaxies"],
            "evaluations": numbers["evaluations"],
            "within_68": within,
            "calibrated": {mode: table["galaxies"] for mode, table in prior.spec.calibration.items()},
        }


def seconds_per_image(prior: Prior, seconds: float) -> float:
    """What a full group of images of 64 pixels and their margin takes, over their number: seconds of a CPU
    core, which other people's work does not change, or of a card."""
    side = 64 + 2 * prior.spec.margin_pix
    side = -(-side // prior.spec.multiple_of) * prior.spec.multiple_of
    x = torch.ones(prior.micro_batch, 1, side, side, device=prior.device)
    sigma = torch.full((len(x),), 0.1, device=prior.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timing = repeat(lambda: prior.denoise(x, sigma), seconds, device=prior.device)
    finally:
        torch.set_num_threads(threads)
    return timing["cpu_s" if prior.device.type == "cpu" else "min_s"] / len(x)


def read_validation(folder: Path) -> tuple[dict, dict[str, float]]:
    """Numbers of a shipped model's ``validation.json``, and the share of truths within its 68% intervals by
    quantity."""
    study = json.loads((folder / VALIDATION).read_text())
    at = study["numbers"]["levels"].index(LEVEL)
    found = {(row["what"], row["bin"]): row["coverage"][at] for row in study["rows"]}
    return study["numbers"], {name: found[row] for name, row in HEADLINE.items()}


_CODE = """
import sys, time
model, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
import torch
torch.set_num_threads(threads)
from galbatch.prior import load_prior
prior = load_prior(model, device="cpu")
x, sigma = torch.randn(16, 1, 72, 72), torch.linspace(0.01, 1, 16)
prior.denoise(x, sigma)
print("ready", flush=True)
sys.stdin.readline()
done, start = 0, time.perf_counter()
while time.perf_counter() - start < seconds:
    prior.denoise(x, sigma)
    done += len(x)
print(done / (time.perf_counter() - start), time.process_time(), flush=True)
"""


def process_table(model: str | None = None, cores: int = 2, seconds: float = 5.0) -> Iterator[dict]:
    """Images per second of ``p`` processes of ``t`` threads each, for every p * t = ``cores``, all at work at
    the same time; and of one process with one thread. ``model``: name or folder of a model."""
    splits = [
        (1, 1),
        *((p, cores // p) for p in range(1, cores + 1) if cores % p == 0 and (p, cores // p) != (1, 1)),
    ]
    alone = 0.0
    for processes, threads in splits:
        rates = _measure(processes, threads, str(model or "auto"), seconds)
        alone = alone or sum(rates)
        yield {
            "kernel": f"network, {processes} processes x {threads} threads",
            "unit": "image",
            "rate": sum(rates),
            "best": sum(rates),
            "correct": all(r > 0 for r in rates),
            "median_s": processes / sum(rates),
            "times_one": sum(rates) / alone,
        }


def _measure(processes: int, threads: int, model: str, seconds: float) -> list[float]:
    command = [sys.executable, "-c", _CODE, model, str(threads), str(seconds)]
    pipe = subprocess.PIPE
    children: list[Any] = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(processes)
    ]
    try:
        for child in children:
            if child.stdout.readline().strip() != "ready":
                raise RuntimeError(f"a benchmark process ended with code {child.wait()} before it began")
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        return [float(child.stdout.readline().split()[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
