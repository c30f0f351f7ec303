"""Pass or fail: the targets, each against its own error bar.

A row fails when it misses its tolerance by more than two standard errors: a small study cannot fail a right
sampler by chance, and cannot pass a wrong one by being vague either, because its error bar is printed beside
it.

Beside it the calibration figure: coverage by bin, rank histograms, TARP curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from galbatch.validate.ranks import LEVELS
from galbatch.validate.study import SCALARS, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
            checks.append(_near(f"{row['what']} [{row['bin']}] {level:.0%}", value, error, level, tolerance))
    for row in study.intervals:
        for level, key in ((0.6827, "calibrated"), (0.5, "below_p50")):
            value, error = row[key]
            checks.append(_near(f"{row['what']} {key}", value, error, level, CALIBRATED))
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


def _near(name: str, value: float, error: float, level: float, tolerance: float) -> dict:
    miss, target = abs(value - level), f"{level:.2f} +- {tolerance:.2f}"
    return _check(name, value, error, target, miss <= tolerance + 2 * error, miss <= tolerance)


def _check(name: str, value: float, error: float, target: str, passed: bool, inside: bool) -> dict:
    return {
        "name": name,
        "value": float(value),
        "error": float(error),
        "target": target,
        "passed": bool(passed),
        "inside": bool(inside),
    }


def calibration_figure(study: Study, path: Path) -> None:
    """Write a PNG: what the intervals claim against what they do."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(13, 8), layout="constrained")
    grid = fig.add_gridspec(2, 4)
    _coverage(fig.add_subplot(grid[:, :2]), study)
    n = sum(study.histograms["flux"])
    for i, name in enumerate(("flux", "r_half", "gini")):
        ax = fig.add_subplot(grid[i // 2, 2 + i % 2])
        counts = np.array(study.histograms[name])
        ax.bar(np.arange(10) / 10 + 0.05, counts, 0.09, color="#4477aa")
        ax.axhspan(n / 10 - np.sqrt(0.9 * n / 10), n / 10 + np.sqrt(0.9 * n / 10), color="0.8", zorder=0)
        ax.set(title=f"ranks of the truth: {name}", xlabel="rank", ylabel="galaxies", ylim=(0, None))
    ax = fig.add_subplot(grid[1, 3])
    for name, curve in study.tarp.items():
        ax.plot(curve["levels"], curve["coverage"], label=name)
    ax.plot([0, 1], [0, 1], "k:", lw=1)
    ax.set(title="TARP", xlabel="credibility", ylabel="expected coverage")
    ax.legend(frameon=False, fontsize=8)
    numbers = study.numbers
    fig.suptitle(
        f"{numbers['galaxies']} held-out galaxies x {numbers['draws']} draws, {numbers['evaluations']:.0f} "
        f"evaluations per draw, chi2 {numbers['chi2_mean']:.3f}"
    )
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _coverage(ax: Axes, study: Study) -> None:
    rows = [r for r in study.rows if r["n"] >= 10 and (r["what"] not in SCALARS or r["bin"] == "all")]
    colours = ("#ccbb44", "#4477aa", "#228833", "#aa3377")
    y = np.arange(len(rows))[::-1]
    for j, level in enumerate(study.numbers["levels"]):
        value, error = ([r[key][j] for r in rows] for key in ("coverage", "error"))
        ax.errorbar(value, y, xerr=error, fmt="o", ms=4, color=colours[j], label=f"{level:.0%}")
        ax.axvline(level, color=colours[j], lw=1)
        ax.axvspan(level - 0.03, level + 0.03, color=colours[j], alpha=0.12)
    ax.set_yticks(y, [f"{r['what']}, {r['bin']} ({r['n']})" for r in rows], fontsize=8)
    ax.set(xlabel="share of truths inside the interval", xlim=(0.1, 1.02), title="coverage (lines: claimed)")
    ax.legend(loc="upper left", bbox_to_anchor=(-0.45, -0.03), ncols=2, fontsize=8, frameon=False)
