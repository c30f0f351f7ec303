"""Muon for the convolutions, Adam for everything else, under one learning rate.

Muon (Jordan et al. 2024) replaces the momentum of a weight matrix by the nearest orthogonal one, found with
five Newton-Schulz steps; scaled by 0.2 sqrt(max(rows, columns)) its update has the size of Adam's (Liu et
al. 2025, arXiv:2502.16982), so that one learning rate serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """(..., m, n) -> about U V^T of each singular value decomposition, by a quintic Newton-Schulz iteration,
    x <- p(x x^T) x: p acts on the small Gram matrix, and once, in the end, on x."""
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    gram = x @ x.mT
    total = one = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device).expand_as(gram)
    for _ in range(steps):
        p = 3.4445 * one - 4.7750 * gram + 2.0315 * gram @ gram
        total, gram = p @ total, p @ gram @ p
    x = total @ x
    return x if wide else x.mT


class MuonAdam:
    """``matrices``: indices of the parameters that Muon takes; those of one shape go together. State tensors
    per parameter are in ``state``."""

    def __init__(
        self,
        params: list[Tensor],
        matrices: set[int],
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
    ) -> None:
        self.params, self.betas, self.momentum, self.count = params, betas, momentum, 0
        self.others = [i for i in range(len(params)) if i not in matrices]
        self.groups: dict[tuple[int, int], list[int]] = {}
        for i in sorted(matrices):
            self.groups.setdefault((len(params[i]), params[i][0].numel()), []).append(i)
        self.state = [
            {name: torch.zeros_like(p) for name in ("m" if i in matrices else "mv")}
            for i, p in enumerate(params)
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients at hand with learning rate ``rate``."""
        self.count += 1
        for shape, members in self.groups.items():
            self._muon(shape, members, rate)
        if self.others:
            self._adam(self.others, rate)

    def _of(self, members: list[int], *names: str) -> tuple[list[Tensor], ...]:
        """Parameters, gradients and states of some."""
        params = [self.params[i] for i in members]
        states = ([self.state[i][name] for i in members] for name in names)
        return params, [p.grad for p in params if p.grad is not None], *states

    def _muon(self, shape: tuple[int, int], members: list[int], rate: float) -> None:
        params, grads, m = self._of(members, "m")
        torch._foreach_mul_(m, self.momentum)
        torch._foreach_add_(m, grads)
        ahead = torch._foreach_add(grads, m, alpha=self.momentum)
        update = orthogonalise(torch.stack([t.reshape(shape) for t in ahead]))
        update *= 0.2 * max(shape) ** 0.5 * rate
        torch._foreach_sub_(params, [u.reshape(p.shape) for u, p in zip(update, params, strict=True)])

    def _adam(self, members: list[int], rate: float) -> None:
        (params, grads, m, v), (b1, b2) = self._of(members, "m", "v"), self.betas
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_lerp_(v, torch._foreach_mul(grads, grads), 1 - b2)
        scale = torch._foreach_sqrt(torch._foreach_div(v, 1 - b2**self.count))
        torch._foreach_add_(scale, 1e-9)
        update = torch._foreach_div(m, 1 - b1**self.count)
        torch._foreach_mul_(update, rate)
        torch._foreach_div_(update, scale)
        torch._foreach_sub_(params, update)
