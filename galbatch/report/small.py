"""Small pictures of a source: on a terminal, in half-block characters, with its numbers; and for the page,
all panels side by side in one small WebP, within a size budget.

Without colour (a pipe, NO_COLOR, a dumb terminal) the terminal has shades of ASCII characters instead. The
page must stay under 20 MB whatever the size of the run, so the pixels, the draws shown and the compression of
a strip follow from the number of strips.
"""

from __future__ import annotations

import base64
import io
import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from galbatch.flags import FLAGS, Flag, Level
from galbatch.report.figure import BRIGHTNESS_MAP, MASKED, PRIOR_MAP, RESIDUAL_LIMIT, RESIDUAL_MAP
from galbatch.report.view import SourceView

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SHADES = " .:-=+*#%@"
MAX_STRIPS = 10_000  # pictures that the page holds
MAX_NUMBERS = 120_000  # sources times bands whose numbers the page holds

Panel = tuple[str, np.ndarray, str]  # title, image between 0 and 1, colour map


def _residual(view: SourceView) -> np.ndarray | None:
    """The residual between 0 and 1; None without a model."""
    residual = view.residual()
    return None if residual is None else np.clip(residual / RESIDUAL_LIMIT / 2 + 0.5, 0, 1)


def _light(view: SourceView, **images: np.ndarray | None) -> list[Panel]:
    """Panels of brightness, with one stretch for all: the observed one and those of ``images`` that there
    are."""
    stretch = view.stretch()
    bright = {"observed": view.observed_sb()} | {n: view.sb(i) for n, i in images.items() if i is not None}
    return [(name, stretch(image), BRIGHTNESS_MAP) for name, image in bright.items()]


def _coloured(image: np.ndarray, colours: str) -> np.ndarray:
    """(H, W, 3) uint8 of an image of 0 to 1; masked pixels in their own colour."""
    bad = ~np.isfinite(image)
    rgb = _colours(colours)[(np.where(bad, 0, image) * 255 + 0.5).astype(np.uint8)]
    rgb[bad] = tuple(bytes.fromhex(MASKED[1:]))
    return rgb


@cache
def _colours(name: str) -> np.ndarray:
    """(256, 3) uint8 of a colour map."""
    import matplotlib

    return (matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255 + 0.5).astype(np.uint8)


