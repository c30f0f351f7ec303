"""Numbers of a page, small: float32 of few digits, their bytes sorted by significance, deflated, in base64.

Percentiles and values on the pixels are kept as differences from the median of their statistic, so that an
error bar keeps its own digits. ``templates/data.js`` unpacks.
"""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np

MIDDLE, REST = 17, 11  # mantissa bits kept: of medians (1 in 10^5), of all else (1 in 4000)


def pack_columns(columns: dict[str, np.ndarray]) -> tuple[list[list[str]], str]:
    """((name, name of the column that it is a difference from, or '') of each column, all as text).

    Every column is (n,) floats; NaN stays NaN."""
    names, planes = [], []
    for name, values in columns.items():
        base = _base(name, columns)
        values = np.asarray(values, np.float64)
        if base:
            values = values - _rounded(columns[base], MIDDLE).astype(np.float64)
        kept = _rounded(values, MIDDLE if "_p50_" in name else REST)
        planes.append(kept.astype("<f4").view(np.uint8).reshape(-1, 4).T.tobytes())
        names.append([name, base])
    return names, _deflated(b"".join(planes))


def pack_json(data: object) -> str:
    """JSON-able data as text."""
    return _deflated(json.dumps(data, separators=(",", ":")).encode())


def _base(name: str, columns: dict[str, np.ndarray]) -> str:
    for statistic in ("_p16_", "_p84_", "_obs_"):
        if statistic in name and (middle := name.replace(statistic, "_p50_")) in columns:
            return middle
    return ""


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """float32 with only so many bits of mantissa, to the nearest."""
    whole = np.asarray(values, np.float32)
    drop = np.uint32(23 - bits)
    raised = whole.view(np.uint32) + (np.uint32(1) << (drop - np.uint32(1)))
    kept = (raised >> drop << drop).view(np.float32)
    return np.where(np.isfinite(whole), kept, np.float32(np.nan))


def _deflated(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()
