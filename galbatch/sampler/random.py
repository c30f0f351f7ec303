"""Random numbers that belong to a source and a draw, not to a batch, a worker or a global state.

A counter-based generator (Philox, Salmon et al. 2011): key = (run seed, source key), counter = (., stage,
draw, .).
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

_MASK = (1 << 64) - 1


def source_key(source_id) -> int:
    """64-bit key of a source id: integers as they are (two's complement), strings by BLAKE2b."""
    if isinstance(source_id, (int, np.integer)):
        return int(source_id) & _MASK
    return int.from_bytes(hashlib.blake2b(str(source_id).encode(), digest_size=8).digest(), "little")


def band_seed(seed: int, band: int) -> int:
    """The seed of one of several bands sampled one by one; the first keeps the run's."""
    return seed + (band << 48)


class Normals:
    """Standard normals for sources ``ids`` and draws ``draws``; each call of ``draw`` is the next stage of
    every stream."""

    def __init__(self, seed: int, ids, draws: range, device="cpu", first_stage: int = 0):
        self.seed, self.keys, self.draws, self.device = (
            int(seed) & _MASK,
            [source_key(i) for i in ids],
            draws,
            device,
        )
        self.stage = first_stage

    def draw(self, *shape: int) -> torch.Tensor:
        """(b, k, *shape) float32."""
        out = np.empty((len(self.keys), len(self.draws), *shape), np.float32)
        for i, key in enumerate(self.keys):
            for j, draw in enumerate(self.draws):
                bits = np.random.Philox(key=[self.seed, key], counter=[0, self.stage, draw, 0])
                np.random.Generator(bits).standard_normal(dtype=np.float32, out=out[i, j])
        self.stage += 1
        return torch.from_numpy(out).to(self.device)