def print_source(view: SourceView, console: Console) -> None:
    """Print ``view`` on ``console``, as many panels side by side as its width allows."""
    from rich.text import Text

    panels = _panels(view)
    size = int(np.clip((console.width + 2) // min(len(panels), 4) - 2, 12, 32))
    per_row = max(1, (console.width + 2) // (size + 2))
    side = view.observed.shape[1] * view.pixel_scale_arcsec
    what = f'  {view.band}, {len(view.samples)} draws, {side:.2f}" across'
    console.print(Text.assemble((f"Source {view.source_id}", "bold"), what))
    for start in range(0, len(panels), per_row):
        console.print(_row(panels[start : start + per_row], size, console.color_system is not None))
    console.print(_table(view))
    for name, text in view.facts.items():
        console.print(Text(f"{name}: {text}"))
    for name in view.facts.get("flags", "").split(", "):
        about = FLAGS.get(Flag.__members__.get(name, Flag(0)))
        if about is not None and about.level >= Level.CAUTION:
            console.print(Text(f"  {name}: {about.meaning}. To do: {about.remedy}."))


def _panels(view: SourceView) -> list[Panel]:
    panels = _light(view, truth=view.truth, mean=view.mean, spread=view.std)
    if (residual := _residual(view)) is not None:
        panels.append(("residual / sigma", residual, RESIDUAL_MAP))
    if view.prior_driven is not None:
        panels.append(("prior-dominated", view.prior_driven, PRIOR_MAP))
    return panels


def _row(panels: list[Panel], size: int, colour: bool) -> RenderableType:
    from rich.table import Table

    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_row(*(title for title, _, _ in panels))
    draw = _blocks if colour else _shades
    row.add_row(*(draw(_shrink(image, size), colours) for _, image, colours in panels))
    return row


def _shrink(image: np.ndarray, size: int) -> np.ndarray:
    """(size, size), row 0 on top: mean of the pixels that a cell covers, NaN where all are masked."""
    edges = [np.linspace(0, n, size + 1) for n in image.shape]
    rows, columns = (
        [slice(int(a), max(int(np.ceil(b)), int(a) + 1)) for a, b in itertools.pairwise(e)] for e in edges
    )
    out = np.full((size, size), np.nan)
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            cell = image[r, c]
            if np.isfinite(cell).any():
                out[i, j] = np.nanmean(cell)
    return out[::-1]


def _blocks(image: np.ndarray, colours: str) -> RenderableType:
    from rich.text import Text

    rgb = _coloured(image, colours)
    text = Text()
    for y in range(0, image.shape[0] - 1, 2):
        for top, bottom in zip(rgb[y], rgb[y + 1], strict=True):
            text.append("▀", style=f"#{bytes(top).hex()} on #{bytes(bottom).hex()}")
        text.append("\n")
    return text


def _shades(image: np.ndarray, colours: str) -> RenderableType:
    from rich.text import Text

    lines = []
    for y in range(0, image.shape[0] - 1, 2):
        pair = image[y : y + 2]
        values = [np.nanmean(column) if np.isfinite(column).any() else np.nan for column in pair.T]
        lines.append(
            "".join("x" if np.isnan(v) else SHADES[int(v * (len(SHADES) - 1) + 0.5)] for v in values)
        )
    return Text("\n".join(lines) + "\n")


def _table(view: SourceView) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    rows = list(view.rows())
    with_truth = any(row[-1] for row in rows)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("posterior", "+", "-", "pixels", *(["truth"] if with_truth else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for label, unit, (value, plus, minus), seen, truth in rows:
        table.add_row(Text(label), Text(value, "bold"), plus, minus, seen, *[truth] * with_truth, Text(unit))
    return table


@dataclass(frozen=True)
class StripPlan:
    """Pixels along a panel's side, draws shown, WebP quality, and whether the last panel is in colour;
    ``titles`` of the panels, left to right."""

    panel_pix: int
    draws: int
    quality: int
    coloured: bool = False

    @property
    def titles(self) -> tuple[str, ...]:
        draws = ("draw",) if self.draws == 1 else tuple(f"draw {k + 1}" for k in range(self.draws))
        colour = ("all bands",) if self.coloured else ()
        return ("observed", "mean", "spread", "residual", *draws, *colour)


def plan_strips(count: int) -> StripPlan:
    """The richest strips that keep ``count`` of them, up to ``MAX_STRIPS``, within 15 MB of base64."""
    if count <= 150:
        return StripPlan(128, 3, 80)
    if count <= 400:
        return StripPlan(64, 3, 80)
    if count <= 1500:
        return StripPlan(64, 3, 65)
    if count <= 4000:
        return StripPlan(48, 2, 60)
    return StripPlan(32, 1, 40)


def encode_strip(view: SourceView, plan: StripPlan, colour: np.ndarray | None = None) -> str:
    """The strip of one source as base64 WebP; ``colour`` (H, W, 3) uint8, its last panel where ``plan`` has
    one."""
    from PIL import Image

    nothing, residual = np.full(view.mean.shape, np.nan), _residual(view)
    draws = {f"draw {k}": draw for k, draw in enumerate(view.samples[: plan.draws])}
    panels = _light(view, mean=view.mean, spread=view.std, **draws)
    panels.insert(3, ("residual", nothing if residual is None else residual, RESIDUAL_MAP))
    missing = len(plan.titles) - (colour is not None) - len(panels)
    panels += [("", nothing, BRIGHTNESS_MAP)] * missing
    pictures = [_coloured(image, colours) for _, image, colours in panels]
    pictures += [] if colour is None else [colour]
    strip = np.concatenate([_square(picture, plan.panel_pix) for picture in pictures], axis=1)
    out = io.BytesIO()
    Image.fromarray(strip).save(out, "WEBP", quality=plan.quality, method=4)
    return base64.b64encode(out.getvalue()).decode()


def _square(rgb: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8, north of the array up."""
    from PIL import Image

    picture = Image.fromarray(rgb[::-1])
    if picture.size == (side, side):
        return np.asarray(picture)
    smaller = min(picture.size) > side
    return np.asarray(
        picture.resize((side, side), Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)
    )
