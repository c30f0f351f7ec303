"""How the network runs: eager, TorchScript (frozen) or ``torch.compile``; and how it is exported.

Mixed precision (bfloat16 inside the network, float32 outside) where the device multiplies in bfloat16 by
itself, else float32; always channels-last.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galbatch.errors import ModelError

BACKENDS = ("eager", "torchscript", "compile")
PRECISIONS = ("float32", "bfloat16")
DEFAULT = {"cpu": "torchscript", "cuda": "compile"}  # measured winners, see benchmarks


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 by itself: GPUs, and CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return True
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def choose_precision(device: torch.device, precision: str = "auto") -> str:
    """The precision that the network computes in. Raises ``ModelError`` for an unknown one."""
    if precision == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    if precision not in PRECISIONS:
        raise ModelError(f"precision '{precision}' is unknown: use auto or one of {', '.join(PRECISIONS)}.")
    return precision


@contextmanager
def full_float32() -> Iterator[None]:
    """Products in float32 are not rounded to TF32, which costs a denoiser a thousandth of sigma: convolutions
    are by default."""
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


class Mixed(nn.Module):
    """The denoiser under autocast."""

    def __init__(self, model: nn.Module, device_type: str) -> None:
        super().__init__()
        self.model, self.device_type = model, device_type

    def forward(self, x: Tensor, sigma: Tensor, bands: Tensor | None = None) -> Tensor:
        with torch.autocast(self.device_type, dtype=torch.bfloat16):
            return self.model(x, sigma, bands).float()


def compile_denoiser(
    model: nn.Module,
    device: torch.device,
    backend: str = "auto",
    precision: str = "float32",
    joint: tuple[int, int] | None = None,
) -> tuple[str, Callable]:
    """(name of the backend, function of (x, sigma)) of a denoiser in evaluation mode on ``device``; with
    ``joint``, the number of images and of their bands, a function of (x, sigma, bands).

    Raises ``ModelError`` for an unknown backend. ``torch.compile`` compiles at the first call of each shape.
    """
    name = DEFAULT.get(device.type, "eager") if backend == "auto" else backend
    if name not in BACKENDS:
        raise ModelError(f"backend '{backend}' is unknown: use auto or one of {', '.join(BACKENDS)}.")
    if precision == "bfloat16":
        model = Mixed(model, device.type)
    if name == "torchscript":
        return name, torchscript(model, device, joint)
    if name == "compile":
        return name, torch.compile(model, dynamic=False)
    return name, model


def example_inputs(device: torch.device, n: int = 2, size: int = 64) -> tuple[Tensor, Tensor]:
    """Inputs of the shape and range that the network is traced with."""
    return torch.ones(n, 1, size, size, device=device), torch.full((n,), 0.5, device=device)


def torchscript(model: nn.Module, device: torch.device, joint: tuple[int, int] | None = None) -> Any:
    """Traced and frozen TorchScript of the denoiser; any batch and any size afterwards, but the ``joint``
    number of bands."""
    inputs: tuple[torch.Tensor, ...] = example_inputs(device)
    if joint is not None:
        inputs = tuple(torch.full((*joint, *more), 0.5, device=device) for more in ((64, 64), (), ()))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model.eval(), inputs, check_trace=False)
        return torch.jit.freeze(traced)


def export_program(model: nn.Module, device: torch.device) -> torch.export.ExportedProgram:
    """The exported program (what ``model.pt2`` holds)."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    rows, columns = torch.export.Dim("rows", min=2, max=128), torch.export.Dim("columns", min=2, max=128)
    shapes = {"x": {0: batch, 2: 8 * rows, 3: 8 * columns}, "sigma": {0: batch}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(model.eval(), example_inputs(device, 3, 64), dynamic_shapes=shapes)


def write_export(model: nn.Module, kind: str, path: Path) -> None:
    """Write a denoiser as "torchscript" (``model.ts``) or "pt2" (``model.pt2``): float32 on a CPU, any
    batch and size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "torchscript":
            torch.jit.save(torchscript(model, torch.device("cpu")), str(path))
        elif kind == "pt2":
            torch.export.save(export_program(model, torch.device("cpu")), str(path))
        else:
            raise ModelError(f"cannot export to '{kind}': use torchscript or pt2.")
