"""How alike the bands of one galaxy are, before any data: the prior's correlation between bands.

A Fourier mode of an image in band i and the same mode in band j, each in units of its band's flux scale,
correlate with

    rho_ij(k) = ceiling(k) exp(-(|ln lambda_i - ln lambda_j| / length(k))^power)   for i != j,   rho_ii = 1,

which is positive definite for 0 < power <= 2 and ceiling <= 1. The numbers are measured on held-out
galaxies and stand on the model's card, at a few k in cycles per pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from galbatch.errors import ModelError

KEYS = ("k", "ceiling", "length", "power")


def cross_correlation(
    table: Mapping[str, Any] | None, log_wavelengths: Sequence[float] | np.ndarray, k: Any = None
) -> np.ndarray:
    """(..., bands, bands) correlation at ``k`` (any shape, cycles per pixel), the mean over the table's k
    when None. ``log_wavelengths`` (bands,): natural log of micrometres.

    Raises ``ModelError`` when the model has no table (a model of single bands).
    """
    check_cross(table, "cross_correlation")
    assert table is not None
    at = np.asarray(table["k"] if k is None else k, dtype=np.float64)
    ceiling, length = (np.interp(at, table["k"], table[name])[..., None, None] for name in KEYS[1:3])
    log = np.asarray(log_wavelengths, dtype=np.float64)
    apart = np.abs(log[:, None] - log[None, :])
    rho = ceiling * np.exp(-((apart / length) ** table["power"]))
    rho[..., np.arange(len(log)), np.arange(len(log))] = 1.0
    return rho.mean(axis=0) if k is None else rho


def check_cross(table: Mapping[str, Any] | None, who: str) -> None:
    """Raises ``ModelError`` when ``table`` is not one that a covariance can be made of."""
    if not table or set(table) != set(KEYS):
        raise ModelError(
            f"{who}: no table of correlations between bands (found {sorted(table or {})}, wanted "
            f"{list(KEYS)}): the model is one of single bands; sample the bands separately."
        )
    k, ceiling, length = (np.asarray(table[name], dtype=np.float64) for name in KEYS[:3])
    good = k.ndim == 1 and len(k) and ceiling.shape == length.shape == k.shape and (np.diff(k) > 0).all()
    good = good and (ceiling >= 0).all() and (ceiling <= 1).all() and (length > 0).all()
    if not (good and 0 < table["power"] <= 2):
        raise ModelError(
            f"{who}: correlations between bands need rising k, ceilings from 0 to 1, positive lengths and "
            f"a power within 0 to 2, found {dict(table)}: measure the model again."
        )
