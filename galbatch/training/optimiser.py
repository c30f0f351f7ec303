"""Muon for the convolutions, Adam for everything else, under one learning rate.

Muon (Jordan et al. 2024) replaces the momentum of a weight matrix by the nearest orthogonal one, found with
five Newton-Schulz steps; scaled by 0.2 sqrt(max(rows, columns)) its update has the size of Adam's (Liu et
al. 2025, arXiv:2502.16982), so that one learning rate serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """(m, n) -> about U V^T of its singular value decomposition, by a quintic Newton-Schulz iteration,
    x <- p(x x^T) x: p acts on the small Gram matrix, and once, in the end, on x."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-12)
    gram = x @ x.T
    total = one = torch.eye(len(x), dtype=x.dtype, device=x.device)
    for _ in range(steps):
        p = 3.4445 * one - 4.7750 * gram + 2.0315 * gram @ gram
        total, gram = p @ total, p @ gram @ p
    x = total @ x
    return x if wide else x.T


class MuonAdam:
    """``matrices``: indices of the parameters that Muon takes. State tensors per parameter are in
    ``state``."""

    def __init__(
        self,
        params: list[Tensor],
        matrices: set[int],
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
    ) -> None:
        self.params, self.matrices, self.betas, self.momentum = params, matrices, betas, momentum
        self.count = 0
        self.state: list[dict[str, Tensor]] = [
            {"m": torch.zeros_like(p)}
            if i in matrices
            else {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}
            for i, p in enumerate(params)
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients at hand with learning rate ``rate``."""
        self.count += 1
        for i, (p, state) in enumerate(zip(self.params, self.state, strict=True)):
            if i in self.matrices:
                self._muon(p, state, rate)
            else:
                self._adam(p, state, rate)

    def _muon(self, p: Tensor, state: dict[str, Tensor], rate: float) -> None:
        assert p.grad is not None
        m = state["m"].mul_(self.momentum).add_(p.grad)
        update = orthogonalise((p.grad + self.momentum * m).reshape(p.shape[0], -1))
        p.sub_(update.reshape(p.shape) * (0.2 * max(update.shape) ** 0.5 * rate))

    def _adam(self, p: Tensor, state: dict[str, Tensor], rate: float) -> None:
        assert p.grad is not None
        b1, b2 = self.betas
        m = state["m"].lerp_(p.grad, 1 - b1)
        v = state["v"].lerp_(p.grad.square(), 1 - b2)
        p.sub_(rate * (m / (1 - b1**self.count)) / ((v / (1 - b2**self.count)).sqrt() + 1e-9))
