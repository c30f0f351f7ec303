"""Random numbers that belong to a source, a band and a draw: not to a batch, an order, a worker or a device.

**Integers.** Philox4x32-10 (Salmon et al. 2011) makes four 32-bit words of a counter of four words and a key
of two. The key, and the last word of the counter, are the stream's (``stream_keys``); the others are the
number of the block of four, the stage (the how-manieth array a source's sampling asks for) and the draw.

**Normals** (Box and Muller 1958), in float32, from words a and b: u = (a + 1/2) / 2^32, which is never zero,
r = sqrt(-2 ln u), at most 6.8; the top two bits of b choose a quadrant and the others a place in it, which
makes an angle t; r cos t and r sin t. Logarithm, sine and cosine are polynomials (Cephes), so that every
machine has the same numbers but for the last bit where it multiplies and adds in one.

Both are written once: numba compiles them for a CPU, and torch runs them on any other device.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic

_LOW = 0xFFFFFFFF
_LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_ROOT_HALF_BITS = 0x3F3504F3  # of the float sqrt(1/2): a logarithm is expanded from there to sqrt(2)


def stream_keys(seed: int, ids: Sequence, bands: Sequence) -> torch.Tensor:
    """The streams of sources ``ids`` in ``bands``, integers or strings each: (b, c, 3) words, of which the
    first two are the key. 96 bits of the BLAKE2b hash of (seed, id, band) as JSON."""
    words = [[_words([int(seed), _plain(i), _plain(band)]) for band in bands] for i in ids]
    return torch.tensor(words, dtype=torch.int64).reshape(len(words), len(bands), 3)


def _plain(name: Any) -> int | str:
    return int(name) if isinstance(name, int | np.integer) else str(name)


def _words(stream: list) -> list[int]:
    digest = hashlib.blake2b(json.dumps(stream).encode(), digest_size=12).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in (0, 4, 8)]


class Normals:
    """Standard normals for sources ``ids``, their ``bands`` and ``draws``; each call of ``draw`` is the next
    stage of every stream, and ``stage`` (b,) the next one's number."""

    def __init__(
        self,
        seed: int,
        ids: Sequence,
        bands: Sequence,
        draws: Sequence[int],
        device: Any = "cpu",
        first_stage: int = 0,
    ) -> None:
        self.keys = stream_keys(seed, ids, bands).to(device)
        self.draws = torch.tensor(draws, dtype=torch.int64, device=device)
        self.stage = torch.full((len(self.keys),), first_stage, dtype=torch.int64, device=device)

    def draw(self, *shape: int) -> torch.Tensor:
        """(b, k, *shape) float32; the first of ``shape`` is the number of bands."""
        assert shape[0] == self.keys.shape[1], "one stream per band"
        size = math.prod(shape[1:])
        out = standard_normals(self.keys, self.draws, self.stage, size)
        self.stage = self.stage + 1
        return out.unflatten(-1, shape[1:])


def standard_normals(keys: torch.Tensor, draws: torch.Tensor, stage: torch.Tensor, size: int) -> torch.Tensor:
    """(b, k, c, size) float32 for streams (b, c, 3), draws (k,) and stages (b,), int64 all, made on their
    device."""
    if keys.device.type != "cpu":
        return _fused()(keys, draws, stage, size)
    out = torch.empty(len(keys), len(draws), keys.shape[1], size)
    _fill(keys.numpy(), draws.numpy(), stage.numpy(), out.numpy())
    return out


