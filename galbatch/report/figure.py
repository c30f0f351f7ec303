"""The figure of one source: data, posterior mean, spread, residual, prior-driven map, draws, truth, numbers.

All brightness panels, the spread included, share one asinh stretch in nJy per square arcsecond, so that a
grey means the same flux everywhere: where the spread is as bright as the mean, the mean is not known.
"""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from galbatch.report.view import SourceView, Stretch

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Picture(Figure):
    """A matplotlib figure that belongs to no window and that Jupyter displays when it is the value of a
    cell."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


INK, QUIET, MASKED = "#1a1a1a", "#5f6368", "#9db4c0"
BRIGHTNESS_MAP, RESIDUAL_MAP, PRIOR_MAP = "inferno", "RdBu_r", "cividis"
RESIDUAL_LIMIT = 4.0
RC: Any = {  # matplotlib has a type for the names of its settings
    "font.size": 8,
    "axes.titlesize": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a user's names may hold dollar signs
}


def figure_source(view: SourceView) -> Figure:
    """The figure of ``view``; the caller saves it (``fig.savefig``). Uses no global state of matplotlib."""
    columns = 6 if view.truth is not None else 5
    with matplotlib.rc_context(RC):
        fig = Picture(figsize=(1.7 * columns + 3.5, 4.6), facecolor="white", dpi=150)
        grid = fig.add_gridspec(
            2,
            columns + 1,
            width_ratios=[1.0] * columns + [2.0],
            left=0.012,
            right=0.992,
            top=0.865,
            bottom=0.125,
            wspace=0.06,
            hspace=0.27,
        )
        axes = np.array(
            [[fig.add_subplot(grid[row, column]) for column in range(columns)] for row in range(2)]
        )
        stretch = view.stretch()
        shown = _top_row(view, stretch, axes[0])
        _draws(view, stretch, axes[1])
        _scale_bar(axes[0, 0], view)
        _psf_inset(axes[0, 0], view)
        _compass(axes[0, 0], view)
        _edge(axes[0, 0])
        _bars(fig, stretch, shown, axes)
        _numbers(fig.add_subplot(grid[:, columns]), view)
        _heading(fig, view)
    return fig


def _top_row(view: SourceView, stretch: Stretch, axes: Any) -> dict[str, tuple]:
    """Draw the first row; returns {kind: (image, axes)} of the panels with a colour bar of their own."""
    panels = iter(axes)
    _brightness(next(panels), view.observed_sb(), stretch, "Observed")
    if view.truth is not None:
        _brightness(next(panels), view.sb(view.truth), stretch, "Truth")
    _brightness(next(panels), view.sb(view.mean), stretch, "Posterior mean")
    _brightness(next(panels), view.sb(view.std), stretch, "Spread (1σ)")
    shown = {}
    axis, residual = next(panels), view.residual()
    image = np.full(view.observed.shape, np.nan) if residual is None else residual
    shown["residual"] = (
        _panel(axis, image, "Residual / σ", RESIDUAL_MAP, (-RESIDUAL_LIMIT, RESIDUAL_LIMIT)),
        axis,
    )
    if residual is None:
        axis.text(0.5, 0.5, "no model", ha="center", va="center", transform=axis.transAxes)
    axis, prior = next(panels), view.prior_driven
    image = np.full(view.mean.shape, np.nan) if prior is None else prior
    shown["prior"] = (_panel(axis, image, "Prior-dominated", PRIOR_MAP, (0.0, 1.0)), axis)
    _outline(axis, view)
    return shown


def _draws(view: SourceView, stretch: Stretch, axes: Any) -> None:
    for k, axis in enumerate(axes):
        if k < len(view.samples):
            _brightness(axis, view.sb(view.samples[k]), stretch, f"Draw {k + 1}")
        else:
            axis.set_axis_off()


def _brightness(axis: Axes, image: np.ndarray, stretch: Stretch, title: str) -> Any:
    return _panel(axis, stretch(image), title, BRIGHTNESS_MAP, (0.0, 1.0))


def _panel(axis: Axes, image: np.ndarray, title: str, colours: str, limits: tuple[float, float]) -> Any:
    cmap = matplotlib.colormaps[colours].with_extremes(bad=MASKED)
    h, w = image.shape
    shown = axis.imshow(
        np.ma.masked_invalid(image),
        origin="lower",
        cmap=cmap,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
        extent=(0, 1, 0, h / w),
    )
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, pad=3)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return shown


def _outline(axis: Axes, view: SourceView) -> None:
    """The contour of 3 sigma of the sky on the posterior mean: the prior matters where there is light."""
    sky = np.median(view.sb(view.sigma)[view.good]) if view.good.any() else 0.0
    mean = view.sb(view.mean)
    if sky > 0 and mean.max() > 3 * sky:
        h, w = mean.shape
        axis.contour(mean, levels=[3 * sky], colors="white", linewidths=0.8, extent=(0, 1, 0, h / w))


def _edge(axis: Axes) -> None:
    """A dark edge around the white marks of a panel: they may lie on masked pixels."""
    arrows = [text.arrow_patch for text in axis.texts if isinstance(text, Annotation) and text.arrow_patch]
    for marks, width in ((axis.texts, 1.6), (arrows, 2.0), (axis.lines, 3.4)):
        for mark in marks:
            mark.set_path_effects([withStroke(linewidth=width, foreground=INK)])


def _scale_bar(axis: Axes, view: SourceView) -> None:
    width = view.observed.shape[1] * view.pixel_scale_arcsec
    length = max(
        s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if s <= 0.4 * width or s == 0.01
    )
    share = length / width
    axis.plot([0.06, 0.06 + share], [0.06, 0.06], color="white", lw=2, solid_capstyle="butt")
    axis.text(0.06 + share / 2, 0.085, f'{length:g}"', color="white", ha="center", va="bottom", fontsize=7.5)


def _psf_inset(axis: Axes, view: SourceView) -> None:
    """The PSF at the scale of the panel, in the lower right corner, cropped to where it matters."""
    if view.psf is None:
        return
    psf = view.psf
    ratio = (view.psf_scale_arcsec or view.pixel_scale_arcsec) / view.pixel_scale_arcsec
    keep = max(3, int(0.27 * view.observed.shape[1] / ratio) | 1)
    start = max(0, (psf.shape[0] - keep) // 2)
    psf = psf[start : start + keep, start : start + keep]
    share = psf.shape[0] * ratio / view.observed.shape[1]
    inset = axis.inset_axes((1 - share - 0.02, 0.02, share, share))
    peak = psf.max()
    inset.imshow(
        Stretch(0.0, peak, peak / 50)(psf), origin="lower", cmap=BRIGHTNESS_MAP, interpolation="nearest"
    )
    inset.set(xticks=[], yticks=[])
    for spine in inset.spines.values():
        spine.set(color="white", linewidth=0.7)
    axis.text(
        1 - share / 2 - 0.02,
        share + 0.035,
        "PSF",
        color="white",
        ha="center",
        va="bottom",
        fontsize=6.5,
        transform=axis.transAxes,
    )


def _compass(axis: Axes, view: SourceView) -> None:
    if view.north_deg is None:
        return
    foot = np.array([0.83, 0.81])
    for letter, angle in (("N", view.north_deg), ("E", view.north_deg + 90)):
        step = 0.1 * np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
        axis.annotate(
            "",
            tuple(foot + step),
            tuple(foot),
            xycoords=axis.transAxes,
            arrowprops={
                "arrowstyle": "-|>",
                "color": "white",
                "lw": 0.8,
                "mutation_scale": 5,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        x, y = foot + 1.35 * step
        axis.text(
            x,
            y,
            letter,
            color="white",
            ha="center",
            va="center",
            fontsize=6.5,
            transform=axis.transAxes,
        )


def _bars(fig: Figure, stretch: Stretch, shown: dict[str, tuple], axes: Any) -> None:
    """The colour bars: brightness under the draws, residual and prior under their panels."""
    left, right = axes[1, 0].get_position(), axes[1, -1].get_position()
    bar = fig.add_axes((left.x0, 0.085, right.x1 - left.x0, 0.018))
    drawn = fig.colorbar(ScalarMappable(Normalize(0, 1), BRIGHTNESS_MAP), cax=bar, orientation="horizontal")
    ticks = stretch.ticks()
    drawn.set_ticks(stretch(ticks).tolist(), labels=[f"{t:g}" for t in ticks])
    drawn.set_label(
        "surface brightness [nJy arcsec$^{-2}$], asinh, one scale for all brightness panels and the spread",
        labelpad=1,
        parse_math=True,
    )
    for kind, marks in (("residual", [-4, -2, 0, 2, 4]), ("prior", [0, 0.5, 1])):
        image, axis = shown[kind]
        box = axis.get_position()
        cax = fig.add_axes((box.x0 + 0.1 * box.width, box.y0 - 0.022, 0.8 * box.width, 0.011))
        drawn = fig.colorbar(image, cax=cax, orientation="horizontal", ticks=marks)
        drawn.ax.tick_params(labelsize=6, pad=1, length=2)
        drawn.outline.set_visible(False)
    drawn.set_ticks([0, 0.5, 1], labels=["data", "0.5", "prior"])


def _numbers(axis: Axes, view: SourceView) -> None:
    """The table of numbers: posterior with its error bar, observed-pixel value, truth; then the facts."""
    axis.set_axis_off()
    axis.set(xlim=(0, 1), ylim=(0, 1))
    rows = list(view.rows())
    with_truth = any(row[-1] for row in rows)
    at = {"value": 0.545, "obs": 0.845 if with_truth else 1.0, "truth": 1.0}
    y = 0.995
    for name, x in (("posterior", at["value"]), ("pixels", at["obs"]), ("truth", at["truth"])):
        if name != "truth" or with_truth:
            axis.text(x, y, name, ha="right", va="top", color=QUIET, fontsize=7)
    for label, unit, (value, plus, minus), seen, truth in rows:
        y -= 0.06
        axis.text(0.05, y, f"{label} [{unit}]" if unit else label, va="top", fontsize=7.5)
        axis.text(at["value"], y, value, ha="right", va="top", weight="bold", fontsize=7.5)
        error_bar = f"$^{{+{plus}}}_{{-{minus}}}$" if plus else ""
        axis.text(at["value"] + 0.008, y + 0.006, error_bar, va="top", parse_math=True)
        axis.text(at["obs"], y, seen, ha="right", va="top", color=QUIET, fontsize=7.5)
        if with_truth:
            axis.text(at["truth"], y, truth, ha="right", va="top", color=QUIET, fontsize=7.5)
    y -= 0.1
    for name, text in view.facts.items():
        axis.text(0.05, y, name, va="baseline", color=QUIET, fontsize=7.5)
        for line in textwrap.wrap(text, 30) or [""]:
            axis.text(0.4, y, line, va="baseline", fontsize=7.5)
            y -= 0.045


def _heading(fig: Figure, view: SourceView) -> None:
    side = view.observed.shape[1] * view.pixel_scale_arcsec
    fig.text(0.012, 0.965, f"Source {view.source_id}", fontsize=12, weight="bold", va="center")
    fig.text(
        0.992,
        0.965,
        f'{view.band}, {len(view.samples)} draws, {side:.2f}" across, {view.pixel_scale_arcsec:g}" pixels',
        ha="right",
        va="center",
        color=QUIET,
    )
