"""Preconditioned conjugate gradients for a batch of symmetric positive systems, each of which stops by
itself."""

from __future__ import annotations

from collections.abc import Callable

import torch

Operator = Callable[[torch.Tensor], torch.Tensor]


def waits(device: torch.device) -> bool:
    """Whether a look at a value makes a device wait: then solves run a bounded number of iterations."""
    return device.type != "cpu"


def conjugate_gradients(
    operator: Operator,
    precondition: Operator,
    r: torch.Tensor,
    dot: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    limit: Callable[[torch.Tensor], torch.Tensor],
    iterations: int,
    look_every: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """x with operator(x) = r from x = 0, the last r . precondition(r), the limit of it, and the iterations
    done.

    ``dot``: inner product of each system, of a shape that broadcasts to r. ``limit(start)``: the value of r .
    precondition(r) at which a system is solved, from its first value; a solved system is frozen, so that its
    result does not depend on what else is in the batch. ``look_every``: iterations between looks at whether
    all are solved (0: never; a look makes a GPU wait).
    """
    x = torch.zeros_like(r)
    z = precondition(r)
    p, rz = z, dot(r, z)
    end = limit(rz.clamp_min(1e-30))
    done = 0
    while done < iterations:
        active = rz > end
        if look_every and done % look_every == 0 and not active.any():
            break
        q = operator(p)
        a = torch.where(active, rz / dot(p, q).clamp_min(1e-30), 0.0)
        x = torch.addcmul(x, a, p)
        r = torch.addcmul(r, -a, q)
        z = precondition(r)
        new = dot(r, z)
        p, rz = torch.addcmul(z, new / rz.clamp_min(1e-30), p), torch.where(active, new, rz)
        done += 1
    return x, rz, end, done