def torch_normals(keys: torch.Tensor, draws: torch.Tensor, stage: torch.Tensor, size: int) -> torch.Tensor:
    """``standard_normals`` by operations that torch has on every device."""
    pairs = torch_words(keys, draws, stage, -(-size // 4))
    first, second = _torch_pair(*pairs[:2]), _torch_pair(*pairs[2:])
    return torch.stack([*first, *second], dim=-1).flatten(-2)[..., :size]


def torch_words(
    keys: torch.Tensor, draws: torch.Tensor, stage: torch.Tensor, blocks: int
) -> tuple[torch.Tensor, ...]:
    """Four words (b, k, c, blocks) as int64."""
    block = torch.arange(blocks, device=keys.device)
    k0, k1, word = (keys[:, None, :, i, None] for i in range(3))
    c0, c1, c2, c3 = torch.broadcast_tensors(block, stage[:, None, None, None], draws[:, None, None], word)
    return _philox(c0, c1, c2, c3, k0, k1)


@cache
def _fused() -> Callable[..., torch.Tensor]:
    """One kernel where torch can compile one."""
    if importlib.util.find_spec("triton") is None:
        return torch_normals
    return torch.compile(torch_normals, dynamic=True, fullgraph=True)


def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Philox4x32-10 on words in 64-bit integers, of which a product may wrap."""
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1 = ((p1 >> 32) & _LOW) ^ c1 ^ k0, p1 & _LOW
        c2, c3 = ((p0 >> 32) & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def _box_muller(on: SimpleNamespace) -> Callable:
    """The transform of two words to two normals, from the operations ``on`` a device."""
    number, to_float, bits_of, float_of, choose, root = (
        on.number, on.to_float, on.bits_of, on.float_of, on.choose, on.root,
    )  # fmt: skip
    log, sin, cos = (tuple(number(x) for x in terms) for terms in (_LOG, _SIN, _COS))
    one, half, minus_two, scale = number(1), number(0.5), number(-2), number(2.0**-32)
    half_step, place, right_angle = number(2.0**-33), number(2.0**-30), number(math.pi / 2)
    ln2_high, ln2_low = number(0.693359375), number(-2.12194440e-4)

    def pair(a: Any, b: Any) -> Any:
        bits = bits_of(to_float(a) * scale + half_step)
        e = (bits - _ROOT_HALF_BITS) >> 23
        t, e = float_of(bits - (e << 23)) - one, to_float(e)
        z, p = t * t, log[0]
        for c in log[1:]:
            p = p * t + c
        y = t * z * p + e * ln2_low - half * z
        r = root(minus_two * (t + y + e * ln2_high))
        x = (to_float(b & 0x3FFFFFFF) * place - half) * right_angle
        z = x * x
        s = ((sin[0] * z + sin[1]) * z + sin[2]) * z * x + x
        c = ((cos[0] * z + cos[1]) * z + cos[2]) * z * z - half * z + one
        odd, r = (b >> 30) & 1 == 1, choose(b >> 31 == 1, -r, r)
        return r * choose(odd, -s, c), r * choose(odd, c, s)

    return pair


_torch_pair = _box_muller(
    SimpleNamespace(
        number=lambda x: float(np.float32(x)),
        to_float=lambda n: n.to(torch.float32),
        bits_of=lambda x: x.view(torch.int32),
        float_of=lambda n: n.view(torch.float32),
        choose=torch.where,
        root=torch.sqrt,
    )
)


@intrinsic
def _bits_of(typingctx: Any, x: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sext(builder.bitcast(args[0], ir.IntType(32)), ir.IntType(64))

    return numba.int64(numba.float32), code


@intrinsic
def _float_of(typingctx: Any, n: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.trunc(args[0], ir.IntType(32)), ir.FloatType())

    return numba.float32(numba.int64), code


@numba.njit(forceinline=True)
def _to_float(n: Any) -> Any:
    return np.float32(n)


@numba.njit(forceinline=True)
def _choose(condition: Any, x: Any, y: Any) -> Any:
    return x if condition else y


_cpu_philox = numba.njit(forceinline=True)(_philox)
_cpu_pair = numba.njit(forceinline=True)(
    _box_muller(
        SimpleNamespace(
            number=np.float32,
            to_float=_to_float,
            bits_of=_bits_of,
            float_of=_float_of,
            choose=_choose,
            root=np.sqrt,
        )
    )
)


def _cached(function: Callable) -> Callable:
    """Compiled at the first call, without the GIL, and kept on disk where a folder can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)


@_cached
def _fill(keys: Any, draws: Any, stage: Any, out: Any) -> Any:
    """Normals for streams (b, c, 3), draws (k,) and stages (b,) into ``out`` (b, k, c, n)."""
    b, k, c, n = out.shape
    for i in range(b):
        for j in range(k):
            for band in range(c):
                row, word = out[i, j, band], keys[i, band, 2]
                k0, k1 = keys[i, band, 0], keys[i, band, 1]
                for block in range(n // 4):
                    w0, w1, w2, w3 = _cpu_philox(block, stage[i], draws[j], word, k0, k1)
                    row[4 * block], row[4 * block + 1] = _cpu_pair(w0, w1)
                    row[4 * block + 2], row[4 * block + 3] = _cpu_pair(w2, w3)
                if n % 4:
                    w0, w1, w2, w3 = _cpu_philox(n // 4, stage[i], draws[j], word, k0, k1)
                    last = (*_cpu_pair(w0, w1), *_cpu_pair(w2, w3))
                    for place in range(n % 4):
                        row[n - n % 4 + place] = last[place]
