"""One source on a terminal: small pictures in half-block characters, two pixels a character, and the numbers.

Without colour (a pipe, NO_COLOR, a dumb terminal) the pictures are shaded with ASCII characters instead.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.flags import FLAGS, Flag, Level
from galbatch.report.figure import BRIGHTNESS_MAP, PRIOR_MAP, RESIDUAL_LIMIT, RESIDUAL_MAP
from galbatch.report.summary import LABELS, plain, with_error
from galbatch.report.view import SourceView

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SHADES = " .:-=+*#%@"


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


def _panels(view: SourceView) -> list[tuple[str, np.ndarray, str]]:
    """(title, image between 0 and 1, colour map) of each picture."""
    stretch = view.stretch()
    panels = [("observed", stretch(view.observed_sb()), BRIGHTNESS_MAP)]
    if view.truth is not None:
        panels.append(("truth", stretch(view.sb(view.truth)), BRIGHTNESS_MAP))
    panels += [
        ("mean", stretch(view.sb(view.mean)), BRIGHTNESS_MAP),
        ("spread", stretch(view.sb(view.std)), BRIGHTNESS_MAP),
    ]
    residual = view.residual()
    if residual is not None:
        panels.append(("residual / sigma", np.clip(residual / RESIDUAL_LIMIT / 2 + 0.5, 0, 1), RESIDUAL_MAP))
    if view.prior_driven is not None:
        panels.append(("prior-dominated", view.prior_driven, PRIOR_MAP))
    return panels


def _row(panels: list[tuple[str, np.ndarray, str]], size: int, colour: bool) -> RenderableType:
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
    import matplotlib
    from rich.text import Text

    cmap = matplotlib.colormaps[colours].with_extremes(bad="#9db4c0")
    rgb = cmap(np.ma.masked_invalid(image), bytes=True)[..., :3]
    text = Text()
    for y in range(0, image.shape[0] - 1, 2):
        for top, bottom in zip(rgb[y], rgb[y + 1], strict=True):
            text.append("▀", style=f"{_hex(top)} on {_hex(bottom)}")
        text.append("\n")
    return text


def _hex(rgb: np.ndarray) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(v) for v in rgb))


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

    with_truth = any(np.isfinite(n.truth) for n in view.numbers)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("posterior", "+", "-", "pixels", *(["truth"] if with_truth else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for number in view.numbers:
        label, unit = LABELS.get(number.name, (number.name, number.unit))
        value, plus, minus = with_error(number.p16, number.p50, number.p84)
        error = max(number.p84 - number.p50, number.p50 - number.p16)
        truth = [plain(number.truth, error)] if with_truth else []
        cells: tuple[Any, ...] = (plus, minus, plain(number.obs, error), *truth, Text(unit))
        table.add_row(Text(label), Text(value, "bold"), *cells)
    return table
