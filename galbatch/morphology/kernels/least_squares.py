"""Normal equations of the Sersic fit and the step of Levenberg and Marquardt that they propose.

Parameters as in ``sersic_model``; ``normal`` (7, 7) is filled below its diagonal only.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.jit import kernel, leaf, sum_kernel
from galbatch.morphology.kernels.sersic_model import N_PARAMETERS


@sum_kernel
def _product(one: np.ndarray, two: np.ndarray) -> float:
    total = 0.0
    for i in range(one.size):
        total += one[i] * two[i]
    return total


@leaf
def clear(normal: np.ndarray, gradient: np.ndarray) -> None:
    for a in range(7):
        gradient[a] = 0.0
        for b in range(7):
            normal[a, b] = 0.0


@leaf
def add_row(
    rows: np.ndarray,
    first: int,
    data: np.ndarray,
    weight: np.ndarray,
    normal: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Add a row of points to the lower triangle of ``normal`` (7, 7) and to ``gradient`` (7,); returns their
    chi2.

    ``rows`` (8, m): model and derivatives; from column ``first`` on they are overwritten.
    """
    last = first + weight.size
    residual = rows[0, first:last]
    for x in range(weight.size):
        residual[x] = (data[x] - residual[x]) * weight[x]
    for a in range(7):
        row = rows[a + 1, first:last]
        for x in range(weight.size):
            row[x] *= weight[x]
        gradient[a] += _product(row, residual)
        for b in range(a + 1):
            normal[a, b] += _product(row, rows[b + 1, first:last])
    return _product(residual, residual)


@kernel
def solve_damped(normal: np.ndarray, gradient: np.ndarray, damping: float, step: np.ndarray) -> bool:
    """``step`` = (normal + damping diag)^-1 gradient by Cholesky; False if not positive definite."""
    n = gradient.size
    low = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            s = normal[i, j]
            if i == j:
                s += damping * normal[i, i] + 1e-300
            for k in range(j):
                s -= low[i, k] * low[j, k]
            if i == j:
                if not s > 0.0:
                    return False
                low[i, i] = math.sqrt(s)
            else:
                low[i, j] = s / low[j, j]
    for i in range(n):
        s = gradient[i]
        for k in range(i):
            s -= low[i, k] * step[k]
        step[i] = s / low[i, i]
    for i in range(n - 1, -1, -1):
        s = step[i]
        for k in range(i + 1, n):
            s -= low[k, i] * step[k]
        step[i] = s / low[i, i]
    return True


@kernel
def propose(
    p: np.ndarray, normal: np.ndarray, gradient: np.ndarray, damping: float, trial: np.ndarray
) -> bool:
    """Next point of the search into ``trial``; False if the equations are singular."""
    step = np.empty(N_PARAMETERS)
    if not solve_damped(normal, gradient, damping, step):
        return False
    for k in range(N_PARAMETERS):
        trial[k] = p[k] + step[k]
    for k in range(1, 3):  # at most a factor of e in radius and index
        trial[k] = p[k] + min(max(step[k], -1.0), 1.0)
    return True


@leaf
def expected_gain(p: np.ndarray, trial: np.ndarray, normal: np.ndarray, gradient: np.ndarray) -> float:
    """How much less chi2 is at ``trial`` than at ``p`` if the model is linear between them."""
    gain = 0.0
    for a in range(N_PARAMETERS):
        d = trial[a] - p[a]
        gain += d * (2.0 * gradient[a] - d * normal[a, a])
        for b in range(a):
            gain -= 2.0 * d * normal[a, b] * (trial[b] - p[b])
    return gain
