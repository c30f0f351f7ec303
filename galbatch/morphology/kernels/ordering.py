"""Sorting pixels, by radix: their values have single precision, so that 32 bits order them.

A key is an integer with the value in its upper half, such that keys are ordered as their values are, and a
tag in its lower half. Keys of equal values stay in the order they are in.
"""

from __future__ import annotations

import numpy as np

from galbatch.morphology.kernels.jit import bits_of_single, kernel, leaf, single_of

_DIGIT = 11  # bits a pass: 11, 11 and the last 10, of which one is the sign
_SIZE = 1 << _DIGIT


@leaf(forceinline=True)
def key_of(value: float, tag: int) -> int:
    bits = bits_of_single(value)
    return ((bits if bits >= 0 else bits ^ 0x7FFFFFFF) << 32) | tag


@leaf(forceinline=True)
def value_of(key: int) -> float:
    bits = key >> 32
    return single_of(bits if bits >= 0 else bits ^ 0x7FFFFFFF)


@leaf
def _distribute(keys: np.ndarray, out: np.ndarray, shift: int, start: np.ndarray) -> None:
    """Write ``keys`` to ``out``, ordered by the digit above ``shift``; ``start`` (``_SIZE`` + 1,) is room."""
    for d in range(_SIZE + 1):
        start[d] = 0
    low = shift - 32 - 2 * _DIGIT  # 0 for the last digit: signed, its negative values come first
    flip = _SIZE // 2 if low >= 0 else 0
    for i in range(keys.size):
        start[(((keys[i] >> shift) + flip) & (_SIZE - 1)) + 1] += 1
    for d in range(_SIZE):
        start[d + 1] += start[d]
    for i in range(keys.size):
        d = ((keys[i] >> shift) + flip) & (_SIZE - 1)
        out[start[d]] = keys[i]
        start[d] += 1


@kernel
def sort_keys(keys: np.ndarray) -> np.ndarray:
    """A sorted array of ``keys``, which are overwritten."""
    spare, start = np.empty(keys.size, np.int64), np.empty(_SIZE + 1, np.int64)
    _distribute(keys, spare, 32, start)
    _distribute(spare, keys, 32 + _DIGIT, start)
    _distribute(keys, spare, 32 + 2 * _DIGIT, start)
    return spare


@kernel
def sorted_part(values: np.ndarray, n: int) -> np.ndarray:
    """A sorted copy of the first ``n`` of ``values``, which must not be NaN."""
    keys = np.empty(n, np.int64)
    for i in range(n):
        keys[i] = key_of(values[i], 0)
    keys, out = sort_keys(keys), np.empty(n)
    for i in range(n):
        out[i] = value_of(keys[i])
    return out
