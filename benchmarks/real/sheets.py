"""Contact sheets: a row per image of a run, with what a person needs to judge the grade."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ROWS = 6
TITLES = ("pixels", "model through the PSF", "residual / sigma", "mean", "draw 1", "draw 2", "spread / mean")


def write_sheets(folder: Path, name: str, rows: list[dict]) -> list[Path]:
    """``rows``: dicts of ``view`` (see ``view_of``) and ``text``; six to a PNG."""
    from matplotlib.figure import Figure

    written = []
    for first in range(0, len(rows), ROWS):
        part = rows[first : first + ROWS]
        figure = Figure((1.9 * len(TITLES) + 2.4, 1.95 * len(part) + 0.25))
        axes = figure.subplots(len(part), len(TITLES) + 1, squeeze=False)
        for line, row in zip(axes, part, strict=True):
            _row(line, row["view"])
            line[-1].text(0, 0.98, row["text"], va="top", fontsize=8, transform=line[-1].transAxes)
        for axis, title in zip(axes[0], TITLES, strict=False):
            axis.set_title(title, fontsize=9)
        figure.subplots_adjust(0.005, 0.005, 0.9, 0.96, 0.02, 0.02)
        written.append(folder / f"{name}-{first // ROWS + 1}.png")
        figure.savefig(written[-1], dpi=75)
    return written


def view_of(run, source_id, band: str) -> dict[str, np.ndarray]:
    """Images of one source in one band on the finest grid, nJy per pixel."""
    names = ("observed", "sigma", "model", "mean", "std", "mask")
    return {k: getattr(run, k)(source_id, band) for k in names} | {"draws": run.samples(source_id, band)[:2]}


def _row(axes, view) -> None:
    unused = ~np.isfinite(view["sigma"])
    sky = np.median(view["sigma"][~unused]) if (~unused).any() else 1.0
    grey = lambda image: np.arcsinh(image / sky)  # noqa: E731
    top = np.nanmax(grey(np.where(unused, np.nan, view["observed"])))
    sharp = max(top, grey(view["mean"]).max())
    residual = np.where(unused, np.nan, (view["observed"] - view["model"]) / view["sigma"])
    ratio = np.where(view["mean"] > sky, view["std"] / np.maximum(view["mean"], 1e-9), np.nan)
    panels = [
        (grey(view["observed"]), "inferno", -1.5, top),
        (grey(view["model"]), "inferno", -1.5, top),
        (residual, "RdBu_r", -5, 5),
        *((grey(image), "inferno", -1.5, sharp) for image in (view["mean"], *view["draws"])),
        (ratio, "cividis", 0, 1),
    ]
    for axis, (image, colours, low, high) in zip(axes, panels, strict=False):
        axis.imshow(image, cmap=colours, vmin=low, vmax=high, origin="lower", interpolation="nearest")
    if (view["mask"] & 2).any():
        axes[0].contour(view["mask"] & 2, [1], colors="cyan", linewidths=0.6)
    if unused.any():
        axes[1].contour(unused, [0.5], colors="grey", linewidths=0.4)
    for axis in axes:
        axis.axis("off")
