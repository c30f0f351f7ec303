"""Pass or fail: the targets, each against its own error bar.

A row fails when it misses its tolerance by more than two standard errors: a small study cannot fail a right
sampler by chance, and cannot pass a wrong one by being vague either, because its error bar is printed beside
it.
"""

from __future__ import annotations

from galbatch.validate.ranks import LEVELS
from galbatch.validate.study import Study

TARGETS = {
    "pixels": 0.03,
    "footprint pixels": 0.03,
    "fourier": 0.05,
    "flux": 0.05,
    "r_half": 0.05,
    "gini": 0.05,
    "m20": 0.05,
    "concentration": 0.05,
    "asymmetry": 0.05,
}
TARP = 0.15
MEAN_Z = 0.1
CALIBRATED = 0.05


def verdict(study: Study) -> list[dict]:
    """One dict per check: name, value, error, target, passed."""
    checks = []
    for row in study.rows:
        tolerance = TARGETS[row["what"]]
        for level, value, error in zip(LEVELS, row["coverage"], row["error"], strict=True):
            if row["n"] < 10:
                continue
            miss = abs(value - level)
            checks.append(
                _check(
                    f"{row['what']} [{row['bin']}] {level:.0%}",
                    value,
                    error,
                    f"{level:.2f} +- {tolerance:.2f}",
                    miss <= tolerance + 2 * error,
                    miss <= tolerance,
                )
            )
    for row in study.intervals:
        for level, key in ((0.6827, "calibrated"), (0.5, "below_p50")):
            value, error = row[key]
            miss = abs(value - level)
            checks.append(
                _check(
                    f"{row['what']} {key}",
                    value,
                    error,
                    f"{level:.2f} +- {CALIBRATED:.2f}",
                    miss <= CALIBRATED + 2 * error,
                    miss <= CALIBRATED,
                )
            )
    for name, value in study.numbers.items():
        if name.startswith("tarp_"):
            error = 0.6 / study.numbers["galaxies"] ** 0.5
            checks.append(_check(name, value, error, f"< {TARP}", value < TARP + 2 * error, value < TARP))
    z, error = study.numbers["flux_mean_z"], study.numbers["flux_mean_z_error"]
    checks.append(
        _check("flux mean z", z, error, f"|z| < {MEAN_Z}", abs(z) < MEAN_Z + 2 * error, abs(z) < MEAN_Z)
    )
    n = study.numbers["evaluations"]
    checks.append(_check("evaluations", n, 0.0, "<= 48", n <= 48, n <= 48))
    return checks


def _check(name: str, value: float, error: float, target: float, passed: bool, inside: float | None) -> dict:
    return {
        "name": name,
        "value": float(value),
        "error": float(error),
        "target": target,
        "passed": bool(passed),
        "inside": bool(inside),
    }
