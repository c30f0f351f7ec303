"""Sorting in place, small enough to compile fast. Values must be finite or infinite, not NaN."""

from __future__ import annotations

import numpy as np

from galbatch.morphology.kernels.jit import kernel

_SMALL = 16


@kernel
def _insert(v, tag, tagged, low, high):
    for i in range(low + 1, high + 1):
        value, mark = v[i], tag[i * tagged]
        j = i - 1
        while j >= low and v[j] > value:
            v[j + 1] = v[j]
            tag[(j + 1) * tagged] = tag[j * tagged]
            j -= 1
        v[j + 1] = value
        tag[(j + 1) * tagged] = mark


@kernel
def sort_with(v, tag, tagged):
    """Sort ``v`` (n,) ascending; with ``tagged`` 1 the entries of ``tag`` (n,) move along, with 0 it is (1,),
    unused."""
    stack = np.empty(128, np.int64)
    stack[0], stack[1] = 0, v.size - 1
    depth = 2
    while depth > 0:
        depth -= 2
        low, high = stack[depth], stack[depth + 1]
        while high - low > _SMALL:
            a, b, c = v[low], v[(low + high) // 2], v[high]
            pivot = max(min(a, b), min(max(a, b), c))
            i, j = low, high
            while i <= j:
                while v[i] < pivot:
                    i += 1
                while v[j] > pivot:
                    j -= 1
                if i <= j:
                    v[i], v[j] = v[j], v[i]
                    if tagged:
                        tag[i], tag[j] = tag[j], tag[i]
                    i += 1
                    j -= 1
            if j - low > high - i:  # the larger part waits: the stack holds at most log2 n parts
                stack[depth], stack[depth + 1] = low, j
                low = i
            else:
                stack[depth], stack[depth + 1] = i, high
                high = j
            depth += 2
        _insert(v, tag, tagged, low, high)


@kernel
def sorted_part(values, n):
    """A sorted copy of the first ``n`` of ``values``."""
    out = np.empty(n)
    for i in range(n):
        out[i] = values[i]
    sort_with(out, np.empty(1, np.int64), 0)
    return out
