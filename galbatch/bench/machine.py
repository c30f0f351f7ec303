"""What the machine can do at most: a matrix product and a copy, the two lines of the roofline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from galbatch.bench.timing import repeat, row


@dataclass(frozen=True)
class Roof:
    """``gflops``: of the matrix product in the precision that the network computes in; ``gbytes``: of a copy,
    read plus written; a second, on a CPU a second of one core."""

    gflops: float
    gbytes: float

    def seconds(self, flops: float, nbytes: float) -> float:
        """Least time for so many operations and bytes: the slower of the two lines (Williams et al. 2009)."""
        return max(1e-9 * flops / self.gflops, 1e-9 * nbytes / self.gbytes)


def machine_table(device: torch.device, seconds: float, dtype: torch.dtype = torch.float32) -> Iterator[dict]:
    """Rows 'matrix product' (GFLOP) and 'copy' (GB, read plus written); the product in ``dtype``."""
    n = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    check = torch.allclose((a @ b)[:8].double(), a[:8].double() @ b.double(), rtol=0.1, atol=0.02 * n)
    yield row("matrix product", "GFLOP", 2e-9 * n**3, repeat(lambda: a @ b, seconds, device=device), check)
    source = torch.randn(64 << 20, device=device)
    target = torch.empty_like(source)
    timing = repeat(lambda: target.copy_(source), seconds, device=device)
    yield row("copy", "GB", 2e-9 * source.nbytes, timing, torch.equal(source, target))


def roof_of(rows: list[dict], device: torch.device) -> Roof:
    """The roof that ``machine_table`` measured."""
    best = {r["kernel"]: r[speed(device)] for r in rows}
    return Roof(best["matrix product"], best["copy"])


def speed(device: torch.device) -> str:
    """The rate that fractions are made of: a second of CPU time on a CPU, the fastest call on a GPU."""
    return "per_core" if device.type == "cpu" else "best"
