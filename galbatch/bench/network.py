"""The network by backend, batch, number format and memory layout, against the roofline of the machine."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from galbatch.bench.machine import Roof, speed
from galbatch.bench.timing import repeat, row
from galbatch.prior.compile import BACKENDS, PRECISIONS, compile_denoiser

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
        super().__init__()
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
        return {
            "kernel": label,
            "unit": "image",
            "rate": 0.0,
            "best": 0.0,
            "per_core": 0.0,
            "correct": False,
            "note": str(err).splitlines()[0][:120],
        }
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
